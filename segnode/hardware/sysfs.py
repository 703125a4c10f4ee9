# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What Linux tells in /sys and /proc: of Jetson and other boards, and of PCs.

Sources: the kernel's ABI documents of thermal, hwmon, devfreq, cpufreq and thermal_throttle, and
NVIDIA's Jetson Linux guide on power rails (ina3221) and over-current (soctherm).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from segnode.hardware.reading import Reading, Throttle

# Sensors that are off read -256 or so.
_POSSIBLE_C = (-60.0, 200.0)
_POSSIBLE_W = (0.0, 5000.0)
# Names of chips that are better known by what they measure.
_NAMES = {
    **dict.fromkeys(('coretemp', 'k10temp', 'zenpower', 'x86_pkg_temp', 'cpu_thermal'), 'cpu'),
    'amdgpu': 'gpu',
}
_GPU = re.compile(r'gpu|gp10b|gv11b|ga10b|gb10b|mali')
# Cooling by slowing down; a fan that turns slows nothing.
_SLOWS = re.compile(r'(?i)^(processor|(thermal-)?(cpufreq|devfreq)|[cg]pu)')
_MOST_FILES = 64
# For so long after a counter has risen.
_COUNTED_S = 5.0
_LONGEST = 256
_LONGEST_NUMBER = 20


