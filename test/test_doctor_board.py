# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""``segnode doctor`` on recorded Jetsons: findings, remedies, and what the roofline allows."""

from __future__ import annotations

import dataclasses
import random
import sys
from pathlib import Path

import pytest
import torch
from recorded_boards import AGX_ORIN, BOARDS, ORIN_NANO, ORIN_NX, XAVIER, Recorded
from seeds import fresh_seeds

from segnode.benchmark.floor import Peak, known_peak
from segnode.config import Config
from segnode.doctor import command, network
from segnode.doctor.board import Torch, board_findings, read_torch
from segnode.doctor.finding import Finding
from segnode.doctor.roofline import board_peak, roofline, roofline_finding
from segnode.engine.settings import InferenceSettings
from segnode.errors import FetchError
from segnode.hardware.board import MODULES, Board, read_board
from segnode.hardware.sysfs import SystemFiles
from segnode.model.architecture import Architecture

# As NVIDIA's own for JetPack 6.1.
GOOD = Torch('2.5.0a0+872d972e41.nv24.08', '12.6', True, ('sm_87',))
SETTINGS = InferenceSettings(
    short_side=800,
    long_side=1333,
    score_threshold=0.05,
    nms_threshold=0.5,
    max_instances=100,
    proposals=1000,
)


def findings(recorded: Recorded, root: Path, torch: Torch | None = GOOD) -> dict[str, Finding]:
    board = read_board(recorded.written(root), recorded.run)
    assert board is not None
    found = list(board_findings(board, torch))
    for each in found:
        assert (each.level == 'ok') == (not each.remedy), each
        assert '\n' not in each.line()
    return {each.name: each for each in found}


def test_an_orin_nano_as_it_comes(tmp_path: Path) -> None:
    found = findings(ORIN_NANO, tmp_path)
    assert found['board'].level == 'ok'
    assert 'JetPack 6.2 (L4T 36.4.3), CUDA 12.6.68' in found['board'].found
    assert 'TF32' in found['abilities'].found
    assert found['power mode'].remedy.startswith('sudo nvpmodel -m 2')
    assert 'MAXN_SUPER' in found['power mode'].found
    assert found['GPU clock'].remedy.startswith('sudo jetson_clocks')
    assert '306 MHz now' in found['GPU clock'].found
    memory = found['board memory']
    assert memory.level == 'warn'
    assert 'isolate multi-user.target' in memory.remedy
    assert 'lower resolution.short_side' in memory.remedy
    assert '420 of 3810 MiB used, compressed' in found['swap'].found
    assert 'nvzramconfig' in found['swap'].remedy


def test_an_orin_nx_that_tells_an_ordinary_user_little(tmp_path: Path) -> None:
    found = findings(ORIN_NX, tmp_path)
    assert found['power mode'].remedy.startswith('sudo nvpmodel -m 0')
    assert '25W limits' in found['power mode'].found
    assert 'between 306 and 408 MHz' in found['GPU clock'].found
    assert 'memory clock' not in found
    assert found['board memory'].level == 'ok'
    assert found['swap'].level == 'ok'


def test_an_agx_orin_that_is_set_up(tmp_path: Path) -> None:
    found = findings(AGX_ORIN, tmp_path)
    assert {each.level for each in found.values()} == {'ok'}
    assert found['GPU clock'].found == 'held at 1300 MHz'
    assert found['memory clock'].found == 'held at 3199 MHz'


def test_a_xavier_has_no_later_jetpack(tmp_path: Path) -> None:
    found = findings(XAVIER, tmp_path, Torch('2.5.0', '', False))
    assert found['board'].level == 'warn'
    assert found['board'].remedy.startswith('build PyTorch for Python 3.10')
    assert 'no TF32 and no BF16' in found['abilities'].found
    assert found['power mode'].remedy.startswith('sudo nvpmodel -m 0')
    assert 'swap' not in found


def test_a_xavier_whose_torch_sees_the_gpu_needs_nothing(tmp_path: Path) -> None:
    installed = Torch('2.3.0', '11.4', True, ('sm_72',))
    assert findings(XAVIER, tmp_path, installed)['board'].level == 'ok'


