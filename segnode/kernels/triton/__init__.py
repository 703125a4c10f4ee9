# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The steps around the network in Triton, each with a twin in ``segnode.kernels.plain``."""
