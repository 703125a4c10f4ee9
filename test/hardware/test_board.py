# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Recorded Jetsons: what is read of them, also where files and tools are missing or broken."""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import pytest
from recorded_boards import AGX_ORIN, BOARDS, ORIN_NANO, ORIN_NX, XAVIER, Recorded
from seeds import fresh_seeds

from segnode.hardware.board import MODULES, Board, Clock, read_board, run_tool


def board(recorded: Recorded, root: Path) -> Board:
    found = read_board(recorded.written(root), recorded.run)
    assert found is not None
    return found


def module(found: Board) -> str:
    assert found.module is not None
    return found.module.name


def test_an_orin_nano(tmp_path: Path) -> None:
    found = board(ORIN_NANO, tmp_path)
    assert module(found) == 'Orin Nano 8GB Super'
    assert (found.release, found.jetpack, found.cuda) == ('36.4.3', '6.2', '12.6.68')
    assert (found.mode, found.best_mode()) == ('15W', (2, 'MAXN_SUPER'))
    assert found.gpu == Clock(306, 612, 306)
    assert found.memory == Clock(204, 2133, 2133)
    assert not found.gpu.pinned
    assert found.memory_mib == pytest.approx(7620)
    assert found.available_mib == pytest.approx(1280)
    assert len(found.swaps) == 6
    assert all(swap.compressed for swap in found.swaps)
    assert sum(swap.used_mib for swap in found.swaps) == pytest.approx(420)


def test_an_orin_nx_without_rights(tmp_path: Path) -> None:
    found = board(ORIN_NX, tmp_path)
    assert module(found) == 'Orin NX 16GB'
    assert (found.release, found.jetpack, found.cuda) == ('36.3.0', '6.0', '12.2')
    assert (found.mode, found.best_mode()) == ('25W', (0, 'MAXN'))
    assert found.gpu == Clock(306, 408, 306)
    assert found.memory is None


def test_the_mode_where_nvpmodel_is_missing(tmp_path: Path) -> None:
    assert board(Recorded(ORIN_NX.files), tmp_path).mode == '25W'


def test_tegrastats_tells_root_of_the_memory(tmp_path: Path) -> None:
    tools = {'tegrastats': ORIN_NANO.tools['tegrastats']}
    assert board(Recorded(ORIN_NANO.files, tools), tmp_path).memory == Clock(0, 0, 2133)


def test_a_container(tmp_path: Path) -> None:
    """Docker hides the device tree; compose.yaml mounts it elsewhere, and other files."""
    tree = 'proc/device-tree'
    bare = {name: text for name, text in AGX_ORIN.files.items() if not name.startswith(tree)}
    parts = AGX_ORIN.files[f'{tree}/compatible']
    found = board(Recorded({**bare, 'run/device-tree/compatible': parts}), tmp_path / 'mounted')
    assert (module(found), found.chip) == ('AGX Orin', 'tegra234')
    soc = {'sys/devices/soc0/family': 'Tegra\n'}
    assert board(Recorded(soc), tmp_path / 'foreign') == Board('a Jetson')
    soc['sys/devices/soc0/machine'] = 'NVIDIA Jetson AGX Orin Developer Kit\n'
    found = board(Recorded(soc), tmp_path / 'named')
    assert (module(found), found.chip) == ('AGX Orin', 'tegra234')


def test_an_agx_orin(tmp_path: Path) -> None:
    found = board(AGX_ORIN, tmp_path)
    assert module(found) == 'AGX Orin'
    assert (found.jetpack, found.cuda, found.mode) == ('6.1', '12.6.11', 'MAXN')
    assert found.best_mode() == (0, 'MAXN')
    assert found.gpu is not None
    assert found.gpu.pinned
    assert not found.swaps[0].compressed


def test_a_xavier(tmp_path: Path) -> None:
    found = board(XAVIER, tmp_path)
    assert module(found) == 'AGX Xavier'
    assert found.module is not None
    assert found.module.capability == (7, 2)
    assert (found.release, found.jetpack, found.mode) == ('35.4.1', '5', '30W_ALL')
    assert found.swaps == ()


