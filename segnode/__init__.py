# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Instance masks for robots: Mask R-CNN on camera topics of ROS 2, and offline."""

__version__ = '0.1.0'