def released(recorded: Recorded, release: str, **files: str) -> Recorded:
    text = {'etc/nv_tegra_release': f'# {release}, GCID: 1, BOARD: generic\n'}
    return Recorded(recorded.files | text | files, recorded.tools)


NANO = Recorded(
    {
        'proc/device-tree/model': 'NVIDIA Jetson Nano Developer Kit\0',
        'proc/device-tree/compatible': 'nvidia,p3450-0000\0nvidia,tegra210\0',
    }
)
UNKNOWN = Recorded({'proc/device-tree/compatible': 'nvidia,p9999-0000\0nvidia,tegra999\0'})


@pytest.mark.parametrize(
    ('recorded', 'release', 'remedy'),
    [
        (NANO, 'R32 (release), REVISION: 7.1', 'no later JetPack comes for this board'),
        (XAVIER, 'R32 (release), REVISION: 7.1', 'update to JetPack 5, then build PyTorch'),
        (AGX_ORIN, 'R35 (release), REVISION: 4.1', 'update to JetPack 6 or newer'),
        (UNKNOWN, 'R35 (release), REVISION: 4.1', 'update to the newest JetPack for this board'),
    ],
)
@pytest.mark.parametrize('installed', [Torch('2.5.0', '', False), None])
def test_an_old_jetpack(
    tmp_path: Path, recorded: Recorded, release: str, remedy: str, installed: Torch | None
) -> None:
    found = findings(released(recorded, release), tmp_path, installed)['board']
    assert found.remedy.startswith(remedy)


@pytest.mark.parametrize(
    ('revision', 'jetpack', 'cuda'),
    [
        ('R36 (release), REVISION: 2.0', '6.0', '12.2'),
        ('R36 (release), REVISION: 4.0', '6.1', '12.6'),
        ('R36 (release), REVISION: 4.3', '6.2', '12.6'),
        ('R36 (release), REVISION: 4.7', '6.2.1', '12.6'),
        ('R36 (release), REVISION: 5.0', '6.2.2', '12.6'),
        ('R36 (release), REVISION: 9.1', '6', ''),
        ('R38 (release), REVISION: 2.0', '7.0', '13.0'),
        ('R38 (release), REVISION: 9', '7', ''),
        ('R39 (release), REVISION: 2.0', '7.2', '13.2'),
        ('R39 (release), REVISION: 2.1', '7', ''),
        ('R40 (release), REVISION: 0', '', ''),
        ('R35 (release), REVISION: 6.1', '5', '11.4'),
    ],
)
def test_jetpacks(tmp_path: Path, revision: str, jetpack: str, cuda: str) -> None:
    null = {'usr/local/cuda/version.json': '{"cuda": {"version": null}}'}
    recorded = released(ORIN_NX, revision, **null)
    board = read_board(recorded.written(tmp_path), recorded.run)
    assert board is not None
    assert (board.jetpack, board.cuda) == (jetpack, cuda)


def test_another_cuda_that_sees_the_gpu(tmp_path: Path) -> None:
    found = findings(AGX_ORIN, tmp_path, Torch('2.14.1', '13.0', True))['board']
    assert found.level == 'warn'
    assert 'though the GPU is seen' in found.found


@pytest.mark.parametrize(
    ('torch', 'found', 'remedy'),
    [
        (Torch('2.9.1', '', False), 'with CUDA none: the GPU is not used', 'NVIDIA builds'),
        (Torch('2.14.1', '13.0', False), 'another CUDA than the board has', 'NVIDIA builds'),
        (Torch('2.5.0', '12.6', False), 'sees no GPU', '--runtime nvidia'),
        (Torch('2.5.1', '12.4', True, ('sm_80', 'sm_90')), 'without sm_87', 'NVIDIA builds'),
    ],
)
def test_the_wrong_torch(tmp_path: Path, torch: Torch, found: str, remedy: str) -> None:
    finding = findings(AGX_ORIN, tmp_path, torch)['board']
    assert finding.level == 'FAIL'
    assert found in finding.found
    assert remedy in finding.remedy


def test_a_small_board_without_swap(tmp_path: Path) -> None:
    bare = {name: text for name, text in ORIN_NANO.files.items() if name != 'proc/swaps'}
    assert 'fallocate' in findings(Recorded(bare, ORIN_NANO.tools), tmp_path)['swap'].remedy


