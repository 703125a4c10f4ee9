# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The steps around the network that no library runs on the device in one shape.

Non-maximum suppression, RoIAlign over a pyramid, pasting masks into a label image, and the
resize: each as a Triton kernel (``nms``, ``roi_align``, ``paste``, ``preprocess``, which import
Triton) and as a twin in plain PyTorch with the same signature. ``operators`` chooses.

``cpu`` has three of them in C for the dynamic path of a CPU.

Neither kernel nor twin synchronises with the host or uploads anything, so both can be captured in
a CUDA graph. Triton compiles a kernel at its first call, which must come before a capture.
"""
