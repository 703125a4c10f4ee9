# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The embedded demo: a rendered scene, the model trained on it, and its training."""
