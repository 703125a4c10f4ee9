# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The command sweep: from a rendered bag to table, picture and parameters, stopped and resumed."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
import yaml
from rendered_bag import scene_frames, write_annotations, write_bag

from segnode.__main__ import main
from segnode.checkpoint.load import DEMO_MODEL
from segnode.config import Config
from segnode.evaluation.results_file import read_results
from segnode.evaluation.sweep.derive import Limits, derived_results
from segnode.shipped import shipped_file

IMAGE_HW = (120, 160)
SIDES, AREAS = (96, 128, 160), (0, 60, 200)
GRID = (
    '--vary', f'resolution.short_side={",".join(map(str, SIDES))}',
    '--vary', f'min_mask_area={",".join(map(str, AREAS))}',
)  # fmt: skip
WAIT_S = 240


@pytest.fixture(scope='module')
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a bag of 60 frames and their annotations."""
    folder = tmp_path_factory.mktemp('recorded')
    frames = scene_frames(60, IMAGE_HW)
    write_bag(folder / 'bag', frames)
    write_annotations(folder / 'instances.json', frames)
    return folder


@pytest.fixture(scope='module')
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bag(tmp_path_factory.mktemp('short') / 'bag', scene_frames(4, (48, 64)))


# Ends with the first file that is put in its place after one that fits a pattern. From outside
# nobody knows how far a process came between a file and the signal that was sent for it.
_KILLED = """
import os, pathlib, signal, sys
from segnode.__main__ import main
folder, pattern, *arguments = sys.argv[1:]
def kill(event, _):
    if event == 'os.rename' and any(pathlib.Path(folder).glob(pattern)):
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(kill)
sys.exit(main(['sweep', *arguments]))
"""


def kill_after(arguments: list[str], folder: Path, pattern: str) -> None:
    """Run the command until it is killed, after a file is there and before the next one is."""
    command = [sys.executable, '-c', _KILLED, str(folder), pattern, *arguments]
    killed = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr


def stamped(folder: Path, *patterns: str) -> dict[str, tuple[int, bytes]]:
    """Return when each file was written, and what."""
    files = (path for pattern in patterns for path in folder.glob(pattern) if path.is_file())
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def run_of(report: dict[str, Any], folder: Path, **settings: int) -> tuple[Path, dict[str, Any]]:
    (row,) = [
        row for row in report['rows'] if list(row['settings'].values()) == list(settings.values())
    ]
    return folder / 'runs' / row['run'] / 'results.json', row


def test_nine_rows_killed_twice_end_as_one_sweep(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / 'sweep'
    arguments = [
        str(recorded / 'bag'), *GRID, '--annotations', str(recorded / 'instances.json'),
        '--latency-frames', '6', '--device', 'cpu', '--output', str(folder),
    ]  # fmt: skip
    kill_after(arguments, folder, 'runs/*/summary.json')
    runs = stamped(folder, 'runs/*/[!.]*')
    assert sum(name.endswith('/summary.json') for name in runs) == 1
    kill_after(arguments, folder, 'rows/*.json')
    done = stamped(folder, 'rows/*.json', 'timings/*.json', 'runs/*/[!.]*')
    # Timing was over, so that no row has to be timed anew.
    assert sum('/timings/' in name for name in done) == 1
    rows = [name for name in done if '/rows/' in name]
    assert len(rows) == 1
    assert runs.items() <= done.items()
    capsys.readouterr()

    assert main(['sweep', *arguments]) == 0
    said = capsys.readouterr()
    assert f'{len(rows)} of 9 rows were done before' in said.err
    # Nothing that was done is done again.
    assert done.items() <= stamped(folder, '*/*.json', 'runs/*/*').items()
    assert len(list(folder.glob('rows/*'))) == 9
    assert len(list(folder.glob('runs/*'))) == len(SIDES)
    (timings,) = folder.glob('timings/*')
    session = json.loads(timings.read_text())
    assert len(session['rows']) == 9
    for times in session['rows'].values():
        assert [len(turn) for turn in times['turns_ms']] == [3, 3]

    report = json.loads((folder / 'sweep.json').read_text())
    assert {row['session'] for row in report['rows']} == {session['session']}
    assert [tuple(row['settings'].values()) for row in report['rows']] == [
        (side, area) for side in SIDES for area in AREAS
    ]
    for row in report['rows']:
        assert row['failed'] is None
        assert row['derived'] == (row['settings']['filter.min_mask_area'] > 0)
        assert 0 < row['latency_ms']['min'] <= row['latency_ms']['p50'] <= row['latency_ms']['p95']
        assert 0 <= row['streaming_mask_ap'] <= 1
        saved = json.loads((folder / 'rows' / f'{row["name"]}.json').read_text())
        assert saved.items() <= row.items()
    assert any(row['pareto'] for row in report['rows'])
    check_files(folder, report, said.out)
    check_row(folder, report, recorded, tmp_path / 'own')

    # A finished sweep has the same table again.
    capsys.readouterr()
    before = stamped(folder, '*/*.json')
    table = (folder / 'sweep.csv').read_bytes()
    assert main(['sweep', *arguments]) == 0
    assert capsys.readouterr().out == said.out
    assert (folder / 'sweep.csv').read_bytes() == table
    assert stamped(folder, '*/*.json') == before


def check_files(folder: Path, report: dict[str, Any], said: str) -> None:
    """Check table, picture and parameters against the JSON."""
    with (folder / 'sweep.csv').open(newline='') as stream:
        lines = list(csv.DictReader(stream))
    assert [float(line['mask_ap']) for line in lines] == [r['mask_ap'] for r in report['rows']]
    assert said.splitlines()[0].split()[:2] == ['short_side', 'min_mask_area']
    picture = ElementTree.parse(folder / 'pareto.svg')
    assert len(picture.findall('.//{http://www.w3.org/2000/svg}circle')) == 9
    best = max(row['mask_ap'] for row in report['rows'])
    chosen = report['recommended']
    assert chosen['mask_ap'] == best
    # Over the shipped file the parameters make the row, with what was left to the model.
    text = (folder / 'params.yaml').read_text()
    assert text.startswith('# From: segnode sweep ')
    own = yaml.safe_load(text)['/**']['ros__parameters']
    shipped = yaml.safe_load(shipped_file('config/seg.yaml').read_text())
    flat = {**shipped['/**']['ros__parameters'], **own}
    node = Config().replace({name: flat[name] for name in Config().flat()})
    assert node == Config().replace(chosen['settings'])


def check_row(folder: Path, report: dict[str, Any], recorded: Path, own: Path) -> None:
    """Check a derived row against `evaluate` with its settings."""
    side, area = SIDES[1], AREAS[2]
    results, row = run_of(report, folder, short_side=side, min_mask_area=area)
    assert row['derived']
    arguments = [
        str(recorded / 'bag'), '--annotations', str(recorded / 'instances.json'), '--no-bag',
        '--short-side', str(side), '--min-mask-area', str(area), '--device', 'cpu',
        '--output', str(own), '--latencies', repr(row['latency_ms']['p50']),
    ]  # fmt: skip
    assert main(['evaluate', *arguments]) == 0
    summary = json.loads((own / 'summary.json').read_text())
    for name in ('box_ap', 'mask_ap', 'streaming_box_ap', 'streaming_mask_ap'):
        assert row[name] == summary[name], name
    derived = derived_results(results, Limits.of(row['effective']))
    entries = [entry for _, frame in derived for entry in frame]
    assert entries == list(read_results(own / 'results.json'))
    assert row['instances'] == len(entries) > 0


NULL = ('--model', 'null', '--device', 'cpu', '--latency-frames', '3')


def sweep(short: Path, folder: Path, *more: str) -> int:
    vary = ('--vary', 'score_threshold=0.05,0.9', '--vary', 'short_side=32,48')
    return main(['sweep', str(short), *vary, *NULL, '--output', str(folder), *more])


def test_without_ground_truth_rows_agree_with_the_most_expensive(
    short: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / 'copy.json'
    assert sweep(short, tmp_path / 'out', '--json', str(copy)) == 0
    report = json.loads(copy.read_text())
    assert copy.read_bytes() == (tmp_path / 'out' / 'sweep.json').read_bytes()
    assert report['reference'] == {'filter.score_threshold': 0.05, 'resolution.short_side': 48}
    agreement = {tuple(row['settings'].values()): row['agreement'] for row in report['rows']}
    assert agreement[0.05, 48] == 1.0
    # As many as the reference has and no more: F1 follows from the counts.
    counts = {tuple(row['settings'].values()): row['instances'] for row in report['rows']}
    few, many = counts[0.9, 48], counts[0.05, 48]
    assert 0 < few < many
    assert agreement[0.9, 48] == pytest.approx(2 * few / (few + many))
    out = capsys.readouterr().out
    assert 'agreement, not accuracy' in out
    assert 'agreement, not accuracy' in (tmp_path / 'out' / 'params.yaml').read_text()


def test_no_row_within_the_budget(
    short: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / 'out'
    assert sweep(short, folder) == 0
    assert (folder / 'params.yaml').is_file()
    assert sweep(short, folder, '--budget-ms', '0.0001') == 1
    # The one from before would be taken for the answer.
    assert not (folder / 'params.yaml').exists()
    assert json.loads((folder / 'sweep.json').read_text())['recommended'] is None
    assert 'recommended: none' in capsys.readouterr().out


def test_changed_inputs_and_settings_start_anew_and_a_larger_grid_goes_on(
    short: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / 'out'
    assert sweep(short, folder) == 0
    assert sweep(short, folder, '--vary', 'max_instances=0') == 0  # As it was before.
    assert '4 of 4 rows were done before' in capsys.readouterr().err
    runs = stamped(folder, 'runs/*/*')
    before = sessions(folder)
    assert sweep(short, folder, '--vary', 'max_instances=0,5') == 0
    assert 'all rows are timed anew, in turns' in capsys.readouterr().err
    assert runs.items() < stamped(folder, 'runs/*/*').items()
    # What took turns is compared, and nothing else.
    assert len(sessions(folder)) == 8
    assert len(set(sessions(folder))) == 1
    assert not set(before) & set(sessions(folder))
    assert sweep(short, folder, '--vary', 'max_instances=5,0') == 0
    assert '8 of 8 rows were done before' in capsys.readouterr().err
    assert sweep(short, folder) == 0
    assert sessions(folder) == before
    capsys.readouterr()
    for changed in (('--every', '2'), ('--mask-threshold', '0.4')):
        assert sweep(short, folder, *changed) == 0
        assert 'done before' not in capsys.readouterr().err
    for file in short.rglob('*.mcap'):
        os.utime(file, ns=(1, 1))
    assert sweep(short, folder) == 0
    assert 'done before' not in capsys.readouterr().err


def test_code_that_changed_starts_anew(
    short: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from segnode.evaluation.sweep import origin

    folder = tmp_path / 'out'
    assert sweep(short, folder) == 0
    monkeypatch.setattr(origin, 'code_sha256', lambda: 'another')
    assert sweep(short, folder) == 0
    assert 'done before' not in capsys.readouterr().err


def test_a_description_that_changed_starts_anew(
    short: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, model = tmp_path / 'base.yaml', tmp_path / 'own.yaml'
    weights = DEMO_MODEL.with_suffix('.safetensors')
    text = DEMO_MODEL.read_text().replace(f'WEIGHTS: {weights.name}', f'WEIGHTS: {weights}')
    model.write_text('_BASE_: base.yaml\n')
    for changed in (text, text.replace('- 110.0', '- 111.0')):
        # Neither a path nor the weights tell of it.
        base.write_text(changed)
        vary = ('--vary', 'score_threshold=0.1,0.5', '--short-side', '32', *NULL[2:])
        given = ('--model', str(model), *vary, '--output', str(tmp_path / 'out'))
        assert main(['sweep', str(short), *given]) == 0
        assert 'done before' not in capsys.readouterr().err


def test_class_names_that_changed_start_anew(
    short: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, names = tmp_path / 'out', tmp_path / 'names.txt'
    for classes, done in (('cone\nball', False), ('cone\nball', True), ('ball\ncone', False)):
        names.write_text(classes)
        assert sweep(short, folder, '--class-names', str(names)) == 0
        assert ('4 of 4 rows were done before' in capsys.readouterr().err) == done


def test_label_images_are_the_truth_and_no_frames(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / 'bag', scene_frames(3, IMAGE_HW), labels=True)
    given = (
        '--label-topic', '/truth/instance_mask', '--device', 'cpu', '--short-side', '120',
    )  # fmt: skip
    vary = ('--vary', 'score_threshold=0.3,0.6', '--latency-frames', '2')
    folder, own = tmp_path / 'out', tmp_path / 'own'
    assert main(['sweep', str(bag), *given, *vary, '--output', str(folder)]) == 0
    rows = json.loads((folder / 'sweep.json').read_text())['rows']
    only = ('--score-threshold', '0.6', '--no-bag', '--output', str(own))
    assert main(['evaluate', str(bag), *given, *only]) == 0
    summary = json.loads((own / 'summary.json').read_text())
    assert rows[1]['derived']
    assert (rows[1]['frames'], rows[1]['skipped']) == (3, {})
    assert rows[1]['mask_ap'] == summary['mask_ap'] > 0


def test_runs_that_are_gone_are_made_again_where_agreement_needs_them(
    short: Path, tmp_path: Path
) -> None:
    folder = tmp_path / 'out'
    assert sweep(short, folder) == 0
    table, before = (folder / 'sweep.csv').read_bytes(), stamped(folder, 'timings/*')
    for name in ('runs', 'agreements'):
        shutil.rmtree(folder / name)
    assert sweep(short, folder) == 0
    assert (folder / 'sweep.csv').read_bytes() == table
    assert stamped(folder, 'timings/*') == before
    assert len(list((folder / 'runs').iterdir())) == 2


@pytest.mark.parametrize(('most', 'runs'), [(3, 2), (100, 1)])
def test_a_choice_of_classes_is_derived_below_the_cut_and_else_run(
    short: Path, tmp_path: Path, most: int, runs: int
) -> None:
    folder, name = tmp_path / 'out', 'class_1'
    vary = ('--vary', f'classes=,{name}', '--max-instances', str(most), '--short-side', '32')
    assert main(['sweep', str(short), *vary, *NULL, '--output', str(folder)]) == 0
    assert len(list((folder / 'runs').iterdir())) == runs
    _, row = json.loads((folder / 'sweep.json').read_text())['rows']
    assert row['derived'] == (runs == 1)
    own = ('--classes', name, *vary[2:], *NULL[:4], '--no-bag', '--output', str(tmp_path / 'own'))
    assert main(['evaluate', str(short), *own]) == 0
    entries = list(read_results(tmp_path / 'own' / 'results.json'))
    assert row['instances'] == len(entries) > 0


def sessions(folder: Path) -> list[str]:
    return [row['session'] for row in json.loads((folder / 'sweep.json').read_text())['rows']]


def test_timing_that_was_broken_off_begins_anew(
    short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from segnode.evaluation.sweep import latency

    folder, turn_ms, turns = tmp_path / 'out', latency._turn_ms, []

    def counted(*args: Any) -> list[float]:
        if len(turns) == 2:
            raise KeyboardInterrupt
        turns.append(args)
        return turn_ms(*args)

    with monkeypatch.context() as patch:
        patch.setattr(latency, '_turn_ms', counted)
        assert sweep(short, folder) == 130
    runs = stamped(folder, 'runs/*/*')
    assert len(turns) == 2
    assert not list(folder.glob('rows/*'))
    assert sweep(short, folder) == 0
    assert len(set(sessions(folder))) == 1
    assert stamped(folder, 'runs/*/*') == runs


def test_ctrl_c_says_how_to_go_on(
    short: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from segnode.evaluation.sweep import latency

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(latency, 'measure', interrupt)
        assert sweep(short, tmp_path / 'out') == 130
    assert 'stay; the same command goes on from here' in capsys.readouterr().err
    assert sweep(short, tmp_path / 'out') == 0


def test_a_row_that_fails_is_told_and_the_others_stay(
    short: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from segnode.engine import Engine
    from segnode.errors import OutOfMemoryError

    segment = Engine.segment

    def without_memory(self: Engine, *args: Any, **more: Any) -> Any:
        if self.settings.short_side == 48:
            raise OutOfMemoryError('no memory')
        return segment(self, *args, **more)

    monkeypatch.setattr(Engine, 'segment', without_memory)
    assert sweep(short, tmp_path / 'out') == 1
    report = json.loads((tmp_path / 'out' / 'sweep.json').read_text())
    assert [row['failed'] is None for row in report['rows']] == [True, False, True, False]
    assert report['recommended'] is not None
    assert 'short_side=48 failed: ' in capsys.readouterr().err
    runs = stamped(tmp_path / 'out', 'runs/*/*')
    monkeypatch.setattr(Engine, 'segment', segment)
    assert sweep(short, tmp_path / 'out') == 0
    assert 'all rows are timed anew, in turns' in capsys.readouterr().err
    assert len(set(sessions(tmp_path / 'out'))) == 1
    done = {k: v for k, v in runs.items() if v == stamped(tmp_path / 'out', 'runs/*/*')[k]}
    assert len({Path(name).parent for name in done}) == 1


def test_a_ground_truth_of_others_is_told_of_after_one_run(
    recorded: Path, short: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, truth = tmp_path / 'out', recorded / 'instances.json'
    assert sweep(short, folder, '--annotations', str(truth)) == 1
    assert len(list((folder / 'runs').iterdir())) == 1
    dataset = json.loads(truth.read_text())
    for image in dataset['images']:
        image |= {'height': 48, 'width': 64}
    own = tmp_path / 'own.json'
    own.write_text(json.dumps(dataset))
    capsys.readouterr()
    assert sweep(short, folder, '--annotations', str(own)) == 1
    (line,) = [x for x in capsys.readouterr().err.splitlines() if 'error: ' in x]
    assert 'none of the classes of the model' in line
    assert len(list((folder / 'runs').iterdir())) == 1


def test_engines_are_timed_apart_and_one_that_is_missing_stops_no_other(
    short: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / 'out'
    vary = ('--vary', 'model=null,nowhere.yaml,null:100', '--vary', 'short_side=32,48')
    arguments = [str(short), *vary, *NULL[2:], '--budget-ms', '99', '--output', str(folder)]
    assert main(['sweep', *arguments]) == 1
    rows = json.loads((folder / 'sweep.json').read_text())['rows']
    assert [row['failed'] is None for row in rows] == [True, True, False, False, True, True]
    assert all('nowhere.yaml' in row['failed'] for row in rows[2:4])
    assert all(row['latency_ms']['min'] >= 100 for row in rows[4:])
    own = yaml.safe_load((folder / 'params.yaml').read_text())['/**']['ros__parameters']
    assert own['model'] == 'null'
    said = capsys.readouterr().out
    assert said.count('failed') == 3
    # No turns were taken between engines, and nothing says so.
    assert [row['engine'] for row in rows[::2]] == [
        'null, none on cpu', None, 'null:100, none on cpu'
    ]  # fmt: skip
    first, missing, last = (row['session'] for row in rows[::2])
    assert missing is None
    assert first != last
    assert [line.split()[-1] for line in said.splitlines()[:7]] == [
        'session', '1', '1', '-', '-', '2', '2'
    ]  # fmt: skip
    assert f'1: null, none on cpu, {first}; 2: null:100, none on cpu, {last}' in said
    assert 'engines one after the other' in said
    with (folder / 'sweep.csv').open(newline='') as stream:
        assert [line['session'] for line in csv.DictReader(stream)] == [
            first, first, '', '', last, last
        ]  # fmt: skip


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        ('', '--vary'),
        ('--vary short_sid=3', 'did you mean resolution.short_side?'),
        ('--vary short_side=32 --short-side 48', 'as an option and in --vary'),
        ('--vary short_side=32 --metric mask_ap', 'expected --annotations or --label-topic'),
        ('--vary short_side=32 --budget-ms 0', 'expected more than 0'),
        ('--vary short_side=32 --budget-ms nan', 'expected more than 0'),
        ('--vary short_side=32 --latency-frames 0', 'expected 1 or more'),
        ('--vary classes=unicorn', 'filter.classes: expected names of the model'),
        ('--vary short_side=32 --topic /no', '/no'),
    ],
)
def test_wrong_use_is_one_line(
    short: Path, options: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / 'out'
    code = main(['sweep', str(short), *NULL, *options.split(), '--output', str(out)])
    assert code in (1, 2)
    (line,) = [x for x in capsys.readouterr().err.splitlines() if 'error: ' in x]
    assert expected in line


def test_a_bag_is_no_output(short: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = stamped(short, '*')
    for output in (short, short / 'sweep'):
        assert sweep(short, output) == 2
        assert 'expected a' in capsys.readouterr().err
    assert stamped(short, '*') == before
