# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What ``segnode doctor`` says of a Jetson: one line and one remedy a thing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from segnode.doctor.finding import Finding
from segnode.hardware.board import Board

# PyTorch with CUDA, its libraries and a desktop, besides the network.
_TAKEN_MIB = 2048
_DESKTOP_MIB = 8192
_SWAPPED_MIB = 64
_README = '(README, "On a Jetson")'
_WHEEL = f'install the PyTorch and torchvision that NVIDIA builds for this JetPack {_README}'
# What NVIDIA's PyTorch loads and no JetPack brings.
_LIBRARIES = {
    'libcusparseLt': f"install NVIDIA's cuSPARSELt, package libcusparselt0 {_README}",
    'libopenblas': 'sudo apt install libopenblas0',
}


@dataclass(frozen=True, slots=True)
class Torch:
    """What PyTorch says of itself.

    Attributes:
        version: its own.
        cuda: that it is built with, empty for none.
        sees_gpu: whether it can use one.
        architectures: that its kernels are compiled for, ``sm_87`` and the like.
    """

    version: str
    cuda: str
    sees_gpu: bool
    architectures: tuple[str, ...] = ()


def no_torch(error: str) -> str:
    """Return the remedy for a PyTorch that cannot be imported, by what its import says."""
    return next((remedy for name, remedy in _LIBRARIES.items() if name in error), _WHEEL)


def read_torch() -> Torch | None:
    """Return what the installed PyTorch says, None if it cannot be imported."""
    try:
        import torch
    except (ImportError, OSError):
        return None
    sees = torch.cuda.is_available()
    return Torch(
        torch.__version__,
        torch.version.cuda or '',
        sees,
        tuple(torch.cuda.get_arch_list()) if sees else (),
    )


def board_findings(board: Board, installed: Torch | None) -> Iterator[Finding]:
    """Yield what there is to say of a board.

    Args:
        board: as it was before PyTorch took memory.
        installed: the PyTorch, None if it cannot be imported.
    """
    yield _software(board, installed)
    if finding := _abilities(board):
        yield finding
    if finding := _power_mode(board):
        yield finding
    yield from _clocks(board)
    yield from memory_finding(board)
    yield from _swap(board)


def _software(board: Board, installed: Torch | None) -> Finding:
    jetpack = f'JetPack {board.jetpack}' if board.jetpack else 'an unknown JetPack'
    found = (
        f'{board.name}, {jetpack} (L4T {board.release or "not told"}), CUDA '
        f'{board.cuda or "not told"}'
    )
    if installed is not None:
        cuda = installed.cuda or 'none'
        found = f'{found}; PyTorch {installed.version} with CUDA {cuda}'
        if installed.cuda and installed.sees_gpu:
            return _seen_gpu(board, installed, found)
    if board.jetpack.startswith(('4', '5')):
        problem = 'PyTorch for this JetPack is for Python 3.8 and older, segnode needs 3.10'
        return Finding('warn', 'board', f'{found}; {problem}', _old_jetpack(board))
    if installed is None:
        problem = f'{found}; no PyTorch that can be imported'
        return Finding('FAIL', 'board', problem, 'mend the line of torch above')
    if not installed.cuda:
        return Finding('FAIL', 'board', f'{found}: the GPU is not used', _WHEEL)
    if _other_cuda(board, installed):
        return Finding('FAIL', 'board', f'{found}: another CUDA than the board has', _WHEEL)
    return Finding(
        'FAIL',
        'board',
        f'{found}, which sees no GPU',
        'in a container start it with --runtime nvidia; else add the user to the groups '
        'video and render, and log in again',
    )


def _seen_gpu(board: Board, installed: Torch, found: str) -> Finding:
    if board.module and installed.architectures:
        wanted = 'sm_{}{}'.format(*board.module.capability)
        if wanted not in installed.architectures:
            return Finding('FAIL', 'board', f'{found}, compiled without {wanted}', _WHEEL)
    if _other_cuda(board, installed):
        problem = f'{found}: another CUDA than the board has, though the GPU is seen'
        return Finding('warn', 'board', problem, f'if the model below fails, {_WHEEL}')
    return Finding('ok', 'board', found)


def _other_cuda(board: Board, installed: Torch) -> bool:
    return bool(board.cuda) and installed.cuda.split('.')[0] != board.cuda.split('.')[0]


