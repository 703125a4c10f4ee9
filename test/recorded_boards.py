# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Jetsons as their files and tools describe them.

Nobody had these boards here: each record was written by hand in the public formats of NVIDIA's
Jetson Linux guide (nvpmodel, jetson_clocks, tegrastats) and of Linux (/proc/swaps, devfreq), with
the modules' part numbers, clocks and modes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Recorded:
    """A board: what its files hold, and what its tools print; what is missing is not there."""

    files: dict[str, str]
    tools: dict[str, str] = field(default_factory=dict)

    def written(self, root: Path) -> Path:
        """Write the files below a folder, and return it."""
        for name, text in self.files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding='utf-8')
        return root

    def run(self, command: Sequence[str]) -> str:
        """Answer as the tool would."""
        return self.tools.get(command[0], '')


def _tree(model: str, *parts: str) -> dict[str, str]:
    # A device tree ends each of its texts by a zero byte.
    return {
        'proc/device-tree/model': f'{model}\0',
        'proc/device-tree/compatible': ''.join(f'nvidia,{part}\0' for part in parts),
    }


def _release(major: int, revision: str, date: str) -> dict[str, str]:
    return {
        'etc/nv_tegra_release': f'# R{major} (release), REVISION: {revision}, GCID: 38968081, '
        f'BOARD: generic, EABI: aarch64, DATE: {date}\n# KERNEL_VARIANT: oot\n'
        'TARGET_USERSPACE_LIB_DIR=nvidia\n'
    }


def _modes(*names: str) -> dict[str, str]:
    blocks = (
        f'< POWER_MODEL ID={number} NAME={name} >\nCPU_ONLINE CORE_0 1\nGPU MAX_FREQ 918000000\n'
        for number, name in enumerate(names)
    )
    return {'etc/nvpmodel.conf': '\n'.join(blocks) + '\n< PM_CONFIG DEFAULT=0 >\n'}


def _memory(total_kb: int, available_kb: int) -> dict[str, str]:
    return {
        'proc/meminfo': f'MemTotal:       {total_kb} kB\nMemFree:          204800 kB\n'
        f'MemAvailable:   {available_kb} kB\nSwapTotal:       3902864 kB\n'
    }


def _zram(areas: int, size_kb: int, used_kb: int) -> dict[str, str]:
    lines = [
        f'/dev/zram{number}                              partition\t{size_kb}\t\t{used_kb}\t\t5'
        for number in range(areas)
    ]
    head = 'Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority'
    return {'proc/swaps': '\n'.join([head, *lines]) + '\n'}


def _cuda(version: str) -> dict[str, str]:
    return {
        'usr/local/cuda/version.json': '{\n   "cuda" : {\n      "name" : "CUDA SDK",\n'
        f'      "version" : "{version}"\n   }}\n}}\n'
    }


def _clocks(
    machine: str, gpu: tuple[int, int, int], memory: tuple[int, int, int], override: int
) -> str:
    gpu_line = 'GPU MinFreq={} MaxFreq={} CurrentFreq={}'.format(*(1000 * x for x in gpu))
    memory_line = 'EMC MinFreq={} MaxFreq={} CurrentFreq={}'.format(*(1000 * x for x in memory))
    return (
        f'SOC family:tegra234  Machine:{machine}\nOnline CPUs: 0-5\n'
        'cpu0: Online=1 Governor=schedutil MinFreq=729600 MaxFreq=1728000 CurrentFreq=1036800 '
        f'IdleStates: WFI=1 c7=1\n{gpu_line}\n{memory_line} FreqOverride={override}\n'
        'FAN Dynamic Speed Control=nvfancontrol hwmon0_pwm1=64\nNV Power Mode: 15W\n'
    )


