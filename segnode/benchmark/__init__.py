# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""``segnode benchmark``: timings by stage, and in pairs against other implementations."""
