# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Bags, read and written without ROS."""
