# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What the selection of proposals and of detections asks of non-maximum suppression."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class NMS(Protocol):
    """Greedy non-maximum suppression; see ``segnode.kernels.plain.nms``."""

    def __call__(
        self, boxes: Tensor, valid: Tensor, threshold: float | Tensor, groups: Tensor | None = None
    ) -> Tensor:
        """Map (..., K, 4) boxes, highest score first, to (..., K) bool, those that stay."""
        ...
