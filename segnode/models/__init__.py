# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""``segnode models``: what there is, and what each costs."""
