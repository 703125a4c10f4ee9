# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Names for what OpenCV's stubs leave open: the element type of an array."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

# float32 and uint8.
FloatArray = NDArray[Any]
Image = NDArray[Any]
