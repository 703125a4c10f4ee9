# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Sensors of made-up machines, and of a made-up GPU library with the real one's functions."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from segnode.hardware.monitor import HardwareMonitor, read_once
from segnode.hardware.nvml import NvmlGpu
from segnode.hardware.reading import Reading, Throttle
from segnode.hardware.sysfs import SystemFiles

UUID = '8f1c7c5e-2a0b-4b7e-9a51-0d3a6a4b1c11'

JETSON = {
    'proc/meminfo': 'MemTotal:       62841444 kB\nMemAvailable:   51200000 kB\n',
    'sys/class/thermal/thermal_zone0/type': 'cpu-thermal',
    'sys/class/thermal/thermal_zone0/temp': '51250',
    'sys/class/thermal/thermal_zone1/type': 'GPU-therm',
    'sys/class/thermal/thermal_zone1/temp': '48000',
    'sys/class/thermal/thermal_zone2/type': 'tj-thermal',
    'sys/class/thermal/thermal_zone2/temp': '53031',
    'sys/class/thermal/thermal_zone3/type': 'cv0-thermal',
    'sys/class/thermal/thermal_zone3/temp': '-256000',
    'sys/class/thermal/cooling_device0/type': 'pwm-fan',
    'sys/class/thermal/cooling_device0/cur_state': '3',
    'sys/class/thermal/cooling_device1/type': 'cpufreq-cpu0',
    'sys/class/thermal/cooling_device1/cur_state': '0',
    'sys/class/hwmon/hwmon1/name': 'ina3221',
    'sys/class/hwmon/hwmon1/in1_label': 'VDD_GPU_SOC',
    'sys/class/hwmon/hwmon1/in1_input': '19800',
    'sys/class/hwmon/hwmon1/curr1_input': '400',
    'sys/class/hwmon/hwmon1/in2_label': 'VIN_SYS_5V0',
    'sys/class/hwmon/hwmon1/in2_input': '5000',
    'sys/class/hwmon/hwmon1/in3_input': '5000',
    'sys/class/hwmon/hwmon1/curr3_input': '5',
    'sys/class/hwmon/hwmon3/name': 'soctherm_oc',
    'sys/class/hwmon/hwmon3/oc1_event_cnt': '7',
    'sys/class/devfreq/17000000.gpu/cur_freq': '1300500000',
    'sys/class/devfreq/17000000.gpu/device/load': '874',
}
PC = {
    'sys/class/thermal/thermal_zone0/type': 'acpitz',
    'sys/class/thermal/thermal_zone0/temp': '27800',
    'sys/class/thermal/thermal_zone1/type': 'x86_pkg_temp',
    'sys/class/thermal/thermal_zone1/temp': '61000',
    'sys/class/hwmon/hwmon0/name': 'coretemp',
    'sys/class/hwmon/hwmon0/temp1_input': '60000',
    'sys/class/hwmon/hwmon0/temp2_input': '62000',
    'sys/class/hwmon/hwmon1/name': 'nvme',
    'sys/class/hwmon/hwmon1/temp1_input': '80000',
    'sys/class/hwmon/hwmon2/name': 'amdgpu',
    'sys/class/hwmon/hwmon2/temp1_input': '-5000',
    'sys/class/hwmon/hwmon2/power1_average': '35000000',
    'sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count': '12',
    'sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count': '3',
    'sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq': '800000',
    'sys/devices/system/cpu/cpufreq/policy1/scaling_cur_freq': '4200000',
}


@pytest.fixture
def machine(tmp_path: Path) -> Callable[[dict[str, str]], Path]:
    """Write files of a machine; the root of its file system."""

    def write(files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + '\n', encoding='utf-8')
        return tmp_path

    return write


def test_a_jetson(machine: Callable[[dict[str, str]], Path]) -> None:
    root = machine(JETSON)
    files = SystemFiles(root)
    reading = files.read(0.0)
    assert reading.values == pytest.approx(
        {
            'temperature_cpu_c': 51.25,
            'temperature_gpu_c': 48.0,
            'temperature_tj_c': 53.031,
            'power_vdd_gpu_soc_w': 7.92,
            'clock_gpu_mhz': 1300.5,
            'gpu_load_percent': 87.4,
            'memory_available_mib': 50000.0,
        }
    )
    assert reading.throttles == ()
    assert reading.warning() == ''
    assert reading.texts()['throttle_reasons'] == 'none'
    assert reading.texts()['temperature_cpu_c'] == '51.2'

    machine({'sys/class/thermal/cooling_device1/cur_state': '2'})
    reading = files.read(1.0)
    assert (
        'the device is throttled (thermal): temperature limit (cpufreq-cpu0' in reading.warning()
    )
    machine({'sys/class/thermal/cooling_device1/cur_state': '0'})

    machine({'sys/class/hwmon/hwmon3/oc1_event_cnt': '8'})
    for now_s in (2.0, 6.9):
        warning = files.read(now_s).warning()
        assert 'the device is throttled (power): over-current (oc1)' in warning
        assert 'nvpmodel' in warning
    assert files.read(7.1).throttles == ()


