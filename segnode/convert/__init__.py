# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""``segnode convert``: images or a video into a bag, and label images into annotations."""