@pytest.mark.parametrize('name', BOARDS)
def test_without_any_tool(tmp_path: Path, name: str) -> None:
    assert 'board' in findings(Recorded(BOARDS[name].files), tmp_path)


GARBAGE = (
    '²' * 3,
    '٣',
    '9' * 5000,
    '[' * 60_000,
    '{"cuda": ' * 30_000,
    'MemTotal: ' + '9' * 5000 + ' kB\nMemAvailable: ' + '9' * 1000 + ' kB\n',
    '/dev/zram0 partition ' + '9' * 5000 + ' 1\n',
    '# R' + '9' * 5000 + ' (release), REVISION: ' + '9.' * 3000,
    '# R36 (release), REVISION: 4..3.\n',
    f'< POWER_MODEL ID={"9" * 5000} NAME={"9" * 5000}W >',
    f'< POWER_MODEL ID=1 NAME={"9" * 5000}W >',
    'pmode:' + '9' * 5000,
    'NV Power Mode: ' + '9' * 5000 + 'W',
    'GPU MinFreq={0} MaxFreq={0} CurrentFreq={0}\nEMC MinFreq=1 MaxFreq=1 '
    'CurrentFreq={0}\n'.format('9' * 5000),
    f'RAM {"9" * 5000}/{"9" * 5000}MB EMC_FREQ 0%@{"9" * 5000}',
    '\0\x1b[2J',
    '',
)


