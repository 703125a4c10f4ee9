# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What a running camera needs, and no ROS: messages, the newest frame, its accounting."""