# As it comes out of the box: a desktop, 15 W, memory in use and some of it swapped.
ORIN_NANO = Recorded(
    {
        **_tree(
            'NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super',
            'p3768-0000+p3767-0005-super',
            'p3767-0005',
            'tegra234',
        ),
        **_release(36, '4.3', 'Wed Jan  8 01:49:37 UTC 2025'),
        **_cuda('12.6.68'),
        **_modes('15W', '25W', 'MAXN_SUPER'),
        **_memory(7_802_880, 1_310_720),
        **_zram(6, 650_268, 71_680),
    },
    {
        'nvpmodel': 'NV Power Mode: 15W\n0\n',
        'jetson_clocks': _clocks(
            'NVIDIA Jetson Orin Nano Developer Kit',
            (306_000, 612_000, 306_000),
            (204_000, 2_133_000, 2_133_000),
            override=0,
        ),
        'tegrastats': '01-08-2026 10:11:12 RAM 6340/7620MB (lfb 2x4MB) SWAP 420/3810MB (cached '
        '7MB) CPU [12%@1510,8%@1510,off,off,9%@1510,5%@1510] EMC_FREQ 3%@2133 GR3D_FREQ 45%@[611] '
        'NVDEC off NVJPG off VIC off cpu@52.1C soc2@50.6C gpu@51.2C tj@52.1C VDD_IN '
        '5200mW/5100mW VDD_CPU_GPU_CV 1400mW/1300mW VDD_SOC 1500mW/1500mW\n',
    },
)
# An ordinary user's view: what asks for root prints an error, and tegrastats no frequencies.
ORIN_NX = Recorded(
    {
        **_tree(
            'NVIDIA Jetson Orin NX Engineering Reference Developer Kit', 'p3767-0000', 'tegra234'
        ),
        **_release(36, '3.0', 'Wed May  8 20:12:43 UTC 2024'),
        **_modes('MAXN', '10W', '15W', '25W'),
        **_memory(15_982_000, 12_582_912),
        **_zram(8, 998_880, 0),
        'var/lib/nvpmodel/status': 'pmode:0003 fmode:quiet\n',
        'sys/class/devfreq/17000000.gpu/min_freq': '306000000\n',
        'sys/class/devfreq/17000000.gpu/max_freq': '408000000\n',
        'sys/class/devfreq/17000000.gpu/cur_freq': '306000000\n',
    },
    {
        'nvpmodel': 'NV Power Mode: 25W\n3\n'
        'NVPM ERROR: Error opening /sys/kernel/nvpmodel_clk_cap/emc: 13\n'
        'NVPM ERROR: failed to read PARAM EMC: ARG MAX_FREQ: PATH '
        '/sys/kernel/nvpmodel_clk_cap/emc\n',
        'tegrastats': '05-08-2026 10:11:12 RAM 2900/15607MB (lfb 900x4MB) SWAP 0/7804MB (cached '
        '0MB) CPU [2%@729,0%@729,0%@729,0%@729,0%@729,0%@729,off,off] GR3D_FREQ 0% cpu@46.5C '
        'soc2@45.1C gpu@45.3C tj@46.5C VDD_IN 4600mW/4600mW\n',
    },
)
# Set up for work: all power, clocks held, no desktop.
AGX_ORIN = Recorded(
    {
        **_tree(
            'NVIDIA Jetson AGX Orin Developer Kit',
            'p3737-0000+p3701-0005',
            'p3701-0005',
            'tegra234',
        ),
        **_release(36, '4.0', 'Tue Sep 10 03:12:50 UTC 2024'),
        **_cuda('12.6.11'),
        **_modes('MAXN', 'MODE_15W', 'MODE_30W', 'MODE_50W'),
        **_memory(64_349_000, 58_720_256),
        'proc/swaps': 'Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n'
        '/ssd/swap                               file\t\t16777212\t0\t\t-2\n',
    },
    {
        'nvpmodel': 'NV Power Mode: MAXN\n0\n',
        'jetson_clocks': _clocks(
            'NVIDIA Jetson AGX Orin Developer Kit',
            (1_300_500, 1_300_500, 1_300_500),
            (204_000, 3_199_000, 3_199_000),
            override=1,
        ),
    },
)
XAVIER = Recorded(
    {
        **_tree('Jetson-AGX', 'e3360_1099+p2888-0001', 'tegra194'),
        **_release(35, '4.1', 'Tue Aug  1 19:57:35 UTC 2023'),
        **_cuda('11.4.19'),
        **_modes('MAXN', 'MODE_10W', 'MODE_15W', 'MODE_30W_ALL'),
        **_memory(31_920_000, 25_165_824),
    },
    {
        'nvpmodel': 'NV Fan Mode:quiet\nNV Power Mode: MODE_30W_ALL\n3\n',
        'jetson_clocks': 'SOC family:tegra194  Machine:Jetson-AGX\nOnline CPUs: 0-7\n'
        'GPU MinFreq=114750000 MaxFreq=905250000 CurrentFreq=318750000\n'
        'EMC MinFreq=204000000 MaxFreq=1600000000 CurrentFreq=1600000000 FreqOverride=0\n'
        'Fan: PWM=77\nNV Power Mode: MODE_30W_ALL\n',
        'tegrastats': 'RAM 7100/31172MB (lfb 5000x4MB) SWAP 0/15586MB (cached 0MB) CPU '
        '[1%@1190,0%@1190,0%@1190,0%@1190,0%@1190,0%@1190,0%@1190,0%@1190] EMC_FREQ 0%@1600 '
        'GR3D_FREQ 0%@318 APE 150 MTS fg 0% bg 0% AO@33C GPU@33C Tdiode@36C PMIC@50C AUX@33C '
        'CPU@34C thermal@33.4C Tboard@35C GPU 0/0 CPU 311/311 SOC 933/933\n',
    },
)
BOARDS = {
    'Orin Nano': ORIN_NANO,
    'Orin NX': ORIN_NX,
    'AGX Orin': AGX_ORIN,
    'Xavier': XAVIER,
}