def test_a_pc(machine: Callable[[dict[str, str]], Path]) -> None:
    root = machine(PC)
    files = SystemFiles(root)
    reading = files.read(0.0)
    assert reading.values == {
        'temperature_acpitz_c': 27.8,
        'temperature_cpu_c': 62.0,
        'temperature_gpu_c': -5.0,
        'power_gpu_w': 35.0,
        'clock_cpu_mhz': 4200.0,
    }
    assert reading.throttles is None  # What its counters held before is not known.
    assert files.read(0.5).throttles == ()
    machine({'sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count': '4'})
    assert files.read(1.0).texts()['throttle_reasons'] == 'temperature limit of the CPU'


@pytest.mark.parametrize(('count', 'told'), [('7', 'none'), ('8', 'over-current (oc1)')])
def test_one_answer_counts_for_a_second(
    machine: Callable[[dict[str, str]], Path],
    monkeypatch: pytest.MonkeyPatch,
    count: str,
    told: str,
) -> None:
    root, waited = machine(JETSON), []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        machine({'sys/class/hwmon/hwmon3/oc1_event_cnt': count})

    monkeypatch.setattr(time, 'sleep', sleep)
    assert read_once('', root).texts()['throttle_reasons'] == told
    assert waited == [1.0]


def test_without_counters_nothing_is_waited_for(
    machine: Callable[[dict[str, str]], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(time, 'sleep')
    root = machine({name: text for name, text in JETSON.items() if 'event_cnt' not in name})
    assert read_once('', root).throttles == ()


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    reading = SystemFiles(tmp_path).read(0.0)
    assert reading == Reading()
    assert reading.texts() == {}
    assert reading.warning() == ''


@pytest.mark.parametrize('text', ['', 'garbage', '\0\0', '12.5', '1e3', '9' * 5000, '\xff\xfe'])
def test_files_without_a_number(machine: Callable[[dict[str, str]], Path], text: str) -> None:
    root = machine(dict.fromkeys(JETSON | PC, text))
    reading = SystemFiles(root).read(0.0)
    assert (reading.values, reading.warning()) == ({}, '')
    kinds = {k: v for k, v in (JETSON | PC).items() if k.endswith(('type', 'name', 'label'))}
    reading = SystemFiles(machine(kinds)).read(0.0)
    assert (reading.values, reading.warning()) == ({}, '')


def test_files_that_go_or_cannot_be_read(machine: Callable[[dict[str, str]], Path]) -> None:
    root = machine(JETSON)
    files = SystemFiles(root)
    zone = root / 'sys/class/thermal/thermal_zone0/temp'
    zone.unlink()
    zone.mkdir()  # Reading it fails, for root as well.
    (root / 'sys/class/hwmon/hwmon3/oc1_event_cnt').unlink()
    (root / 'sys/class/hwmon/hwmon1/curr1_input').unlink()
    (root / 'proc/meminfo').unlink()
    values = files.read(0.0).values
    assert values.keys() == {
        'temperature_gpu_c',
        'temperature_tj_c',
        'clock_gpu_mhz',
        'gpu_load_percent',
    }


class NVMLError(Exception):
    pass


def _nvml(**changes: Any) -> SimpleNamespace:
    """The functions of pynvml that are used; a change that is an exception is raised."""
    answers = {
        'nvmlInit': None,
        'nvmlDeviceGetMemoryInfo': SimpleNamespace(total=8 * 2**30, used=3 * 2**30),
        'nvmlDeviceGetUtilizationRates': SimpleNamespace(gpu=97, memory=40),
        'nvmlDeviceGetTemperature': 71,
        'nvmlDeviceGetPowerUsage': 114500,
        'nvmlDeviceGetEnforcedPowerLimit': 115000,
        'nvmlDeviceGetClockInfo': 1635,
        'nvmlDeviceGetCurrentClocksEventReasons': 0x1,
    } | changes

    def function(answer: Any) -> Callable[..., Any]:
        def call(*_: Any) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call

    def by_uuid(uuid: str) -> str:
        if uuid != f'GPU-{UUID}':
            raise NVMLError('Not Found')
        return 'handle'

    functions = {name: function(answer) for name, answer in answers.items()}
    return SimpleNamespace(NVMLError=NVMLError, nvmlDeviceGetHandleByUUID=by_uuid, **functions)


def test_a_gpu() -> None:
    reading = NvmlGpu(UUID, _nvml()).read()
    assert reading.values == pytest.approx(
        {
            'gpu_memory_used_mib': 3072,
            'gpu_memory_total_mib': 8192,
            'gpu_load_percent': 97,
            'temperature_gpu_c': 71,
            'power_gpu_w': 114.5,
            'power_limit_gpu_w': 115,
            'clock_gpu_mhz': 1635,
            'clock_gpu_memory_mhz': 1635,
        }
    )
    assert reading.throttles == ()


@pytest.mark.parametrize(
    ('bits', 'kinds'),
    [
        (0x0, 'none'),
        (0x1 | 0x2 | 0x10 | 0x100, 'none'),
        (0x4, '(power): power limit of the GPU; '),
        (0x20, '(thermal): temperature limit of the GPU; cool it'),
        (0x20 | 0x40, '(thermal): temperature limit of the GPU, emergency'),
        (0x80, '(power): power brake'),
        (0x4 | 0x20, '(thermal, power): power limit of the GPU, temperature limit'),
    ],
)
def test_throttles_of_a_gpu(bits: int, kinds: str) -> None:
    newer = _nvml(nvmlDeviceGetCurrentClocksEventReasons=bits)
    older = _nvml(
        nvmlDeviceGetCurrentClocksEventReasons=NVMLError('Function Not Found'),
        nvmlDeviceGetCurrentClocksThrottleReasons=bits,
    )
    for nvml in (newer, older):
        reading = NvmlGpu(UUID, nvml).read()
        assert kinds in (reading.warning() or 'none')
        assert (reading.texts()['throttle_reasons'] == 'none') == (kinds == 'none')


@pytest.mark.parametrize(
    ('uuid', 'nvml'),
    [
        ('', _nvml()),
        ('another', _nvml()),
        (UUID, _nvml(nvmlInit=NVMLError('Library Not Found'))),
    ],
)
def test_a_gpu_that_is_not_there(uuid: str, nvml: Any) -> None:
    assert NvmlGpu(uuid, nvml).read() == Reading()


def test_a_gpu_that_tells_little() -> None:
    nvml = _nvml(
        nvmlDeviceGetPowerUsage=NVMLError('Not Supported'),
        nvmlDeviceGetMemoryInfo=NVMLError('Not Supported'),
        nvmlDeviceGetCurrentClocksEventReasons=NVMLError('Not Supported'),
    )
    del nvml.nvmlDeviceGetUtilizationRates
    reading = NvmlGpu(UUID, nvml).read()
    assert reading.throttles is None
    assert reading.values.keys() == {
        'temperature_gpu_c',
        'power_limit_gpu_w',
        'clock_gpu_mhz',
        'clock_gpu_memory_mhz',
    }


def _wait_for(condition: Callable[[], bool]) -> None:
    end_s = time.perf_counter() + 60
    while not condition():
        assert time.perf_counter() < end_s
        time.sleep(0.01)


def test_the_gpu_counts_before_the_files(machine: Callable[[dict[str, str]], Path]) -> None:
    monitor = HardwareMonitor(machine(JETSON), _nvml(), period_s=0.01)
    _wait_for(lambda: bool(monitor.latest().values))
    assert monitor.latest().values['temperature_gpu_c'] == 48.0
    monitor.gpu_uuid = UUID
    _wait_for(lambda: monitor.latest().values.get('temperature_gpu_c') == 71)
    assert monitor.latest().values['temperature_cpu_c'] == 51.25
    monitor.close()


def test_a_sensor_that_hangs_holds_nobody_up(
    machine: Callable[[dict[str, str]], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = machine(JETSON)
    now_s = 100.0
    monkeypatch.setattr(time, 'monotonic', lambda: now_s)
    monitor = HardwareMonitor(root, period_s=0.01)
    _wait_for(lambda: bool(monitor.latest().values))
    pipe = root / 'sys/class/thermal/thermal_zone0/temp'
    pipe.unlink()
    os.mkfifo(pipe)
    writers: list[int] = []

    def is_read() -> bool:
        with contextlib.suppress(OSError):  # Nobody reads yet.
            writers.append(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        return bool(writers)

    _wait_for(is_read)
    now_s += 3
    assert monitor.latest().values
    now_s += 3
    assert monitor.latest() == Reading()
    monitor.close()
    os.close(writers.pop())
    for thread in threading.enumerate():
        if thread.name == 'hardware':
            thread.join(60)
            assert not thread.is_alive()


def test_both_kinds_of_throttles_are_joined() -> None:
    hot, weak = Throttle('thermal', 'hot'), Throttle('power', 'weak')
    both = Reading({'a_c': 1.0}, (hot,)).joined(Reading({'a_c': 2.0, 'b_w': 3.0}, (weak,)))
    assert both == Reading({'a_c': 1.0, 'b_w': 3.0}, (hot, weak))
    assert Reading().joined(Reading({}, ())).throttles == ()
    assert Reading().joined(Reading()).throttles is None
