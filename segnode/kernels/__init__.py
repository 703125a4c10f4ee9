# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The steps around the network: preprocess, selection, RoIAlign, filter, paste.

``operators`` chooses. ``triton`` has each as kernels of a GPU, ``plain`` a twin in plain PyTorch
with the same signature; neither of the two stops for the host or uploads anything, so both can be
captured in a CUDA graph. Triton compiles a kernel at its first call, which must come before a
capture. ``plain`` also has NMS and RoIAlign on exactly what is there, which do stop; ``cpu`` has
three of the steps in C for that path.
"""
