# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""``segnode doctor``: what this machine has and lacks, and what to do about it."""
