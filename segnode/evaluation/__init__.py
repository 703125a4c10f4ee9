# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""How good the answers are: COCO results and average precision."""
