# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What a timing was taken on: versions, processor, clocks."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import torch

_PACKAGES = ('torch', 'torchvision', 'triton', 'numpy', 'pillow')
_GPU_FIELDS = {
    'driver_version': 'driver',
    'clocks.sm': 'clock_sm_mhz',
    'clocks.max.sm': 'clock_sm_max_mhz',
    'clocks.mem': 'clock_memory_mhz',
    'power.draw': 'power_w',
    'temperature.gpu': 'temperature_c',
}


def describe_machine(device: torch.device, *packages: str) -> dict[str, Any]:
    """Return versions, of further packages too, and hardware; clocks are those of the moment."""
    machine: dict[str, Any] = {
        'system': platform.platform(),
        'python': platform.python_version(),
        **{name: _version(name) for name in (*_PACKAGES, *packages)},
        'device': str(device),
        'processor': processor_name(),
        'cpus': os.cpu_count(),
        'threads': torch.get_num_threads(),
    }
    if device.type == 'cuda':
        gpu = torch.cuda.get_device_properties(device)
        machine |= {
            'gpu': gpu.name,
            'gpu_memory_mb': gpu.total_memory >> 20,
            'cuda': torch.version.cuda or torch.version.hip,
            'cudnn': torch.backends.cudnn.version(),
            'tf32_convolutions': torch.backends.cudnn.allow_tf32,
            'tf32_matrix_products': torch.backends.cuda.matmul.allow_tf32,
            **_gpu_state(str(getattr(gpu, 'uuid', ''))),
        }
    return machine


def processor_name() -> str:
    """Return the processor's model, empty where the system does not tell."""
    try:
        text = Path('/proc/cpuinfo').read_text(encoding='utf-8')
    except OSError:
        return platform.processor()
    found = re.search(r'^(?:model name|Model)\s*:\s*(.+)$', text, re.MULTILINE)
    return found[1] if found else platform.processor()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        # Jetson's and a distribution's own builds may come without metadata.
        return 'unknown' if importlib.util.find_spec(package) else None


def _gpu_state(uuid: str) -> dict[str, str]:
    """Ask nvidia-smi for driver and clocks; empty where there is none."""
    tool = shutil.which('nvidia-smi')
    if tool is None:
        return {}
    chosen = [f'--id=GPU-{uuid}'] if uuid else []
    query = f'--query-gpu={",".join(_GPU_FIELDS)}'
    try:
        answer = subprocess.run(
            [tool, *chosen, query, '--format=csv,noheader,nounits'],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    values = answer.stdout.partition('\n')[0].split(', ')
    return dict(zip(_GPU_FIELDS.values(), map(str.strip, values), strict=False))
