#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
# Sources the one ROS of the image and the workspace, and becomes the command.
set -e
source /opt/ros/*/setup.bash
source /ws/install/setup.bash
exec "$@"