@pytest.mark.parametrize('text', GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_not_told(tmp_path: Path, text: str) -> None:
    kept = 'proc/device-tree/compatible'
    names = {*ORIN_NANO.files, *ORIN_NX.files} - {kept}
    files = dict.fromkeys(names, text) | {kept: ORIN_NANO.files[kept]}
    recorded = Recorded(files, dict.fromkeys(ORIN_NANO.tools, text))
    assert 'board' in findings(recorded, tmp_path)
    assert not SystemFiles(tmp_path).read(0.0).values.keys() - {'clock_gpu_mhz'}
    board = read_board(tmp_path, recorded.run)
    assert board is not None
    assert board_peak(board) is not None
    assert max(len(each.line()) for each in board_findings(board, GOOD)) < 1000


def test_random_garbage(tmp_path: Path) -> None:
    for seed in fresh_seeds(3):
        rng = random.Random(seed)

        def noise() -> str:
            return rng.randbytes(3000).decode('latin-1')  # noqa: B023 - called at once

        files = {name: noise() for name in {*ORIN_NANO.files, *ORIN_NX.files}}
        files['proc/device-tree/compatible'] = 'nvidia,tegra234'
        findings(Recorded(files, {name: noise() for name in ORIN_NANO.tools}), tmp_path)


def test_a_board_that_tells_nothing_but_its_name() -> None:
    (finding,) = board_findings(Board('a Jetson'), GOOD)
    assert finding.level == 'ok'
    assert 'not told' in finding.found


def test_this_torch() -> None:
    found = read_torch()
    assert found is not None
    assert found.version == torch.__version__
    assert found.sees_gpu == torch.cuda.is_available()


@pytest.mark.parametrize(
    ('recorded', 'tflops', 'gb_s'),
    [
        (ORIN_NANO, 8 * 2.048 * 0.612, 68.3),
        # 408 MHz in the mode of 25 W; of the memory an ordinary user is told nothing.
        (ORIN_NX, 8 * 2.048 * 0.408, 102.4),
        (AGX_ORIN, 42.6, 204.7),
        (XAVIER, 8 * 1.024 * 0.905, 102.4),
    ],
)
def test_peaks_follow_the_clocks_that_the_mode_allows(
    tmp_path: Path, recorded: Recorded, tflops: float, gb_s: float
) -> None:
    board = read_board(recorded.written(tmp_path), recorded.run)
    assert board is not None
    peak = board_peak(board)
    assert peak is not None
    assert (peak.tflops, peak.gb_s) == pytest.approx((tflops, gb_s), rel=0.01)


@pytest.mark.parametrize(
    ('name', 'clocks'), [('AGX Orin', (1300, 3199)), ('Orin NX 8GB', (1020, 3199))]
)
def test_a_module_and_its_gpu_have_one_peak(name: str, clocks: tuple[float, float]) -> None:
    module = next(each for each in MODULES if each.name == name)
    peak = known_peak('Orin', module.processors)
    assert peak is not None
    found = (module.tflops(clocks[0]), module.gb_s(clocks[1]))
    assert found == pytest.approx((peak.tflops, peak.gb_s), rel=0.01)


@pytest.mark.parametrize(
    ('peak', 'settings', 'published_ms'),
    [
        (Peak('AGX Orin', 42.5, 204.8), {}, 10.9),
        (Peak('Orin Nano Super', 16.7, 102), {}, 26),
        (Peak('AGX Orin', 42.5, 204.8), {'short_side': 480}, 5.1),
    ],
)
def test_the_roofline(peak: Peak, settings: dict[str, int], published_ms: float) -> None:
    chosen = dataclasses.replace(SETTINGS, proposals=300, **settings)
    found = roofline(Architecture(), chosen, peak)
    # The table counts a part whole, we each layer, and a frame of 16:9 in place of 5:3.
    assert 0.9 * published_ms < found.ms < 1.2 * published_ms
    assert 100 < found.needed_mib < 2000
    assert found.lowered[0][0].startswith('resolution.short_side')
    assert all(ms < found.ms for _, ms in found.lowered)


def test_what_to_lower_first() -> None:
    slow, fast = Peak('Slow', 1, 20), Peak('Fast', 42.5, 204.8)
    found = roofline(Architecture(), SETTINGS, fast)
    assert [what for what, _ in found.lowered] == [
        'resolution.short_side to 608',
        'proposals to 300',
    ]
    (line,) = roofline_finding(found, fast)
    assert line.level == 'ok'
    assert 'network input of 750x1333 with 20 masks' in line.found
    assert 'what to lower first: resolution.short_side to 608' in line.found
    (line,) = roofline_finding(roofline(Architecture(), SETTINGS, slow), slow)
    assert line.level == 'warn'
    assert line.remedy.startswith('lower resolution.short_side to 608')


def test_the_frame_as_it_is() -> None:
    found = roofline(
        Architecture(), dataclasses.replace(SETTINGS, short_side=0), Peak('x', 42.5, 204.8)
    )
    assert found.network_hw == (720, 1280)
    assert found.lowered[0][0] == 'resolution.short_side to 544'


@pytest.mark.parametrize('short_side', [8, 16, 32, 40, 48])
def test_a_side_that_cannot_be_lowered(short_side: int) -> None:
    peak = Peak('x', 42.5, 204.8)
    chosen = dataclasses.replace(SETTINGS, short_side=short_side, proposals=300)
    found = roofline(Architecture(), chosen, peak)
    assert [what for what, _ in found.lowered] == (
        ['resolution.short_side to 32'] if short_side > 32 else []
    )
    (line,) = roofline_finding(found, peak)
    assert ('lower first' in line.found) == (short_side > 32)
    (line,) = roofline_finding(dataclasses.replace(found, ms=1e3), peak)
    assert line.remedy.endswith('take a smaller backbone')
    assert ('lower' in line.remedy) == (short_side > 32)


@pytest.mark.parametrize(
    ('part', 'memory', 'tflops', 'gb_s'),
    [
        ('p3767-0005-super', None, 16.7, 102.4),
        ('p3767-0004-super', None, 8.4, 51.2),
        ('p3767-0000-super', None, 19.2, 102.4),
        ('p3767-0005', None, 10.2, 68.3),
        # Where the memory is now it can be; idle it says nothing.
        ('p3767-0005', 3199, 10.2, 102.4),
        ('p3767-0005', 204, 10.2, 68.3),
    ],
)
def test_peaks_where_no_limits_are_told(
    tmp_path: Path, part: str, memory: int | None, tflops: float, gb_s: float
) -> None:
    tree = {'proc/device-tree/compatible': f'nvidia,p3768-0000+{part}\0nvidia,tegra234\0'}
    tools = {'tegrastats': f'RAM 1/7620MB EMC_FREQ 0%@{memory}\n'} if memory else {}
    recorded = Recorded(tree, tools)
    board = read_board(recorded.written(tmp_path), recorded.run)
    assert board is not None
    peak = board_peak(board)
    assert peak is not None
    assert (peak.tflops, peak.gb_s) == pytest.approx((tflops, gb_s), rel=0.01)


def test_doctor_says_it_of_the_chosen_model(tmp_path: Path) -> None:
    board = read_board(ORIN_NANO.written(tmp_path), ORIN_NANO.run)
    assert board is not None
    config, chosen = Config(device='cpu'), (Architecture(), SETTINGS)
    (least,) = network.limits(config, chosen, board)  # Its memory is too small for PyTorch alone.
    assert least.name == 'roofline'
    more = dataclasses.replace(board, available_mib=2100)
    memory, _ = network.limits(config, chosen, more)
    assert (memory.name, memory.level) == ('board memory', 'warn')
    assert 'and the network' in memory.found
    assert not list(network.limits(config, None, board))
    assert not list(network.limits(config, chosen, None))


@pytest.mark.parametrize('error', [RuntimeError('no kernel image'), AttributeError('no such')])
def test_doctor_says_all_of_a_board_though_the_model_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception
) -> None:
    root, told = ORIN_NANO.written(tmp_path), []

    def fails(*_: object, **__: object) -> None:
        told.append('run')
        raise error

    monkeypatch.setattr(command, 'read_board', lambda: read_board(root, ORIN_NANO.run))
    monkeypatch.setattr(command, 'ros', lambda: iter(()))
    monkeypatch.setattr('segnode.engine.Engine.segment', fails)
    for finding in command.examine(Config(device='cpu')):
        told.append(finding.name)
        if finding.name == 'model':
            assert finding.level == 'FAIL'
            assert f'{type(error).__name__}: {error}' in finding.found
    assert told.index('board memory') < told.index('run')
    assert told.index('run') < told.index('model')


