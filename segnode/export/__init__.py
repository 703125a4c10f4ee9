# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""A model's dense parts as programs for other engines."""
