# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Settings against each other on the same frames: accuracy, latency, and which one to take."""
