# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Values of 16 bits that become 8, and whether a camera uses as many bits as it is said to.

Thermal and industrial cameras deliver 10, 12 or 14 bits in 16: taken for 16, such pictures come
out dark, and a network finds little in them.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from segnode.image import DARK

FULL_BITS = 16
FEWEST_BITS = 8
# One dark picture tells nothing of the camera.
_WINDOW = 30
_SAMPLES_A_SIDE = 128
# Later the camera is silent, or sends something else.
_TELLS_FOR_S = 5.0


class GreyValues:
    """Scales the 16-bit values of one camera to 8 bits, and keeps how bright they were.

    A frame's level is the value that 99 of 100 of its pixels do not exceed, so that neither a hot
    pixel nor a line of telemetry counts.
    """

    def __init__(
        self,
        bits: Callable[[], int] = lambda: FULL_BITS,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start without frames.

        Args:
            bits: gives how many bits are in use, 8 to 16; what lies beyond is white.
            monotonic_s: gives the time in seconds.
        """
        self._bits = bits
        self._monotonic_s = monotonic_s
        self._noted_s = 0.0
        # Replaced as a whole: another thread may read it.
        self._levels: tuple[int, ...] = ()

    def to_8_bits(self, values: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint8]:
        """Return the highest 8 of the bits in use.

        Args:
            values: uint16 of either byte order, (H, W) or (H, W, 3).

        Returns:
            The same shape, uint8.
        """
        rows, columns = (-(-side // _SAMPLES_A_SIDE) for side in values.shape[:2])
        samples = np.sort(values[::rows, ::columns], axis=None)
        level = int(samples[(samples.size - 1) * 99 // 100])
        self._levels = (*self._levels[-_WINDOW + 1 :], level)
        self._noted_s = self._monotonic_s()
        bits = self._bits()
        scaled = values >> (bits - 8)
        if bits < FULL_BITS:
            scaled = np.minimum(scaled, 255)
        eight: npt.NDArray[np.uint8] = scaled.astype(np.uint8)
        return eight

    def remark(self) -> str:
        """Return what is wrong with the number of bits and what to set, empty for nothing."""
        levels, bits = self._levels, self._bits()
        if not levels or self._monotonic_s() > self._noted_s + _TELLS_FOR_S:
            return ''
        brightest = max(levels)
        # Sensors have an even number of bits.
        used = max(brightest.bit_length(), FEWEST_BITS)
        used += used % 2
        found = f'the 16-bit images have values up to {brightest} ({used} bits)'
        if brightest >= 1 << bits:
            return (
                f'{found}, but mono16_bits is {bits}, so what is brighter comes out white: '
                f'set mono16_bits to {used}'
            )
        if len(levels) == _WINDOW and used < bits and brightest < DARK << (bits - 8):
            return (
                f'{found}, but mono16_bits is {bits}, so they come out dark: '
                f'set mono16_bits to {used} if the camera gives no more'
            )
        return ''
