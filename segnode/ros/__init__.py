# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The ROS 2 side: parameters, messages, diagnostics and the node around the core."""