def test_data_sheets() -> None:
    """Peaks that NVIDIA publishes: dense FP16 in TFLOPS, and GB/s."""
    published = {
        'AGX Orin': (42.5, 204.8),
        'Orin NX 16GB': (15.0, 102.4),
        'Orin Nano 8GB': (10.2, 68.0),
        'Orin Nano 4GB': (5.1, 34.0),
        'AGX Xavier': (11.3, 136.5),
        'Xavier NX': (6.8, 59.7),
    }
    for each in MODULES:
        if each.name in published:
            assert (each.tflops(), each.gb_s()) == pytest.approx(published[each.name], rel=0.01)
    nano = next(each for each in MODULES if each.name == 'Orin Nano 8GB')
    # In the mode "super".
    assert (nano.tflops(1020), nano.gb_s(3199)) == pytest.approx((16.7, 102.4), rel=0.01)


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('NVIDIA Jetson Orin NX Developer Kit', 'Orin NX 16GB'),
        ('NVIDIA Jetson Orin Nano Developer Kit', 'Orin Nano 8GB'),
        ('NVIDIA Jetson AGX Orin', 'AGX Orin'),
        ('NVIDIA Jetson Xavier NX Developer Kit', 'Xavier NX'),
        ('Jetson-AGX', 'AGX Xavier'),
    ],
)
def test_a_name_alone_tells_the_module(tmp_path: Path, name: str, expected: str) -> None:
    assert module(board(Recorded({'proc/device-tree/model': name}), tmp_path)) == expected


def test_one_that_is_not_known(tmp_path: Path) -> None:
    found = board(Recorded({'proc/device-tree/model': 'NVIDIA Jetson Next\0'}), tmp_path)
    assert found == Board('NVIDIA Jetson Next')
    assert found.best_mode() is None


@pytest.mark.parametrize('name', ['', 'Raspberry Pi 5 Model B Rev 1.0\0'])
def test_another_machine_is_none(tmp_path: Path, name: str) -> None:
    files = {'proc/device-tree/model': name, 'proc/meminfo': 'MemTotal: 1 kB\n'}
    files['sys/devices/soc0/family'] = 'Snapdragon\n'
    recorded = Recorded(files)
    assert read_board(recorded.written(tmp_path), lambda _: '') is None


def test_this_machine_is_none() -> None:
    assert Path('/etc/nv_tegra_release').exists() or read_board() is None


@pytest.mark.parametrize('name', BOARDS)
def test_whatever_is_missing_or_broken_is_left_out(tmp_path: Path, name: str) -> None:
    """Any file or tool may be absent, cut short, or hold anything."""
    whole = BOARDS[name]
    for number, seed in enumerate(fresh_seeds(12)):
        draw = random.Random(seed)

        def damaged(text: str) -> str:
            how = draw.choice(['whole', 'cut', 'noise'])  # noqa: B023
            if how == 'cut':
                return text[: draw.randrange(len(text) + 1)]  # noqa: B023
            noise = ''.join(draw.choice('0=@:%/ \nRIDGPU') for _ in range(60))  # noqa: B023
            return text if how == 'whole' else noise

        files = {k: damaged(v) for k, v in whole.files.items() if draw.random() < 0.7}
        tools = {k: damaged(v) for k, v in whole.tools.items() if draw.random() < 0.7}
        root = tmp_path / str(number)
        found = read_board(Recorded(files).written(root), Recorded({}, tools).run)
        assert found is None or found.name, seed
        if found is not None:
            found.best_mode()


def test_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('segnode.hardware.board._TOOL_TIMEOUT_S', 60.0)
    assert run_tool(['no-such-tool-of-a-jetson']) == ''
    assert run_tool([sys.executable, '-c', 'print("x")']) == 'x\n'
    assert run_tool([sys.executable, '-c', 'print("x"); raise SystemExit(1)']) == 'x\n'


def test_a_tool_that_goes_on_for_ever_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    code = 'import time\nwhile True: print("RAM 1/2MB", flush=True); time.sleep(0.1)'
    # Where the machine has other work, Python may take longer to start.
    for limit_s in (1.0, 5.0, 25.0):
        monkeypatch.setattr('segnode.hardware.board._TOOL_TIMEOUT_S', limit_s)
        start = time.monotonic()
        said = run_tool([sys.executable, '-c', code])
        assert time.monotonic() - start < limit_s + 30
        if said:
            break
    assert said.startswith('RAM 1/2MB')