def _old_jetpack(board: Board) -> str:
    if board.last_jetpack == 4:
        return (
            'no later JetPack comes for this board: use its CPU (a container with Python 3.10), '
            'or an Orin'
        )
    if board.last_jetpack == 5:
        build = 'build PyTorch for Python 3.10 on it, as a Xavier gets no later JetPack'
        return build if board.jetpack.startswith('5') else f'update to JetPack 5, then {build}'
    if board.chip == 'tegra234':
        return 'update to JetPack 6 or newer'
    return 'update to the newest JetPack for this board, from 6 on its PyTorch will do'


def _abilities(board: Board) -> Finding | None:
    if board.module is None:
        return None
    module = board.module
    modern = module.capability >= (8, 0)
    formats = ('FP16', 'INT8', 'BF16', 'TF32') if modern else ('FP16', 'INT8')
    lacks = '' if modern else '; no TF32 and no BF16: FP32 runs without tensor cores'
    return Finding(
        'ok',
        'abilities',
        f'{module.name}: compute capability {module.capability[0]}.{module.capability[1]}, tensor '
        f'cores for {", ".join(formats)}{lacks}; CPU cores without bfloat16',
    )


def _power_mode(board: Board) -> Finding | None:
    if not board.mode:
        return None
    best = board.best_mode()
    if best is None or best[1] == board.mode:
        return Finding('ok', 'power mode', board.mode)
    return Finding(
        'warn',
        'power mode',
        f'{board.mode} limits clocks and cores, the board has {best[1]} as well',
        f'sudo nvpmodel -m {best[0]}, if battery and cooling allow it',
    )


def _clocks(board: Board) -> Iterator[Finding]:
    for name, clock in (('GPU clock', board.gpu), ('memory clock', board.memory)):
        if clock is None:
            continue
        if not clock.most:
            yield Finding('ok', name, f'{clock.now:.0f} MHz')
        elif clock.pinned:
            yield Finding('ok', name, f'held at {clock.most:.0f} MHz')
        else:
            yield Finding(
                'warn',
                name,
                f'{clock.now:.0f} MHz now, moves between {clock.least:.0f} and '
                f'{clock.most:.0f} MHz with the load, so that single frames come late',
                'sudo jetson_clocks after every start (resource/systemd has a unit that does)',
            )


def memory_finding(board: Board, needed_mib: float = 0) -> Iterator[Finding]:
    """Say whether the board's memory is enough.

    Args:
        board: as it was before PyTorch took memory.
        needed_mib: by the chosen network's weights and activations, 0 if unknown.
    """
    if board.memory_mib is None or board.available_mib is None:
        return
    wanted = needed_mib + _TAKEN_MIB
    found = (
        f'{board.available_mib:.0f} of {board.memory_mib:.0f} MiB free, which CPU and GPU share; '
        f'PyTorch with CUDA takes about {_TAKEN_MIB}'
        + (f' and the network {needed_mib:.0f}' if needed_mib else '')
    )
    if board.available_mib >= wanted:
        yield Finding('ok', 'board memory', found)
        return
    desktop = ''
    if board.memory_mib <= _DESKTOP_MIB:
        desktop = 'end the desktop (sudo systemctl isolate multi-user.target), then '
    yield Finding(
        'warn',
        'board memory',
        found,
        f'{desktop}lower resolution.short_side, then take a smaller model; memory_limit_mb keeps '
        'the rest for others',
    )


def _swap(board: Board) -> Iterator[Finding]:
    used = sum(swap.used_mib for swap in board.swaps)
    compressed = any(swap.compressed for swap in board.swaps)
    size = sum(swap.size_mib for swap in board.swaps)
    if not board.swaps:
        if board.memory_mib is not None and board.memory_mib <= _DESKTOP_MIB:
            yield Finding(
                'warn',
                'swap',
                'none; what starts TensorRT or compiles kernels may be killed',
                'make a swap file on an NVMe: sudo fallocate -l 8G /ssd/swap, chmod 600, mkswap, '
                'swapon',
            )
        return
    kind = 'compressed memory (zram)' if compressed else 'on a disk'
    found = f'{used:.0f} of {size:.0f} MiB used, {kind}'
    if used > _SWAPPED_MIB:
        yield Finding(
            'warn',
            'swap',
            f'{found}: frames wait for it',
            'free memory as said above'
            + (
                '; sudo systemctl disable nvzramconfig and a swap file on an NVMe keep the CPU '
                'out of it'
                if compressed
                else ''
            ),
        )
    else:
        yield Finding('ok', 'swap', found)
