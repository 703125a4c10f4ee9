# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What a Jetson says of itself, by files and tools any of which may be missing.

Sources: NVIDIA's Jetson Linux developer guide (nvpmodel, jetson_clocks, tegrastats), the modules'
data sheets, and the kernel's documents of devfreq, zram and /proc.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

Run = Callable[[Sequence[str]], str]

_TOOL_TIMEOUT_S = 5.0
_HZ = 1e6
_LONGEST = 2**16
_LONGEST_NAME = 100
_HERTZ = '([0-9]{1,15})'


@dataclass(frozen=True, slots=True)
class Module:
    """A module by its data sheet.

    Attributes:
        part: NVIDIA's part numbers, as a pattern of ``/proc/device-tree/compatible``.
        name: of the product.
        processors: streaming multiprocessors of the GPU.
        tflops_per_ghz: of one of them: dense, FP16 with sums in FP32.
        bus_bytes: width of the memory.
        gpu_mhz: highest clock of the GPU that the data sheet names.
        memory_mhz: highest clock of the memory; it moves two words a tick.
        capability: compute capability.
    """

    part: str
    name: str
    processors: int
    tflops_per_ghz: float
    bus_bytes: int
    gpu_mhz: float
    memory_mhz: float
    capability: tuple[int, int]

    def tflops(self, gpu_mhz: float | None = None) -> float:
        """Return the peak at a clock, by default the highest."""
        return self.processors * self.tflops_per_ghz * (gpu_mhz or self.gpu_mhz) / 1e3

    def gb_s(self, memory_mhz: float | None = None) -> float:
        """Return the memory's peak at a clock, by default the highest."""
        return 2 * self.bus_bytes * (memory_mhz or self.memory_mhz) / 1e3


# A third-generation tensor core does 256 multiplications with addition a tick, one of Volta 64.
_AMPERE, _VOLTA = 4 * 256 * 2 / 1e3, 8 * 64 * 2 / 1e3
MODULES = (
    Module('p3701-0004', 'AGX Orin 32GB', 14, _AMPERE, 32, 930, 3199, (8, 7)),
    Module('p3701', 'AGX Orin', 16, _AMPERE, 32, 1300, 3199, (8, 7)),
    # The first that fits counts; a "super" configuration allows more.
    Module('p3767-0000-super', 'Orin NX 16GB Super', 8, _AMPERE, 16, 1173, 3199, (8, 7)),
    Module('p3767-0001-super', 'Orin NX 8GB Super', 8, _AMPERE, 16, 1173, 3199, (8, 7)),
    Module('p3767-0003-super', 'Orin Nano 8GB Super', 8, _AMPERE, 16, 1020, 3199, (8, 7)),
    Module('p3767-0004-super', 'Orin Nano 4GB Super', 4, _AMPERE, 8, 1020, 3199, (8, 7)),
    Module('p3767-0005-super', 'Orin Nano 8GB Super', 8, _AMPERE, 16, 1020, 3199, (8, 7)),
    Module('p3767-0000', 'Orin NX 16GB', 8, _AMPERE, 16, 918, 3199, (8, 7)),
    Module('p3767-0001', 'Orin NX 8GB', 8, _AMPERE, 16, 765, 3199, (8, 7)),
    Module('p3767-0004', 'Orin Nano 4GB', 4, _AMPERE, 8, 625, 2133, (8, 7)),
    Module('p3767', 'Orin Nano 8GB', 8, _AMPERE, 16, 625, 2133, (8, 7)),
    Module('p2888', 'AGX Xavier', 8, _VOLTA, 32, 1377, 2133, (7, 2)),
    Module('p3668', 'Xavier NX', 6, _VOLTA, 16, 1109, 1866, (7, 2)),
)
# Where the device tree has no part number: by the model's name.
_BY_NAME = {
    'AGX Orin': 'p3701',
    'Orin NX': 'p3767-0000',
    'Orin Nano': 'p3767',
    'Xavier NX': 'p3668',
    'AGX Xavier': 'p2888',
    'Jetson-AGX': 'p2888',
}
# What came first with a release of Jetson Linux: JetPack, and CUDA.
_JETPACKS = {
    (39, 2): ('7.2', '13.2'),
    (38, 4): ('7.1', '13.0'),
    (38, 2): ('7.0', '13.0'),
    (36, 5): ('6.2.2', '12.6'),
    (36, 4, 4): ('6.2.1', '12.6'),
    (36, 4, 3): ('6.2', '12.6'),
    (36, 4): ('6.1', '12.6'),
    (36,): ('6.0', '12.2'),
    (35,): ('5', '11.4'),
    (34,): ('5', '11.4'),
    (32,): ('4', '10.2'),
}
# Their last releases are out.
_ENDED = (32, 34, 35)
# The last JetPack of older processors.
_LAST_JETPACK = {'tegra210': 4, 'tegra186': 4, 'tegra194': 5}


@dataclass(frozen=True, slots=True)
class Clock:
    """The limits that a clock moves in now, and where it is, MHz."""

    least: float
    most: float
    now: float

    @property
    def pinned(self) -> bool:
        """Whether it stays at its most, whatever the load."""
        return self.least >= self.most > 0


