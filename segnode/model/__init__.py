# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Mask R-CNN with FPN, one module a stage, in the order in which a frame passes them."""
