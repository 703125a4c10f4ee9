# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""A thread that reads the machine's sensors once a second: some of them take their time."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from segnode.hardware.nvml import NvmlGpu
from segnode.hardware.reading import Reading
from segnode.hardware.sysfs import SystemFiles

PERIOD_S = 1.0
# A sensor that hangs must not have its last value taken for a new one.
_TELLS_FOR_S = 5.0


def read_once(gpu_uuid: str, root: Path = Path('/')) -> Reading:
    """Return what the machine tells now; it may take its time, where it counts a second.

    Args:
        gpu_uuid: as CUDA has it; empty for none.
        root: of the file system.
    """
    files = SystemFiles(root)
    if files.counts:
        files.read(time.monotonic())
        time.sleep(PERIOD_S)
    return NvmlGpu(gpu_uuid).read().joined(files.read(time.monotonic()))


class HardwareMonitor:
    """Keeps the newest reading; asking for it never waits.

    Attributes:
        gpu_uuid: of the GPU that counts, as CUDA has it; empty for none. It may be set at any
            time.
    """

    def __init__(
        self, root: Path = Path('/'), nvml: Any = None, period_s: float = PERIOD_S
    ) -> None:
        """Start the thread.

        Args:
            root: of the file system.
            nvml: the module ``pynvml``; None imports it.
            period_s: from reading to reading.
        """
        self.gpu_uuid = ''
        self._reading = (time.monotonic(), Reading())
        self._closed = threading.Event()
        arguments = (root, nvml, period_s)
        threading.Thread(target=self._run, args=arguments, name='hardware', daemon=True).start()

    def latest(self) -> Reading:
        """Return the newest reading, an empty one where it is old or has not come yet."""
        read_s, reading = self._reading
        return reading if time.monotonic() < read_s + _TELLS_FOR_S else Reading()

    def close(self) -> None:
        """End the thread; it is not waited for."""
        self._closed.set()

    def _run(self, root: Path, nvml: Any, period_s: float) -> None:
        files, uuid, gpu = SystemFiles(root), '', NvmlGpu('', nvml)
        while not self._closed.is_set():
            if uuid != self.gpu_uuid:
                uuid = self.gpu_uuid
                gpu = NvmlGpu(uuid, nvml)
            now_s = time.monotonic()
            self._reading = (now_s, gpu.read().joined(files.read(now_s)))
            self._closed.wait(period_s)
