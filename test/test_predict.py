# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""``segnode predict`` on rendered scenes, on real photographs and on bad input."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
from pycocotools import mask as coco_mask

from segnode.__main__ import main
from segnode.config import Config
from segnode.demo.scene import CLASS_NAMES, DEMO_SEEDS, Scene, coco_annotations
from segnode.engine import Engine
from segnode.errors import DeviceError, ImageError, OutOfMemoryError
from segnode.image import Image
from segnode.picture_files import find_images, read_image

SMALL = ('--short-side', '160', '--device', 'cpu')
TINY = ('--short-side', '96', '--device', 'cpu')


@pytest.fixture(scope='module')
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with three frames, their annotations, and a file that is no image."""
    folder = tmp_path_factory.mktemp('scene')
    frames = list(Scene(DEMO_SEEDS[5], (240, 320)).frames(3))
    dataset = coco_annotations(frames)
    for item, frame in zip(dataset['images'], frames, strict=True):
        item['file_name'] = f'{item["id"]:06d}.png'
        item['id'] += 100
        cv2.imwrite(str(folder / item['file_name']), frame.image)
    for item in dataset['annotations']:
        item['image_id'] += 100
        item['category_id'] += 40
    for item in dataset['categories']:
        item['id'] += 40
    (folder / 'instances.json').write_text(json.dumps(dataset))
    return folder


def predict(tmp_path: Path, *args: object) -> tuple[int, Any]:
    target = tmp_path / 'out.json'
    target.unlink(missing_ok=True)
    code = main(['predict', '--json', str(target), *SMALL, *map(str, args)])
    return code, json.loads(target.read_text()) if target.exists() else None


def test_results_are_the_engines(
    scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, results = predict(tmp_path, scene)
    assert code == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1].startswith('predict: images=3 ')
    assert 'skipped 1 files that are no images (instances.json)' in captured.err
    wanted = {'device': 'cpu', 'resolution.short_side': 160, 'precision': 'fp32'}
    config = Config().replace(wanted)
    engine = Engine(config)
    expected = []
    for image_id, path in enumerate(sorted(scene.glob('*.png'))):
        (prediction,) = engine.predict([read_image(path)])
        boxes = prediction.detections.boxes_xyxy.astype(float)
        for k in range(len(prediction.detections)):
            x0, y0, x1, y1 = boxes[k]
            class_id = int(prediction.detections.class_ids[k])
            expected.append(
                {
                    'image_id': image_id,
                    'file_name': path.name,
                    'category_id': class_id,
                    'category_name': CLASS_NAMES[class_id],
                    'bbox': pytest.approx([x0, y0, x1 - x0, y1 - y0], abs=1e-4),
                    'score': pytest.approx(float(prediction.detections.scores[k])),
                    'area': int(prediction.detections.mask_areas[k]),
                    'segmentation': prediction.rle(k),
                }
            )
            decoded = coco_mask.decode(results[len(expected) - 1]['segmentation'])
            assert np.array_equal(decoded.astype(bool), prediction.mask(k))
    assert len(expected) >= 6
    assert results == expected
    for image_id in range(3):
        scores = [r['score'] for r in results if r['image_id'] == image_id]
        assert scores == sorted(scores, reverse=True)


def test_annotations_give_ids_and_scores(scene: Path, tmp_path: Path) -> None:
    code, report = predict(tmp_path, scene, '--annotations', scene / 'instances.json')
    assert code == 0
    assert set(report) == {
        'results', 'box_ap', 'box_ap50', 'mask_ap', 'mask_ap50', 'images', 'milliseconds_p50'
    }  # fmt: skip
    assert {r['image_id'] for r in report['results']} == {100, 101, 102}
    for result in report['results']:
        assert result['category_id'] == CLASS_NAMES.index(result['category_name']) + 40
    assert report['images'] == 3
    assert report['milliseconds_p50'] > 0
    assert 0.2 < report['mask_ap'] <= report['mask_ap50'] <= 1


def test_only_the_images_given_are_scored(
    scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / 'other.png'
    cv2.imwrite(str(other), np.full((100, 100, 3), 90, np.uint8))
    first = scene / '000000.png'
    code, report = predict(tmp_path, first, other, '--annotations', scene / 'instances.json')
    assert code == 0
    assert report['images'] == 1
    assert {r['image_id'] for r in report['results']} == {100}
    err = capsys.readouterr().err
    assert 'left out 1 images without annotations (other.png)' in err
    assert 'scored on the 1 images given of 3 annotated' in err


def test_bad_images_are_counted_and_the_others_done(
    scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty, noise, cut = (tmp_path / f'{name}.png' for name in ('empty', 'noise', 'cut'))
    empty.write_bytes(b'')
    noise.write_bytes(bytes(range(256)) * 8)
    cut.write_bytes((scene / '000000.png').read_bytes()[:5000])
    good, missing = scene / '000001.png', tmp_path / 'missing.png'
    code, results = predict(tmp_path, empty, noise, good, cut, missing)
    assert code == 1
    assert {r['image_id'] for r in results} == {2}
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith('segnode: error: ')]
    assert len(lines) == 4
    for path, line in zip((empty, noise, cut, missing), lines, strict=True):
        assert str(path) in line
    assert 'Traceback' not in captured.err
    assert 'images=1 ' in captured.out.splitlines()[-1]
    assert 'failed=4 ' in captured.out.splitlines()[-1]


def test_an_annotated_image_that_cannot_be_read_counts_as_missed(
    scene: Path, tmp_path: Path
) -> None:
    folder = tmp_path / 'images'
    folder.mkdir()
    (folder / '000000.png').write_bytes((scene / '000000.png').read_bytes())
    (folder / '000001.png').write_bytes(b'nothing')
    cv2.imwrite(str(folder / '000002.png'), np.zeros((50, 50, 3), np.uint8))
    alone = predict(tmp_path, folder / '000000.png', '--annotations', scene / 'instances.json')[1]
    code, report = predict(tmp_path, folder, '--annotations', scene / 'instances.json')
    assert code == 1
    assert report['images'] == 3
    assert report['mask_ap'] < alone['mask_ap']


def test_no_detections_at_all(scene: Path, tmp_path: Path) -> None:
    path = scene / '000000.png'
    assert predict(tmp_path, path, '--score-threshold', '1') == (0, [])
    code, report = predict(
        tmp_path, path, '--score-threshold', '1', '--annotations', scene / 'instances.json'
    )
    assert code == 0
    assert report['results'] == []
    assert report['box_ap'] == report['mask_ap'] == 0


def test_thresholds_and_filters_reach_the_engine(scene: Path, tmp_path: Path) -> None:
    path = scene / '000000.png'
    everything = predict(tmp_path, path)[1]
    confident = predict(tmp_path, path, '--score-threshold', '0.5')[1]
    assert confident == [r for r in everything if r['score'] > 0.5]
    assert len(predict(tmp_path, path, '--max-instances', '2')[1]) == 2
    limit = sorted(r['area'] for r in everything)[len(everything) // 2]
    large = predict(tmp_path, path, '--min-mask-area', limit)[1]
    assert large == [r for r in everything if r['area'] >= limit]


def test_overlays(scene: Path, tmp_path: Path) -> None:
    folder, twin = tmp_path / 'new' / 'overlays', tmp_path / '000000.png'
    twin.write_bytes((scene / '000000.png').read_bytes())
    code, _ = predict(tmp_path, scene, twin, '--overlay', folder)
    assert code == 0
    names = sorted(path.name for path in folder.iterdir())
    assert names == ['000000.jpg', '000000_2.jpg', '000001.jpg', '000002.jpg']
    for name in names:
        drawn = cv2.imread(str(folder / name))
        assert drawn.shape == (240, 320, 3)
        plain = cv2.imread(str(scene / f'{name[:6]}.png'))
        assert np.abs(drawn.astype(int) - plain).mean() > 2


@pytest.mark.parametrize(
    ('args', 'code', 'expected'),
    [
        (['{scene}', '--model', 'no_such_model'], 2, 'no_such_model'),
        (['{scene}', '--weights', '{scene}/instances.json'], 1, 'instances.json'),
        (['{scene}', '--device', 'toaster'], 2, 'toaster'),
        (['{scene}', '--classes', 'unicorn'], 2, 'unicorn'),
        (['{empty}'], 1, 'found none'),
        (['{scene}', '--annotations', '{scene}/000000.png'], 1, 'expected JSON'),
        (['{scene}', '--annotations', '{empty}'], 1, 'cannot be read'),
        (['{scene}', '--annotations', '{strange}'], 1, 'none of the classes'),
        (
            ['{scene}', '--overlay', '{scene}/000000.png'],
            2,
            'expected a folder to write, found a file',
        ),
    ],
)
def test_hopeless_input_is_one_line(
    args: list[str],
    code: int,
    expected: str,
    scene: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    empty, strange = tmp_path / 'empty', tmp_path / 'strange.json'
    empty.mkdir()
    dataset = json.loads((scene / 'instances.json').read_text())
    dataset['categories'] = [c | {'name': f'odd {c["id"]}'} for c in dataset['categories']]
    strange.write_text(json.dumps(dataset))
    filled = [arg.format(scene=scene, empty=empty, strange=strange) for arg in args]
    assert main(['predict', *SMALL, *filled]) == code
    err = capsys.readouterr().err
    errors = [line for line in err.splitlines() if 'error' in line]
    assert len(errors) == 1
    assert errors[0].startswith('segnode: error: ')
    assert expected in errors[0]
    assert 'Traceback' not in err


def test_files_are_taken_in_order(tmp_path: Path) -> None:
    folder = tmp_path / 'folder'
    (folder / 'below').mkdir(parents=True)
    for name in ('b.JPG', 'a.png', 'c.txt', '.hidden', 'below/d.png'):
        (folder / name).touch()
    found = find_images([tmp_path / 'z.png', folder])
    assert [path.name for path in found] == ['z.png', 'a.png', 'b.JPG']
    with pytest.raises(ImageError):
        find_images([folder / 'below' / 'none'][:0])


def failing_engine(
    monkeypatch: pytest.MonkeyPatch, errors: Sequence[BaseException | None]
) -> None:
    """Let the engine raise these on its first images, in turn."""
    predict_image, left = Engine.predict, list(errors)

    def fail(engine: Engine, images: Sequence[Image]) -> Any:
        error = left.pop(0) if left else None
        if error is not None:
            raise error
        return predict_image(engine, images)

    monkeypatch.setattr(Engine, 'predict', fail)


@pytest.mark.parametrize(
    'error',
    [
        OutOfMemoryError('cpu ran out of memory'),
        DeviceError('it broke'),
        MemoryError(),
        RuntimeError('CUDA error: an illegal memory access was encountered'),
        ValueError('a shape'),
        OSError(5, 'Input/output error'),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_image_that_fails_in_the_engine_is_named_and_the_others_done(
    error: BaseException,
    scene: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    failing_engine(monkeypatch, [None, error])
    target = tmp_path / 'out.json'
    try:
        code = main(['predict', str(scene), '--json', str(target), *TINY])
    except Exception:  # noqa: BLE001 - whatever escapes is what is tested
        code = -1
    assert target.exists(), 'what was finished is lost'
    assert {r['image_id'] for r in json.loads(target.read_text())} == {0, 2}
    assert code == 1
    captured = capsys.readouterr()
    (line,) = [line for line in captured.err.splitlines() if 'error' in line]
    assert line.startswith(f'segnode: error: {scene / "000001.png"}: ')
    assert 'images=2 ' in captured.out.splitlines()[-1]
    assert 'failed=1 ' in captured.out.splitlines()[-1]


def test_ten_failures_alike_end_the_run(
    scene: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    failing_engine(monkeypatch, [None] + [DeviceError('the device is gone')] * 100)
    target, images = tmp_path / 'out.json', [str(scene / '000000.png')] * 15
    code = main(['predict', *images, '--json', str(target), *TINY])
    err = capsys.readouterr().err
    assert err.count('the device is gone') == 10
    assert 'stopped, as 10 images in a row failed alike; 4 are left' in err
    assert {r['image_id'] for r in json.loads(target.read_text())} == {0}
    assert code == 1


def test_exhausted_memory_never_ends_the_run(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_engine(monkeypatch, [OutOfMemoryError('cpu ran out of memory')] * 12)
    target, images = tmp_path / 'out.json', [str(scene / '000000.png')] * 13
    assert main(['predict', *images, '--json', str(target), *TINY]) == 1
    assert target.exists(), 'what was finished is lost'
    assert {r['image_id'] for r in json.loads(target.read_text())} == {12}


@pytest.mark.parametrize('annotated', [False, True])
def test_ctrl_c_keeps_what_is_finished(
    annotated: bool,
    scene: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    failing_engine(monkeypatch, [None, KeyboardInterrupt()])
    target = tmp_path / 'out.json'
    more = ['--annotations', str(scene / 'instances.json')] if annotated else []
    code = main(['predict', str(scene), '--json', str(target), *TINY, *more])
    assert code == 130
    assert target.exists(), 'what was finished is lost'
    report = json.loads(target.read_text())
    assert {r['file_name'] for r in (report['results'] if annotated else report)} == {'000000.png'}
    if annotated:
        assert report['images'] == 1
    assert 'interrupted: 1 of 3 images are done' in capsys.readouterr().err


def test_an_overlay_that_cannot_be_written_is_named_and_the_others_are(
    scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The second one's number makes its name longer than a file system takes.
    name = 'x' * 250 + '.png'
    given = [tmp_path / 'a' / name, tmp_path / 'b' / name, tmp_path / 'b' / '2.png']
    for path in given:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes((scene / '000000.png').read_bytes())
    folder = tmp_path / 'overlays'
    code, results = predict(tmp_path, *TINY, *given, '--overlay', folder)
    assert code == 1
    assert results is not None, 'what was finished is lost'
    assert {r['image_id'] for r in results} == {0, 1, 2}
    err = capsys.readouterr().err
    (line,) = [line for line in err.splitlines() if 'error' in line]
    assert line.startswith(f'segnode: error: {given[1]}: ')
    assert sorted(path.name for path in folder.iterdir()) == ['2.jpg', 'x' * 250 + '.jpg']


def test_a_full_disk_ends_overlays_and_nothing_else(
    scene: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if path.parent.name == 'overlays':
            raise OSError(28, 'No space left on device')
        return write(path, data)

    monkeypatch.setattr(Path, 'write_bytes', full)
    images = [scene / '000000.png'] * 12
    code, results = predict(tmp_path, *TINY, *images, '--overlay', tmp_path / 'overlays')
    assert code == 1
    assert results is not None, 'what was finished is lost'
    assert {r['image_id'] for r in results} == set(range(12))
    err = capsys.readouterr().err
    assert err.count('cannot be written (No space left on device)') == 10
    assert 'no more overlays' in err


def test_images_of_one_name_stay_apart(
    scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [tmp_path / name for name in ('a/1.png', 'b/1.png', 'b/2.png')]
    for path in given:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes((scene / '000000.png').read_bytes())
    results = predict(tmp_path, *TINY, given[0], tmp_path / 'b')[1]
    names = {r['image_id']: r['file_name'] for r in results}
    assert names == {0: 'a/1.png', 1: 'b/1.png', 2: '2.png'}
    assert 'more than once' not in capsys.readouterr().err
    results = predict(tmp_path, *TINY, given[1], tmp_path / 'b' / '..' / 'b' / '1.png')[1]
    assert {r['file_name'] for r in results} == {'1.png'}
    assert '1 images are given more than once' in capsys.readouterr().err


def test_what_a_folder_holds_besides_images_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / 'folder'
    (folder / 'below').mkdir(parents=True)
    (folder / 'gone.png').symlink_to(tmp_path / 'nothing')
    (folder / 'notes.txt').touch()
    assert main(['predict', str(folder), *TINY]) == 1
    photo = np.full((40, 60, 3), 90, np.uint8)
    for name in ('a.jpg', 'b.png', 'c.ppm'):
        cv2.imwrite(str(folder / name), photo)
    (folder / 'a.jpg').rename(folder / 'a.jfif')
    (folder / 'c.ppm').rename(folder / 'c.PNM')
    capsys.readouterr()
    assert main(['predict', str(folder), *TINY]) == 0
    captured = capsys.readouterr()
    assert 'images=3 ' in captured.out.splitlines()[-1]
    (line,) = [line for line in captured.err.splitlines() if 'skipped' in line]
    for part in (
        '1 subfolders (below)', '1 broken links (gone.png)',
        '1 files that are no images (notes.txt)',
    ):  # fmt: skip
        assert part in line


def test_pictures_that_come_out_dark_or_in_part_are_spoken_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / 'pictures'
    folder.mkdir()
    rng = np.random.default_rng(1)
    shape = (40, 60)
    dark = rng.integers(0, 901, shape).astype(np.uint16)
    dark[0, :2] = 0, 900
    cv2.imwrite(str(folder / 'grey.png'), dark)
    cv2.imwrite(str(folder / 'grey2.png'), dark)
    cv2.imwrite(str(folder / 'colour.png'), rng.integers(0, 4096, (*shape, 3)).astype(np.uint16))
    cv2.imwrite(str(folder / 'good.png'), rng.integers(0, 65536, shape).astype(np.uint16))
    cv2.imwrite(str(folder / 'flat.png'), rng.integers(30000, 31000, shape).astype(np.uint16))
    big = PIL.Image.frombytes('I;16B', shape[::-1], dark.astype('>u2').tobytes())
    big.save(folder / 'big_endian.tiff')
    pages = [PIL.Image.fromarray(rng.integers(0, 256, shape, np.uint8)) for _ in range(3)]
    pages[0].save(folder / 'pages.tiff', save_all=True, append_images=pages[1:])
    fractions = rng.random(shape).astype(np.float32)
    fractions[0, :2] = 0, 1
    PIL.Image.fromarray(fractions).save(folder / 'fractions.tiff')
    PIL.Image.fromarray(fractions * 255).save(folder / 'fractions255.tiff')
    PIL.Image.fromarray(fractions * 65535).save(folder / 'fractions65535.tiff')
    PIL.Image.fromarray(rng.integers(0, 200, (*shape, 4), np.uint8)).save(folder / 'alpha.png')
    code = main(['predict', str(folder), *TINY])
    err = capsys.readouterr().err
    dark_grey = '16-bit grey, values 0 to 900 of 65535: nearly black after // 256'
    assert f'big_endian.tiff: {dark_grey}' in err
    assert err.count(dark_grey) == 1
    assert 'dark 16-bit grey: 3 pictures in all' in err
    assert 'colour.png: 16-bit colour, values 0 to 4095 of 65535: nearly black' in err
    assert 'flat.png: 16-bit grey, values 30' in err
    assert 'pages.tiff: the first of 3 pages is taken' in err
    assert 'alpha.png: transparency is dropped' in err
    assert 'good.png' not in err
    for name, found in (('fractions', '0 to 1'), ('fractions65535', '0 to 65535')):
        path = folder / f'{name}.tiff'
        assert f'error: {path}: expected fractional values of 0 to 255, found {found}' in err
    assert 'fractions255' not in err
    assert code == 1


def test_class_names_without_a_font_are_told(
    scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Old Hungarian and Tulu-Tigalari: what has a font for both is not this machine.
    names = 'cone,ball,\U00010c80,\U00011380,box'
    code, _ = predict(
        tmp_path, *TINY, scene, '--overlay', tmp_path / 'out', '--class-names', names
    )
    assert code == 0
    lines = [x for x in capsys.readouterr().err.splitlines() if 'no font' in x]
    assert len(lines) == 1
    assert '\U00011380' in lines[0]
    assert 'cone' not in lines[0]


def test_real_photographs_score_as_published(shared: Path, tmp_path: Path) -> None:
    photos = shared / 'data' / 'coco_tiny_val'
    model = shared / 'data' / 'd2go_mask_rcnn' / 'model.yaml'
    target = tmp_path / 'out.json'
    code = main(
        ['predict', str(photos / 'images'), '--annotations', str(photos / 'instances.json'),
         '--model', str(model), '--json', str(target)]
    )  # fmt: skip
    report = json.loads(target.read_text())
    assert code == 0
    assert report['images'] == 80
    assert len(report['results']) == pytest.approx(1223, abs=10)
    assert report['box_ap'] == pytest.approx(0.278, abs=0.003)
    assert report['box_ap50'] == pytest.approx(0.427, abs=0.005)
    assert report['mask_ap'] == pytest.approx(0.256, abs=0.003)
    assert report['mask_ap50'] == pytest.approx(0.401, abs=0.005)
    persons = [r for r in report['results'] if r['category_name'] == 'person']
    assert {r['category_id'] for r in persons} == {1}
