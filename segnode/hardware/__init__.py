# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What the machine tells of itself: temperatures, power, clocks, and what slows it down."""
