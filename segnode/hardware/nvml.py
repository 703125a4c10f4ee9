# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""An NVIDIA GPU by its management library, where the package ``nvidia-ml-py`` is installed.

Source: NVIDIA's NVML API reference.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from segnode.hardware.reading import Reading, Throttle

# Bits of nvmlClocksEventReasons. The others are clocks that somebody chose, and idleness.
_THROTTLES = {
    0x04: Throttle('power', 'power limit of the GPU'),
    0x08: Throttle('thermal', 'hardware slowdown of the GPU (temperature or supply)'),
    0x20: Throttle('thermal', 'temperature limit of the GPU'),
    0x40: Throttle('thermal', 'emergency temperature limit of the GPU'),
    0x80: Throttle('power', 'power brake of the GPU (supply)'),
}
_MIB = 2**20
_TEMPERATURE_OF_GPU, _CLOCK_OF_SM, _CLOCK_OF_MEMORY = 0, 1, 2


class NvmlGpu:
    """One GPU; what it or its driver does not tell is left out."""

    def __init__(self, uuid: str, nvml: Any = None) -> None:
        """Look for the GPU.

        Args:
            uuid: as CUDA has it, without a prefix. Its number would not do: CUDA_VISIBLE_DEVICES
                counts anew.
            nvml: the module ``pynvml``; None imports it.
        """
        self._nvml, self._handle = nvml, None
        if uuid:
            self._handle = self._find(uuid)

    def _find(self, uuid: str) -> Any:
        if self._nvml is None:
            try:
                self._nvml = importlib.import_module('pynvml')
            except ImportError:
                return None
        try:
            self._nvml.nvmlInit()
        except self._nvml.NVMLError:
            return None
        for prefix in ('GPU-', 'MIG-'):
            found = self._ask('nvmlDeviceGetHandleByUUID', prefix + uuid)
            if found is not None:
                return found
        return None

    def _ask(self, function: str, *arguments: Any) -> Any:
        """Return an answer, None for none."""
        try:
            return getattr(self._nvml, function)(*arguments)
        except (self._nvml.NVMLError, AttributeError):
            return None

    def read(self) -> Reading:
        """Return what it tells now; memory is that of all processes."""
        if self._handle is None:
            return Reading()
        values: dict[str, float] = {}

        def note(key: str, answer: Any, scale: float = 1.0) -> None:
            if isinstance(answer, int | float):
                values[key] = answer * scale

        def ask(function: str, *arguments: int) -> Any:
            return self._ask(function, self._handle, *arguments)

        memory = ask('nvmlDeviceGetMemoryInfo')
        note('gpu_memory_used_mib', getattr(memory, 'used', None), 1 / _MIB)
        note('gpu_memory_total_mib', getattr(memory, 'total', None), 1 / _MIB)
        load = ask('nvmlDeviceGetUtilizationRates')
        note('gpu_load_percent', getattr(load, 'gpu', None))
        note('temperature_gpu_c', ask('nvmlDeviceGetTemperature', _TEMPERATURE_OF_GPU))
        note('power_gpu_w', ask('nvmlDeviceGetPowerUsage'), 1e-3)
        note('power_limit_gpu_w', ask('nvmlDeviceGetEnforcedPowerLimit'), 1e-3)
        note('clock_gpu_mhz', ask('nvmlDeviceGetClockInfo', _CLOCK_OF_SM))
        note('clock_gpu_memory_mhz', ask('nvmlDeviceGetClockInfo', _CLOCK_OF_MEMORY))
        return Reading(values, _throttles(ask))


def _throttles(ask: Callable[[str], Any]) -> tuple[Throttle, ...] | None:
    reasons = ask('nvmlDeviceGetCurrentClocksEventReasons')
    if reasons is None:  # An older driver or package.
        reasons = ask('nvmlDeviceGetCurrentClocksThrottleReasons')
    if not isinstance(reasons, int):
        return None
    return tuple(throttle for bit, throttle in _THROTTLES.items() if reasons & bit)
