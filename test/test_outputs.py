# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What the commands write, and that nothing of the user's is ever written to."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
from exported_models import TwoBoxes, script
from rendered_bag import write_bag

from segnode.__main__ import COMMANDS, main
from segnode.demo.processes import free_domain_id
from segnode.demo.scene import CLASS_NAMES, DEMO_SEEDS, Scene, coco_annotations
from segnode.demo.train import main as train

ROOT = Path(__file__).resolve().parents[1]
SMALL = ('--short-side', '96', '--device', 'cpu')
MODEL = '--model {config} --weights {weights} --class-names {names}'
READ = ('annotations', 'photo', 'config', 'weights', 'names', 'hard_link', 'soft_link', 'dotted')


@dataclass(frozen=True)
class Case:
    """A use of a command.

    Attributes:
        options: with what `given` has in braces.
        code: with which it ends.
        ros: it starts a node.
    """

    options: str
    code: int = 2
    ros: bool = False

    def __str__(self) -> str:
        return self.options.replace(' ', '_').replace('/', '|')


# Every command, aimed at the user's own files, and once at work. Only `{out}` is free to write
# to, and `{other}` is the user's, but may get more files.
CASES: dict[str, list[Case]] = {
    'predict': [
        Case('{photos} --overlay {photos}'),
        Case('{photos}/2.jpg --overlay {photos}/../photos'),
        Case('{photos}/2.jpg --overlay {linked_folder}'),
        Case('{photos}/1.png --overlay {photos}'),
        Case('{photos} --overlay {other} --json {out}/r.json', 0),
        *(
            Case(f'{{photos}}/1.png --annotations {{annotations}} {MODEL} --json {{{name}}}')
            for name in READ
        ),
        Case('{photos}/1.png --json {other}/results.json'),
        Case('{photos}/1.png --json {other}/1.jpg'),
    ],
    'evaluate': [
        Case('{drive} --output {drive}'),
        Case('{drive} --output {drive}/run'),
        Case('{drive} --output {folder}'),
        Case('{drive} --output {photos}'),
        Case('{drive} --output {other}'),
        Case('{drive} --output {out}/e --json {other}/results.json'),
        Case('{drive} --output {out} --json {out}/results.json'),
        Case('{drive} --output {photo}'),
        Case('{drive} --output /proc/m5'),
        *(
            Case(
                f'{{drive}} {MODEL} --output {{out}}/e --json {{{name}}} '
                '--annotations {annotations}'
            )
            for name in READ
        ),
        # None of the annotations says which frame it is.
        Case('{drive} --model null --device cpu --output {out}/e --annotations {annotations}', 1),
        Case('{drive} --model null --device cpu --output {out}/e --json {out}/e.json', 0),
    ],
    'convert': [
        Case('{photos} {photos}'),
        Case('{photos}/1.png {other}'),
        Case('{photos} {photo}'),
        *(
            Case(f'{{photos}} --annotations {{annotations}} {{out}}/bag --json {{{name}}}')
            for name in ('annotations', 'photo', 'hard_link', 'soft_link', 'dotted')
        ),
        Case('{photos} {out}/bag --json {out}/bag/instances.json'),
        Case('{photos} {out} --json {out}/bag.mcap'),
        Case('{photos} --annotations {annotations} {out}/bag --json {out}/c.json', 0),
    ],
    'benchmark': [
        *(
            Case(f'{MODEL} --shapes 64x64 {option} {{{name}}}')
            for option in ('--json', '--plot')
            for name in ('config', 'weights', 'names', 'photo')
        ),
        Case('--shapes 64x64 --plot {other}/1.jpg'),
        Case('--shapes 64x64 --plot {other}/plot.png'),
        Case('--shapes 64x64 --json {out}/b.json --plot {out}/b.json'),
        Case('--node --model null --json {photo}'),
        Case('--node --model {config} --json {config}'),
        Case('--shapes 64x64 --frames 1 --device cpu --json {out}/b.json', 0),
    ],
    'doctor': [
        *(Case(f'{MODEL} --json {{{name}}}') for name in ('config', 'weights', 'names', 'photo')),
    ],
    'demo': [
        *(
            Case(f'--images {{photos}} --annotations {{annotations}} --json {{{name}}}')
            for name in ('annotations', 'photo')
        ),
        Case('--frames 1 --output {photos}'),
        Case('--frames 1 --output {other}'),
        Case('--frames 1 --output {out} --json {out}/camera.json'),
        Case('--images {photos} --output {photos}'),
        # Weights that are none end it as soon as the node has started.
        Case('--images {photos} --output {out}/demo --weights {names}', 1, ros=True),
    ],
    'soak': [
        *(
            Case(f'--seconds 5 {MODEL} --json {{{name}}}')
            for name in ('config', 'weights', 'names', 'photo')
        ),
        Case('--seconds 5 --output {photos}'),
        Case('--seconds 5 --output {out} --json {out}/node-0.log'),
        # Weights that are none end it as soon as the node has started.
        Case('--seconds 5 --output {out}/soak --faults --weights {names}', 1, ros=True),
    ],
    'sweep': [
        Case('{drive} --vary short_side=64 --output {drive}'),
        Case('{drive} --vary short_side=64 --output {drive}/sweep'),
        Case('{drive} --vary short_side=64 --output {photos}'),
        Case('{drive} --vary short_side=64 --output {other}'),
        *(
            Case(
                f'{{drive}} {MODEL} --vary short_side=64 --output {{out}}/s --json {{{name}}} '
                '--annotations {annotations}'
            )
            for name in READ
        ),
        Case('{drive} --vary short_side=64 --output {out}/s --json {other}/results.json'),
        Case('{drive} --vary short_side=64 --output {out} --json {out}/sweep.csv'),
        Case('{drive} --vary short_side=64 --output {photo}'),
        Case('{drive} --vary short_side=64 --output /proc/m5'),
        Case(
            '{drive} --model null --device cpu --vary short_side=64 --output {out}/s '
            '--json {out}/s.json',
            0,
        ),
    ],
    'describe': [
        Case('{program} --labels index --output {program}'),
        Case('{program} --labels index --output {other}/1.jpg'),
        Case('{program} --class-names {names} --image {photo} --output {photo}'),
        Case('{program} --class-names {names} --output {out}/d.yaml --json {names}'),
        Case('{program} --class-names {names} --output {out}/d.yaml --json {program}'),
        Case('{program} --class-names {names} --output {out}/d.yaml --json {out}/d.yaml'),
        # The file beside the program, where it would go by itself, is the user's.
        Case('{program} --class-names {names}'),
        Case('{program} --class-names a,b --output {out}/d.yaml --json {out}/d.json', 0),
    ],
    'export': [
        Case('--format onnx --output {other}'),
        Case('--format onnx --output {photos}'),
        Case('--format onnx --output {out}/e --json {photo}'),
        Case('--format onnx --output {out}/e --json {other}/results.json'),
        Case('--format onnx --output {out} --json {out}/manifest.json'),
        Case('--format onnx --output {photo}'),
        Case('--format onnx --output /proc/m5'),
        Case('--format onnx --output {out}/e --json {out}/e.json', 0),
    ],
    'models': [
        Case('r50 --json {other}/results.json'),
        Case('r50 --json {photo}'),
        Case('nothing-like-it --json {out}/m.json'),
        Case('maskrcnn_resnet50_fpn_v2 --size 64x64 --json {out}/m.json', 0),
    ],
    'fetch': [
        Case('--list --json {other}/results.json'),
        Case('mask_rcnn_R_50_FPN_3x --json {photo}'),
        Case('--list --json {out}/f.json', 0),
    ],
    'node': [
        Case('--ros-args -p model:={config} -p weights:={names} -p device:=cpu', ros=True),
        Case('--sros2-policy {annotations} --ros-args -p model:={config}', ros=True),
        Case('--sros2-policy {out}/policy.xml --ros-args -p model:={config}', 0, ros=True),
    ],
}