class SystemFiles:
    """The files of a machine, looked for once; some take long to read, so read in a thread."""

    def __init__(self, root: Path = Path('/')) -> None:
        """Look for the files.

        Args:
            root: of the file system; a test has its own.
        """
        self._root = root
        self._temperatures: list[tuple[str, Path]] = []
        self._powers: list[tuple[str, Path]] = []
        self._rails: list[tuple[str, Path, Path]] = []
        self._alarms: list[Path] = []
        for zone in self._found('sys/class/thermal/thermal_zone*'):
            self._temperatures.append((_name(_text(zone / 'type')), zone / 'temp'))
        for chip in self._found('sys/class/hwmon/hwmon*'):
            self._add_chip(chip)
        self._coolers = [
            (kind, cooler / 'cur_state')
            for cooler in self._found('sys/class/thermal/cooling_device*')
            if _SLOWS.match(kind := _text(cooler / 'type'))
        ]
        processors = 'sys/devices/system/cpu/cpu[0-9]*/thermal_throttle'
        self._counters = [
            (Throttle('thermal', 'temperature limit of the CPU'), path)
            for path in self._found(f'{processors}/*_throttle_count')
        ] + [
            (Throttle('power', f'over-current ({path.name.partition("_")[0]})'), path)
            for path in self._found('sys/class/hwmon/hwmon*/oc*_event_cnt')
        ]
        self._counted: dict[Path, int] = {}
        self._rose_s: dict[Throttle, float] = {}
        self._gpus = [
            path for path in self._found('sys/class/devfreq/*') if _GPU.search(path.name)
        ]
        self._cpu_clocks = self._found('sys/devices/system/cpu/cpufreq/policy*/scaling_cur_freq')

    @property
    def counts(self) -> bool:
        """Whether there are counters, which tell by the difference from an earlier reading."""
        return bool(self._counters)

    def read(self, now_s: float) -> Reading:
        """Return what they tell.

        Args:
            now_s: monotonic time in seconds, since counters count what has happened.
        """
        values: dict[str, float] = {}

        def note(
            key: str, value: float | None, possible: tuple[float, float] = (0.0, 1e9)
        ) -> None:
            """Keep the highest of a key: several cores, zones or packages may have one name."""
            if value is not None and possible[0] <= value <= possible[1]:
                values[key] = max(value, values.get(key, value))

        for name, path in self._temperatures:
            note(f'temperature_{name}_c', _number(path, 1e-3), _POSSIBLE_C)
        for name, path in self._powers:
            note(f'power_{name}_w', _number(path, 1e-6), _POSSIBLE_W)
        for name, volts, amperes in self._rails:
            product = _product(_number(volts, 1e-3), _number(amperes, 1e-3))
            note(f'power_{name}_w', product, _POSSIBLE_W)
        for gpu in self._gpus:
            note('clock_gpu_mhz', _number(gpu / 'cur_freq', 1e-6))
            # Tenths of a percent.
            note('gpu_load_percent', _number(gpu / 'device/load', 0.1), (0.0, 100.0))
        for path in self._cpu_clocks:
            note('clock_cpu_mhz', _number(path, 1e-3))
        note('memory_available_mib', self._memory_available_mib())
        return Reading(values, self._throttles(now_s))

    def _throttles(self, now_s: float) -> tuple[Throttle, ...] | None:
        """Return what slows the machine down; None where nothing would tell."""
        found: list[Throttle] = []
        tells = False
        for kind, path in self._coolers:
            state = _number(path)
            tells |= state is not None
            if state is not None and state > 0:
                found.append(Throttle('thermal', f'temperature limit ({kind} slowed down)'))
        for path in self._alarms:
            alarm = _number(path)
            tells |= alarm is not None
            if alarm == 1:
                found.append(Throttle('power', 'voltage too low'))
        for throttle, path in self._counters:
            count = _number(path)
            if count is None:
                continue
            tells |= path in self._counted
            if count > self._counted.get(path, count):
                self._rose_s[throttle] = now_s
            self._counted[path] = int(count)
        found += [t for t, rose_s in self._rose_s.items() if now_s <= rose_s + _COUNTED_S]
        return tuple(dict.fromkeys(found)) if tells else None

    def _add_chip(self, chip: Path) -> None:
        kind = _text(chip / 'name')
        name = _name(kind)
        for path in _files(chip, r'temp\d+_input'):
            # A disk's temperature tells nothing of the network.
            if name in ('cpu', 'gpu'):
                self._temperatures.append((name, path))
        for path in _files(chip, r'power\d+_(input|average)'):
            self._powers.append((name, path))
        for volts in _files(chip, r'in\d+_input') if kind.startswith('ina3221') else ():
            number = volts.name[2:].partition('_')[0]
            label = _text(chip / f'in{number}_label')
            amperes = chip / f'curr{number}_input'
            if label:
                self._rails.append((_name(label), volts, amperes))
        self._alarms += _files(chip, r'in\d+_lcrit_alarm')

    def _memory_available_mib(self) -> float | None:
        found = re.search(
            r'(?m)^MemAvailable:\s*([0-9]{1,15}) kB', _text(self._root / 'proc/meminfo', 4096)
        )
        return None if found is None else int(found[1]) / 1024

    def _found(self, pattern: str) -> list[Path]:
        return _attempt(lambda: sorted(self._root.glob(pattern)))[:_MOST_FILES]


def _files(folder: Path, pattern: str) -> list[Path]:
    found = _attempt(lambda: sorted(folder.iterdir()))
    return [path for path in found if re.fullmatch(pattern, path.name)]


def _attempt(look: Callable[[], Iterable[Path]]) -> list[Path]:
    try:
        return list(look())
    except OSError:
        return []


def _text(path: Path, longest: int = _LONGEST) -> str:
    """Return a file's text, empty where it cannot be read."""
    try:
        with path.open('rb') as file:
            return file.read(longest).decode('ascii', 'replace').strip('\0 \n')
    except OSError:
        return ''


def _number(path: Path, scale: float = 1.0) -> float | None:
    """Return a file's number, None where it has none."""
    text = _text(path)
    try:
        return int(text) * scale if len(text) <= _LONGEST_NUMBER else None
    except ValueError:
        return None


def _product(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a * b


def _name(text: str) -> str:
    """Return a sensor's name as part of a key: ``GPU-therm`` is ``gpu``."""
    name = re.sub('[^a-z0-9]+', '_', text.lower()).strip('_')
    return _NAMES.get(name, re.sub('_therm(al)?$', '', name)) or 'unnamed'