@dataclass(frozen=True, slots=True)
class Swap:
    """A swap area: compressed memory (zram), or a disk's; MiB."""

    name: str
    size_mib: float
    used_mib: float

    @property
    def compressed(self) -> bool:
        """Whether it lies in the memory that it is to relieve."""
        return 'zram' in self.name


@dataclass(frozen=True, slots=True)
class Board:
    """A Jetson as it runs now; what it does not tell is None or empty.

    Attributes:
        name: its own words.
        module: None for one that is not known here.
        chip: its processor, ``tegra234`` for an Orin.
        memory_mib: shared by CPU and GPU, all of it.
        available_mib: of it.
        swaps: areas in use.
        release: of Jetson Linux, such as 36.4.3.
        jetpack: that it belongs to.
        cuda: of that JetPack, or as installed.
        mode: of power.
        modes: all of them by their number.
        gpu: clock.
        memory: clock.
    """

    name: str
    module: Module | None = None
    chip: str = ''
    memory_mib: float | None = None
    available_mib: float | None = None
    swaps: tuple[Swap, ...] = ()
    release: str = ''
    jetpack: str = ''
    cuda: str = ''
    mode: str = ''
    modes: tuple[tuple[int, str], ...] = ()
    gpu: Clock | None = None
    memory: Clock | None = None

    @property
    def last_jetpack(self) -> int | None:
        """The newest that it gets, None where that is not known or has no end."""
        return _LAST_JETPACK.get(self.chip)

    def best_mode(self) -> tuple[int, str] | None:
        """Return number and name of the mode without limits, else of that with the most watts."""
        unlimited = [mode for mode in self.modes if mode[1].upper().startswith('MAXN')]
        if unlimited:
            return max(unlimited, key=lambda mode: len(mode[1]))  # MAXN_SUPER before MAXN
        watts = [(int(found[1]), mode) for mode in self.modes if (found := _watts(mode[1]))]
        return max(watts)[1] if watts else None


def _watts(mode: str) -> re.Match[str] | None:
    return re.search(r'\b([0-9]{1,6})\s?W', mode.upper())


def run_tool(command: Sequence[str]) -> str:
    """Return what a tool prints within five seconds; empty where it is missing.

    A tool that goes on for ever, as tegrastats, is stopped then. One that fails may have answered:
    nvpmodel tells the mode before it asks for rights.
    """
    try:
        done = subprocess.run(
            [*command], capture_output=True, text=True, timeout=_TOOL_TIMEOUT_S, errors='replace'
        )
    except subprocess.TimeoutExpired as error:
        return (error.stdout or b'').decode(errors='replace')  # bytes, whatever was asked for
    except OSError:
        return ''
    return done.stdout


def read_board(root: Path = Path('/'), run: Run = run_tool) -> Board | None:
    """Return the Jetson that this is, None on another machine.

    Args:
        root: of the file system; a test has its own.
        run: runs a tool and returns what it prints.
    """
    name = _tree(root, 'model') or _text(root / 'sys/devices/soc0/machine')
    parts = _tree(root, 'compatible')
    release = _release(_text(root / 'etc/nv_tegra_release'))
    family = _text(root / 'sys/devices/soc0/family').lower()
    if not release and 'tegra' not in parts + family and 'jetson' not in name.lower():
        return None
    shown = run(['jetson_clocks', '--show'])
    if not name and (found := re.search(r'Machine:\s*(.+)', shown)):
        name = found[1].strip()
    stats = _first_line(run(['tegrastats', '--interval', '1000']))
    total, available = _memory(_text(root / 'proc/meminfo'))
    if total is None and (found := re.search(r'RAM ([0-9]{1,15})/([0-9]{1,15})MB', stats)):
        total, available = float(found[2]), float(found[2]) - float(found[1])
    jetpack, cuda = _jetpack(release)
    return Board(
        name=''.join(filter(str.isprintable, name))[:_LONGEST_NAME] or 'a Jetson',
        module=_module(parts, name),
        chip=_chip(parts, name),
        memory_mib=total,
        available_mib=available,
        swaps=_swaps(_text(root / 'proc/swaps')),
        release=release,
        jetpack=jetpack,
        cuda=_installed_cuda(root) or cuda,
        mode=_mode(run(['nvpmodel', '-q']), root),
        modes=_modes(_text(root / 'etc/nvpmodel.conf')),
        gpu=_clock('GPU', shown) or _gpu_clock(root),
        memory=_clock('EMC', shown) or _moment('EMC_FREQ', stats),
    )


def _tree(root: Path, name: str) -> str:
    """Read of the device tree; Docker hides the kernel's, and compose.yaml mounts it elsewhere."""
    return _text(root / 'proc/device-tree' / name) or _text(root / 'run/device-tree' / name)


def _module(parts: str, name: str) -> Module | None:
    for module in MODULES:
        if module.part in parts:
            return module
    for text, part in _BY_NAME.items():
        if text in name:
            return next(module for module in MODULES if module.part == part)
    return None


