# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The compute device: which one, and how much of its memory."""

from __future__ import annotations

import torch

from segnode.errors import ConfigError, DeviceError


def select_device(name: str) -> torch.device:
    """Return the device of a ``device`` setting; ``auto`` takes a GPU where one is usable.

    A GPU comes with its index: much of ``torch.cuda`` refuses one without.

    Raises:
        ConfigError: not a device's name.
        DeviceError: that device is not there.
    """
    if name == 'auto':
        name = 'cuda' if torch.cuda.is_available() else 'cpu'
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device('meta')
    if device.type not in ('cpu', 'cuda') or (device.type == 'cpu' and device.index):
        raise ConfigError(f'device: expected auto, cpu, cuda or cuda:N, found {name!r}')
    if device.type == 'cpu':
        return device
    if (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f'device {name}: expected a GPU that PyTorch can use, found '
            f'{torch.cuda.device_count()}; take device auto or cpu, or run "segnode doctor"'
        )
    return torch.device('cuda', torch.cuda.current_device() if name == 'cuda' else device.index)


def gpu_uuid(device: torch.device) -> str:
    """Return the UUID of an NVIDIA GPU without a prefix, empty for another device."""
    if device.type != 'cuda' or torch.version.hip is not None:
        return ''
    return str(getattr(torch.cuda.get_device_properties(device), 'uuid', ''))


def limit_memory(megabytes: int, device: torch.device) -> None:
    """Let this process take no more than that much of a GPU's memory; 0 is no limit.

    Raises:
        ConfigError: a limit for a device that has none.
    """
    if megabytes == 0:
        return
    if device.type != 'cuda':
        raise ConfigError(f'memory_limit_mb: expected 0 on {device}, found {megabytes}')
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(megabytes * 2**20 / total, 1.0), device)
