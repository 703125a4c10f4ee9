# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The node with a device that takes as long as the network's input is large; run as a script.

It waits in place of computing, as the host does for a GPU: no other work on the machine counts.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from unittest.mock import patch

from segnode.__main__ import main
from segnode.engine.answers import Instances
from segnode.engine.null import NullBackend
from segnode.engine.settings import InferenceSettings
from segnode.engine.timing import StageClock
from segnode.image import Image

FULL_HW = (240, 320)
FULL_MS = 150.0


class SizedBackend(NullBackend):
    """Waits in proportion to the pixels of the network's input."""

    def run(
        self, images: Sequence[Image], settings: InferenceSettings, clock: StageClock
    ) -> list[Instances]:
        """Return what ``NullBackend`` does, after ``FULL_MS`` for an image at full size."""
        height, width = self.resized_hw((images[0].height, images[0].width), settings)
        self._wait_s = FULL_MS * 1e-3 * (height * width) / (FULL_HW[0] * FULL_HW[1])
        return super().run(images, settings, clock)


if __name__ == '__main__':
    with patch('segnode.engine.backend.NullBackend', SizedBackend):
        sys.exit(main(['node', *sys.argv[1:]]))