def _release(text: str) -> str:
    """Read ``# R36 (release), REVISION: 4.3, ...``."""
    found = re.search(
        r'R([0-9]{1,4}) \(release\), REVISION: ([0-9]{1,4}(?:\.[0-9]{1,4}){0,3})\b', text
    )
    return f'{found[1]}.{found[2]}' if found else ''


def _chip(parts: str, name: str) -> str:
    if found := re.search(r'tegra\d{3}', parts):
        return found[0]
    if 'Xavier' in name or name.startswith('Jetson-AGX'):
        return 'tegra194'
    return 'tegra234' if 'Orin' in name else ''


def _jetpack(release: str) -> tuple[str, str]:
    """Return JetPack and CUDA; of a release newer than the known ones no more than is sure."""
    numbers = tuple(int(number) for number in release.split('.') if number)
    while numbers and numbers[-1] == 0:
        numbers = numbers[:-1]
    known = [each for each in _JETPACKS if numbers and each[0] == numbers[0]]
    if not known:
        return '', ''
    if numbers > max(known) and numbers[0] not in _ENDED:
        return _JETPACKS[max(known)][0].partition('.')[0], ''
    return _JETPACKS[max((each for each in known if each <= numbers), default=min(known))]


def _installed_cuda(root: Path) -> str:
    try:
        found = json.loads(_text(root / 'usr/local/cuda/version.json'))['cuda']['version']
    except (ValueError, KeyError, TypeError, RecursionError):
        return ''
    # It is shown, and compared by its first number.
    known = isinstance(found, str) and re.fullmatch(r'[0-9]{1,4}(\.[0-9]{1,6}){0,3}', found)
    return found if known else ''


def _memory(meminfo: str) -> tuple[float | None, float | None]:
    values = dict(re.findall(r'(?m)^(\w+):\s*([0-9]{1,15}) kB', meminfo))
    total, available = (values.get(key) for key in ('MemTotal', 'MemAvailable'))
    return (
        None if total is None else int(total) / 1024,
        None if available is None else int(available) / 1024,
    )


def _swaps(text: str) -> tuple[Swap, ...]:
    rows = re.findall(r'(?m)^(/\S+)\s+\S+\s+([0-9]{1,15})\s+([0-9]{1,15})\b', text)
    return tuple(Swap(name, int(size) / 1024, int(used) / 1024) for name, size, used in rows)


def _mode(answer: str, root: Path) -> str:
    """Read ``NV Power Mode: 15W``, or its number from the status file, which anybody may read."""
    found = re.search(r'NV Power Mode:\s*(\S{1,40})(?!\S)', answer)
    if found:
        return found[1].removeprefix('MODE_')
    number = re.search(r'pmode:([0-9]{1,6})\b', _text(root / 'var/lib/nvpmodel/status'))
    modes = dict(_modes(_text(root / 'etc/nvpmodel.conf')))
    return modes.get(int(number[1]), '') if number else ''


def _modes(text: str) -> tuple[tuple[int, str], ...]:
    """Read the lines ``< POWER_MODEL ID=0 NAME=15W >``."""
    found = re.findall(r'<\s*POWER_MODEL\s+ID=([0-9]{1,6})\s+NAME=(\S{1,40})\s*>', text)
    return tuple((int(number), name.removeprefix('MODE_')) for number, name in found)


def _clock(name: str, shown: str) -> Clock | None:
    """Read ``EMC MinFreq=204000000 MaxFreq=3199000000 CurrentFreq=3199000000 FreqOverride=1``.

    jetson_clocks leaves the memory's limits, and overrides them.
    """
    found = re.search(
        rf'(?m)^{name} MinFreq={_HERTZ} MaxFreq={_HERTZ} CurrentFreq={_HERTZ}\b'
        r'(?: FreqOverride=(\d+))?',
        shown,
    )
    if found is None:
        return None
    least, most, now = (int(hertz) / _HZ for hertz in found.groups()[:3])
    return Clock(now, now, now) if found[4] == '1' else Clock(least, most, now)


def _gpu_clock(root: Path) -> Clock | None:
    """Read the GPU's clock as devfreq has it, which needs no rights."""
    for folder in sorted((root / 'sys/class/devfreq').glob('*')):
        if re.search(r'gpu|gv11b|ga10b', folder.name):
            values = [_text(folder / f'{key}_freq') for key in ('min', 'max', 'cur')]
            if all(re.fullmatch(_HERTZ, value) for value in values):
                return Clock(*(int(value) / _HZ for value in values))
    return None


def _moment(name: str, stats: str) -> Clock | None:
    """Read ``EMC_FREQ 3%@2133``: where it is, which is all that tegrastats tells."""
    found = re.search(rf'{name} \d+%@\[?([0-9]{{1,9}})\b', stats)
    return None if found is None else Clock(0, 0, float(found[1]))


def _first_line(text: str) -> str:
    return text.partition('\n')[0]


def _text(path: Path) -> str:
    """Return a file's text with its zero bytes as line ends, empty where it cannot be read."""
    try:
        with path.open('rb') as file:
            text = file.read(_LONGEST).decode('utf-8', 'replace')
    except OSError:
        return ''
    return text.strip('\0 \n').replace('\0', '\n')