@pytest.fixture(scope='module')
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with all kinds of files that a user gives."""
    folder = tmp_path_factory.mktemp('source')
    for name in ('photos', 'other/frames', 'out'):
        (folder / name).mkdir(parents=True)
    frames = list(Scene(DEMO_SEEDS[5], (96, 128)).frames(2))
    dataset = coco_annotations(frames)
    for item, name, frame in zip(dataset['images'], ('1.png', '2.jpg'), frames, strict=True):
        item['file_name'] = name
        cv2.imwrite(str(folder / 'photos' / name), frame.image)
    for path in ('1.jpg', 'plot.png', 'overlay.png', 'frames/000000.png'):
        cv2.imwrite(str(folder / 'other' / path), np.full((9, 9, 3), 90, np.uint8))
    (folder / 'annotations.json').write_text(json.dumps(dataset))
    (folder / 'other' / 'results.json').write_text('[{"image_id": 1, "category_id": 1}]')
    (folder / 'names.txt').write_text('\n'.join(CLASS_NAMES))
    write_bag(folder / 'drive', frames)
    demo = ROOT / 'segnode' / 'demo' / 'mask_rcnn_demo.yaml'
    shutil.copy(demo, folder / 'config.yaml')
    shutil.copy(demo.with_suffix('.safetensors'), folder / 'w.safetensors')
    script(TwoBoxes(), folder / 'export.pt')
    (folder / 'export.yaml').write_text('mine')
    return folder


@pytest.fixture
def given(source: Path, tmp_path: Path) -> dict[str, Path]:
    """Return the user's files by the names that `CASES` has for them."""
    folder = tmp_path / 'given'
    shutil.copytree(source, folder)
    os.link(folder / 'annotations.json', folder / 'hard.json')
    (folder / 'soft.json').symlink_to(folder / 'annotations.json')
    (folder / 'linked').symlink_to(folder / 'photos')
    return {
        'folder': folder,
        'photos': folder / 'photos',
        'photo': folder / 'photos' / '1.png',
        'other': folder / 'other',
        'drive': folder / 'drive',
        'out': folder / 'out',
        'annotations': folder / 'annotations.json',
        'hard_link': folder / 'hard.json',
        'soft_link': folder / 'soft.json',
        'dotted': folder / 'out' / '..' / 'annotations.json',
        'linked_folder': folder / 'linked',
        'config': folder / 'config.yaml',
        'weights': folder / 'w.safetensors',
        'names': folder / 'names.txt',
        'program': folder / 'export.pt',
    }


