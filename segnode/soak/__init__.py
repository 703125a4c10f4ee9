# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The soak: hours of images and faults through the real node, and every promise checked."""
