# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What segnode takes from PyTorch that some releases do not have, and what it does without.

A board's PyTorch comes with its JetPack, and may be years old. The first releases were read off
the published wheels of 2.3 to 2.9, and off PyTorch's release notes where they are older.
"""

from __future__ import annotations

import inspect
import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from segnode.errors import ConfigError, DeviceError

# torch.uint16 is of this release, and label images are made of it on the device.
OLDEST = '2.3'

Where = Literal['cpu', 'cuda', 'graphs', 'export']


@dataclass(frozen=True, slots=True)
class Feature:
    """Something that is done without where it is missing.

    Attributes:
        name: as PyTorch spells it.
        first: the release that brought it.
        where: the device that needs it; ``graphs`` is a GPU's capture of CUDA graphs, ``export``
            that of a network for other engines, where it is more than of fixed sizes in fp32.
        without: what happens in its place.
        present: whether this PyTorch has it.
        for_capture: nothing can be captured without it.
        left_out: the library that this PyTorch was built without, empty where its age is why.
    """

    name: str
    first: str
    where: Where
    without: str
    present: Callable[[], bool]
    for_capture: bool = False
    left_out: Callable[[], str] = lambda: ''

    def line(self) -> str:
        """Return that it is missing and what that means, for people."""
        library = self.left_out()
        lacks = (
            f'is built without {library}' if library else f'lacks {self.name} (of {self.first})'
        )
        return f'PyTorch {torch.__version__} {lacks}: {self.without}'

    def remedy(self) -> str:
        """Return what PyTorch has it."""
        library = self.left_out()
        which = f'built with {library}' if library else f'{self.first} or newer'
        return f'a PyTorch {which} has it'


def _has_external_events() -> bool:
    if torch.version.hip is not None:
        return True  # ROCm's are tried when they are recorded.
    try:
        torch.cuda.Event(external=True)
    except TypeError:
        return False
    except RuntimeError:  # A build without CUDA has nothing to record.
        pass
    return True


def _has_capture_error_mode() -> bool:
    return 'capture_error_mode' in inspect.signature(torch.cuda.graph).parameters


def _has_cudnn_relu() -> bool:
    names = ('cudnn_convolution_relu', 'cudnn_convolution_add_relu')
    return torch.version.hip is not None or all(hasattr(torch, name) for name in names)


def _has_onednn_pointwise() -> bool:
    names = ('_convolution_pointwise', '_reorder_convolution_weight')
    return all(hasattr(torch.ops.mkldnn, name) for name in names)


def _tells_of_bfloat16() -> bool:
    names = ('_is_avx512_bf16_supported', '_is_amx_tile_supported')
    # On an Arm it is the kernel that tells.
    return platform.machine() != 'x86_64' or all(hasattr(torch.cpu, name) for name in names)


def _gives_gpu_uuid() -> bool:
    if torch.version.hip is not None or not torch.cuda.is_available():
        return True
    return hasattr(torch.cuda.get_device_properties(torch.cuda.current_device()), 'uuid')


FEATURES = (
    Feature(
        'torch.cuda.graph(capture_error_mode=)',
        '2.1',
        'graphs',
        'no CUDA graphs, kernels are launched one by one',
        _has_capture_error_mode,
        for_capture=True,
    ),
    Feature(
        'torch._C._cuda_clearCublasWorkspaces',
        '2.0',
        'graphs',
        'no CUDA graphs, kernels are launched one by one',
        lambda: hasattr(torch._C, '_cuda_clearCublasWorkspaces'),
        for_capture=True,
    ),
    Feature(
        'torch.cuda.Event(external=)',
        '2.8',
        'graphs',
        'stages inside of a CUDA graph are timed together',
        _has_external_events,
    ),
    Feature(
        'torch.cudnn_convolution_relu',
        '1.10',
        'cuda',
        'bias, residual and ReLU are launches of their own',
        _has_cudnn_relu,
    ),
    Feature(
        'the uuid of torch.cuda.get_device_properties',
        '2.5',
        'cuda',
        "the GPU's temperature and power are not read by NVML",
        _gives_gpu_uuid,
    ),
    Feature(
        'torch.ops.mkldnn._convolution_pointwise',
        '2.0',
        'cpu',
        'bias, residual and ReLU are passes of their own',
        _has_onednn_pointwise,
        left_out=lambda: '' if torch.backends.mkldnn.is_available() else 'oneDNN',
    ),
    Feature(
        'torch.cpu._is_avx512_bf16_supported',
        '2.5',
        'cpu',
        'precision auto is fp32 here, choose bf16 yourself where the processor has it',
        _tells_of_bfloat16,
    ),
    # It also tells the age of what converters rely on. Before, layers lose their names, so that
    # none can be kept from INT8, and open sizes become arithmetic that OpenVINO has no rule for.
    Feature(
        'torch.compiler.is_exporting',
        '2.7',
        'export',
        'no export whole or in INT8, and for OpenVINO one of fixed sizes',
        lambda: hasattr(torch.compiler, 'is_exporting'),
    ),
    Feature(
        'torch.library.custom_op',
        '2.4',
        'export',
        'no export whole or in INT8, and for OpenVINO one of fixed sizes',
        lambda: hasattr(torch.library, 'custom_op'),
    ),
)


def missing_features(*where: Where) -> list[Feature]:
    """Return what this PyTorch lacks of what the given places need."""
    return [each for each in FEATURES if each.where in where and not each.present()]


def check_export(asked: str, remedy: str = '') -> None:
    """Refuse what this PyTorch is too old to export.

    Args:
        asked: what was asked for, in terms of options.
        remedy: what else would do than a newer one.

    Raises:
        ConfigError: it is.
    """
    if missing := missing_features('export'):
        newest = max(missing, key=lambda each: each.first)
        raise ConfigError(
            f'{asked}: {newest.line()}; {remedy}install PyTorch {newest.first} or newer, or '
            'export on a machine that has it, as what it writes runs here all the same'
        )


def check_torch() -> None:
    """Refuse a PyTorch that is too old.

    Raises:
        DeviceError: it is.
    """
    if not hasattr(torch, 'uint16'):
        raise DeviceError(
            f'PyTorch: expected {OLDEST} or newer (torch.uint16), found {torch.__version__}; '
            'install a newer one, on a Jetson that of JetPack 6 or newer'
        )