def contents(folder: Path) -> dict[str, str]:
    """Return the hash of every file in a folder, and where each link leads."""
    found = {}
    for path in sorted(folder.rglob('*')):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f'link to {path.readlink()}'
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def run(command: str, options: list[str]) -> int:
    if command == 'node':  # It owns its process.
        line = [sys.executable, '-m', 'segnode', command, *options]
        # Neither a robot nor another run of the tests shall see it.
        apart = {
            'ROS_DOMAIN_ID': str(free_domain_id()),
            'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
        }
        environment = os.environ | apart
        done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, timeout=120)
        return done.returncode
    return main([command, *options])


def test_every_command_has_a_case() -> None:
    assert set(CASES) == set(COMMANDS)


@pytest.mark.parametrize(
    ('command', 'case'),
    [
        pytest.param(name, case, id=f'{name} {case}', marks=[pytest.mark.ros] * case.ros)
        for name, cases in CASES.items()
        for case in cases
    ],
)
def test_nothing_of_the_users_is_written(
    command: str,
    case: Case,
    given: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    before = contents(given['folder'])
    code = run(command, case.options.format(**given).split())
    after = contents(given['folder'])
    changed = [name for name, content in before.items() if after.get(name) != content]
    assert changed == []
    added = [name for name in after if name not in before]
    free = ('out/', 'other/') if case.code == 0 else ('out/',)
    assert [name for name in added if not name.startswith(free)] == []
    errors = [line for line in capfd.readouterr().err.splitlines() if 'error: ' in line]
    assert code == case.code, errors
    if code == 2:
        assert added == []
    if code == 2 and command != 'node':  # It logs.
        assert len(errors) == 1
        assert 'expected' in errors[0]


def test_what_is_refused_is_refused_before_the_model_is_loaded(
    given: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    monkeypatch.setattr('segnode.checkpoint.load_model', lambda *_: loaded.append(1))
    photo, annotations = str(given['photo']), str(given['annotations'])
    assert main(['predict', photo, '--annotations', annotations, '--json', annotations]) == 2
    assert loaded == []


def test_earlier_results_are_replaced(given: dict[str, Path]) -> None:
    out = given['out']
    options = [str(given['photos']), '--json', str(out / 'r.json'), '--overlay', str(out), *SMALL]
    # A list, a list of nothing, a score: all of them are results.
    for more in (['--score-threshold', '1'], ['--annotations', str(given['annotations'])], []):
        assert main(['predict', *options, *more]) == 0
    assert sorted(path.name for path in out.iterdir()) == ['1.jpg', '2.jpg', 'r.json']
    assert main(['predict', *options, '--model', 'nowhere']) == 2
    with PIL.Image.open(out / '1.jpg') as picture:
        assert picture.info.get('comment') == b'segnode'


def test_an_overlay_whose_name_is_taken_gets_the_same_number_again(
    given: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        code = main(['predict', str(given['photo']), '--overlay', str(given['other']), *SMALL])
        assert code == 0
        err = capsys.readouterr().err
        assert '1 pictures get a number, as their names are taken' in err
        assert '1.png in 1_2.jpg' in err
    pictures = sorted(path.name for path in given['other'].glob('1*'))
    assert pictures == ['1.jpg', '1_2.jpg']
    assert cv2.imread(str(given['other'] / '1_2.jpg')).shape == (96, 128, 3)


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let the system refuse files of more than a few bytes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_result_that_cannot_be_written_leaves_the_earlier_one(
    given: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    out = given['out']
    options = ['--json', str(out / 'r.json'), *SMALL]
    assert main(['predict', str(given['photos']), *options]) == 0
    before = contents(given['folder'])
    with file_size_limit(100):
        code = main(['predict', str(given['photos']), *options])
    assert contents(given['folder']) == before
    assert code == 1
    (line,) = [x for x in capsys.readouterr().err.splitlines() if 'error' in x]
    assert f'{out / "r.json"}: cannot be written' in line


def test_results_go_through_links_and_into_devices(
    given: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    link, target = given['out'] / 'link.json', given['out'] / 'target.json'
    link.symlink_to(target)
    for path in (link, Path('/dev/null')):
        assert main(['predict', str(given['photo']), '--json', str(path), *SMALL]) == 0
    assert link.is_symlink()
    assert json.loads(target.read_text())
    assert Path('/dev/null').is_char_device()


@pytest.mark.parametrize('suffix', ['png', 'svg', 'pdf'])
def test_an_earlier_plot_is_known_by_its_mark(suffix: str, tmp_path: Path) -> None:
    pytest.importorskip('matplotlib')
    from matplotlib.figure import Figure

    from segnode.benchmark.report import is_own_plot, plot

    own, other = tmp_path / f'own.{suffix}', tmp_path / f'other.{suffix}'
    plot(own, [], [])
    Figure().savefig(other)
    assert is_own_plot(own)
    assert not is_own_plot(other)


def test_training_takes_no_folder_of_the_users(
    given: dict[str, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []
    monkeypatch.setattr('segnode.demo.train.train', lambda run: started.append(run) or run.out)
    before = contents(given['folder'])
    with suppress(SystemExit):
        train(['--out', str(given['photos'])])
    assert started == []
    assert contents(given['folder']) == before
    for _ in range(2):  # The second finds what the first has begun.
        assert train(['--out', str(given['out'] / 'training')]) == 0
        (given['out'] / 'training' / 'log0.jsonl').touch()
    assert len(started) == 2