def test_a_board_without_a_torch_that_can_be_imported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = ORIN_NANO.written(tmp_path)
    monkeypatch.setattr(command, 'read_board', lambda: read_board(root, ORIN_NANO.run))
    monkeypatch.setattr(command, 'ros', lambda: iter(()))
    monkeypatch.setitem(sys.modules, 'torch', None)
    found = {each.name: each for each in command.examine(Config(device='cpu'))}
    assert found['power mode'].level == 'warn'
    assert found['torch'].level == found['board'].level == 'FAIL'
    assert 'NVIDIA builds' in found['torch'].remedy
    assert 'torch above' in found['board'].remedy


@pytest.mark.parametrize(
    ('library', 'remedy'),
    [
        ('libcusparseLt.so.0', 'package libcusparselt0'),
        ('libopenblas.so.0', 'sudo apt install libopenblas0'),
        ('libcudnn.so.8', 'NVIDIA builds'),
    ],
)
def test_a_library_that_torch_lacks(
    monkeypatch: pytest.MonkeyPatch, library: str, remedy: str
) -> None:
    class Broken:
        def find_spec(self, name: str, *_: object) -> None:
            if name == 'torch':
                raise ImportError(f'{library}: cannot open shared object file')

    monkeypatch.delitem(sys.modules, 'torch')
    monkeypatch.setattr(sys, 'meta_path', [Broken(), *sys.meta_path])
    found = {each.name: each for each in command.packages(on_board=True)}['torch']
    assert library in found.found
    assert remedy in found.remedy


def test_weights_that_a_robot_without_a_network_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object) -> None:
        raise FetchError('https://example.com/w.pkl: cannot be fetched (no network)')

    monkeypatch.setattr('segnode.checkpoint.load_model', unreachable)
    finding, _ = network.run_model(Config(model='mask_rcnn_R_50_FPN_3x'))
    assert finding.level == 'FAIL'
    fetch = '.venv/bin/python -m segnode fetch'
    assert f'SEGNODE_CACHE=weights {fetch} mask_rcnn_R_50_FPN_3x' in finding.remedy
    assert 'mkdir -p .cache/segnode; rsync' in finding.remedy
    assert 'rsync -a weights/' in finding.remedy
    finding, _ = network.run_model(Config(weights='https://example.com/w.pkl'))
    assert f'{fetch} https://example.com/w.pkl' in finding.remedy
