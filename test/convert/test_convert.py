# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""``segnode convert`` as a person uses it: images and annotations in, a bag out, and back."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from rosbags.highlevel import AnyReader
from seeds import fresh_seeds

from segnode.__main__ import main
from segnode.bags.writer import BagWriter
from segnode.convert.frames import Clock
from segnode.demo.scene import DEMO_SEEDS, Scene, coco_annotations
from segnode.errors import ConfigError, OutputError
from segnode.evaluation.annotations import Annotations
from segnode.output_files import FOLDER_MARK

START_NS = 1_700_000_000 * 10**9


@pytest.fixture(scope='module')
def scene() -> tuple[list[Any], dict[str, Any]]:
    """Return frames and their annotations, which know more images than there are."""
    frames = list(Scene(DEMO_SEEDS[5], (96, 128)).frames(4))
    dataset = coco_annotations(frames)
    for k, item in enumerate(dataset['images']):
        item |= {'file_name': f'{k}.png', 'license': 7}
    return frames, dataset


@pytest.fixture
def photos(tmp_path: Path, scene: tuple[list[Any], dict[str, Any]]) -> Path:
    folder = tmp_path / 'photos'
    folder.mkdir()
    for k, frame in enumerate(scene[0][:3]):
        cv2.imwrite(str(folder / f'{k}.png'), frame.image)
    (tmp_path / 'instances.json').write_text(json.dumps(scene[1]))
    return folder


def messages(bag: Path) -> list[tuple[str, int, Any]]:
    """Return topic, log time and message of a bag in order."""
    with AnyReader([bag]) as reader:
        return [
            (connection.topic, ns, reader.deserialize(data, connection.msgtype))
            for connection, ns, data in reader.messages()
        ]


def stamp_ns(message: Any) -> int:
    return int(message.header.stamp.sec) * 10**9 + int(message.header.stamp.nanosec)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def run(*args: object) -> int:
    return main(['convert', *map(str, args)])


def test_files_go_in_as_they_are_at_a_steady_rate(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(photos, tmp_path / 'bag', '--json', tmp_path / 's.json') == 0
    found = messages(tmp_path / 'bag')
    assert [bytes(m.data) for *_, m in found] == [
        (photos / f'{k}.png').read_bytes() for k in range(3)
    ]
    assert {(topic, m.format, m.header.frame_id) for topic, _, m in found} == {
        ('/camera/image/compressed', 'png', 'camera')
    }
    expected = [START_NS + k * 10**8 for k in range(3)]
    assert [ns for _, ns, _ in found] == [stamp_ns(m) for *_, m in found] == expected
    size = (tmp_path / 'bag' / 'bag.mcap').stat().st_size
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f'convert: frames=3 topics=1 bytes={size} left_out=0'
    summary = json.loads((tmp_path / 's.json').read_text())
    assert (summary['frames'], summary['bytes'], summary['left_out']) == (3, size, {})
    assert (summary['first_ns'], summary['last_ns']) == (expected[0], expected[-1])


def test_all_of_a_message_can_be_chosen(photos: Path, tmp_path: Path) -> None:
    options = ['--raw', '--rate', '30000/1001', '--start-stamp', '1.000000005', '--frame-id', 'x']
    assert run(photos, *options, '--topic', '/a/b', tmp_path / 'bag') == 0
    found = messages(tmp_path / 'bag')
    assert [(topic, m.encoding, m.header.frame_id) for topic, _, m in found] == [
        ('/a/b', 'bgr8', 'x')
    ] * 3
    for k, (_, _, message) in enumerate(found):
        pixels = message.data.reshape(message.height, message.width, 3)
        np.testing.assert_array_equal(pixels, cv2.imread(str(photos / f'{k}.png')))
    assert [stamp_ns(m) for *_, m in found] == [1_000_000_005, 1_033_366_672, 1_066_733_338]


@pytest.mark.parametrize('seed', fresh_seeds(3))
def test_stamps_do_not_drift(seed: int) -> None:
    random = np.random.default_rng(seed)
    rate = Fraction(*(int(n) for n in random.integers(1, 10**5, 2)))
    start_ns = int(random.integers(1, 10**17))
    clock = Clock(start_ns, rate)
    for k in (0, 1, 7, 10**3 + int(random.integers(100))):
        exact = start_ns + Fraction(10**9 * k) / rate
        assert abs(clock.stamp_ns(k) - exact) <= Fraction(1, 2)


def test_stamps_end_where_those_of_ros_do() -> None:
    clock = Clock((2**31 - 1) * 10**9, Fraction(1))
    assert clock.stamp_ns(0) == (2**31 - 1) * 10**9
    with pytest.raises(ConfigError, match='2038'):
        clock.stamp_ns(1)


def test_a_bag_repeats_byte_for_byte_and_replaces_an_earlier_one(
    photos: Path, tmp_path: Path
) -> None:
    annotations = ['--annotations', tmp_path / 'instances.json']
    for bag in ('one', 'another'):
        assert run(photos, *annotations, tmp_path / bag) == 0
    first = contents(tmp_path / 'one')
    assert contents(tmp_path / 'another') == first
    assert set(first) == {'bag.mcap', 'metadata.yaml', 'instances.json', FOLDER_MARK}
    # Annotations of an earlier bag must not stay beside another.
    assert run(photos / '0.png', tmp_path / 'one') == 0
    assert set(contents(tmp_path / 'one')) == {'bag.mcap', 'metadata.yaml', FOLDER_MARK}


def test_annotations_go_along_as_they_were(
    photos: Path,
    tmp_path: Path,
    scene: tuple[list[Any], dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    cv2.imwrite(str(photos / '00.png'), np.zeros((96, 128, 3), np.uint8))
    bag = tmp_path / 'bag'
    assert run(photos, '--annotations', tmp_path / 'instances.json', bag, '--rate', 3) == 0
    text = capsys.readouterr().err
    assert 'left out 1 images without annotations (00.png)' in text
    assert '3 of the 4 images that are annotated are in the bag' in text
    found = json.loads((bag / 'instances.json').read_text())
    by_name = {item['file_name']: item for item in scene[1]['images']}
    # 0.png stands before 00.png.
    for item, number in zip(found['images'], (0, 2, 3), strict=True):
        topic, _, message = messages(bag)[number]
        known = by_name[item['file_name']]
        assert item == known | {
            'topic': topic,
            'frame': number,
            'stamp_ns': stamp_ns(message),
        }
        assert bytes(message.data) == (photos / item['file_name']).read_bytes()
    ids = {item['id'] for item in found['images']}
    assert found['annotations'] == [
        item for item in scene[1]['annotations'] if item['image_id'] in ids
    ]
    assert found['categories'] == scene[1]['categories']
    assert len(COCO(bag / 'instances.json').getAnnIds()) == len(found['annotations'])
    read = Annotations.read(bag / 'instances.json')
    assert len(read.instances) == len(found['annotations']) > 0


def test_annotations_in_any_form_of_id(
    photos: Path, tmp_path: Path, scene: tuple[list[Any], dict[str, Any]]
) -> None:
    dataset = json.loads(json.dumps(scene[1]))
    for item in dataset['images']:
        item['id'] = float(item['id'])
    for item in dataset['annotations']:
        item['image_id'] = str(item['image_id'])
    given = tmp_path / 'forms.json'
    given.write_text(json.dumps(dataset))
    assert run(photos, '--annotations', given, tmp_path / 'bag') == 0
    before = Annotations.read(given)
    after = Annotations.read(tmp_path / 'bag' / 'instances.json')
    in_bag = [item for item in before.instances if item['image_id'] in after.images]
    assert [(i['image_id'], i['bbox']) for i in after.instances] == [
        (i['image_id'], i['bbox']) for i in in_bag
    ]
    assert after.instances


def test_an_image_of_another_size_than_annotated_has_no_truth(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(photos / '1.png'), np.zeros((9, 9, 3), np.uint8))
    bag = tmp_path / 'bag'
    assert run(photos, '--annotations', tmp_path / 'instances.json', bag) == 0
    assert 'expected 128 x 96 pixels as annotated, found 9 x 9' in capsys.readouterr().err
    found = json.loads((bag / 'instances.json').read_text())
    assert [item['file_name'] for item in found['images']] == ['0.png', '2.png']


def test_an_image_that_is_given_again_is_annotated_once(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = tmp_path / 'bag'
    annotations = ['--annotations', tmp_path / 'instances.json']
    assert run(photos, *annotations, photos, bag) == 0
    assert '3 frames show an image again' in capsys.readouterr().err
    assert len(messages(bag)) == 6
    found = json.loads((bag / 'instances.json').read_text())
    assert [item['frame'] for item in found['images']] == [0, 1, 2]


def test_what_cannot_be_read_is_left_out_and_counted(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / '1.png').write_bytes((photos / '1.png').read_bytes()[:200])
    assert run(photos, tmp_path / 'bag', '--json', tmp_path / 's.json') == 1
    captured = capsys.readouterr()
    assert f'error: {photos / "1.png"}: ' in captured.err
    assert captured.out.splitlines()[-1].endswith(' left_out=1')
    assert json.loads((tmp_path / 's.json').read_text())['left_out'] == {'cannot be read': 1}
    found = messages(tmp_path / 'bag')
    assert [ns for _, ns, _ in found] == [START_NS, START_NS + 10**8]


def test_nothing_to_read_is_no_bag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / 'x.png').write_text('no image')
    assert run(tmp_path / 'x.png', tmp_path / 'bag') == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert 'expected at least one frame that can be read, found none' in last
    assert not (tmp_path / 'bag').exists()


@pytest.mark.parametrize(
    'options',
    [
        ['--rate', '0'],
        ['--rate', 'nan'],
        ['--rate', '1/0'],
        ['--rate', '1e9'],
        ['--rate', '2000000'],
        ['--start-stamp', '-1'],
        ['--start-stamp', '99999999999'],
        ['--topic', 'relative'],
        ['--topic', '/a//b'],
        ['--topic', '/1a'],
        ['--frame-id', 'a\udcff'],
        ['--quality', '90'],
        ['--class', 'cone'],
        ['--labels', '/mask', '--raw'],
        ['--labels', '/mask', '--rate', '5'],
        ['drive.mp4'],
        ['drive.mp4', '--quality', '90'],
    ],
    ids=' '.join,
)
def test_wrong_use_is_one_line_and_writes_nothing(
    options: list[str], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(photos, *options, tmp_path / 'bag') == 2
    captured = capsys.readouterr()
    assert captured.out == ''
    (line,) = captured.err.splitlines()
    assert 'expected' in line
    assert not (tmp_path / 'bag').exists()


def test_a_bag_is_not_written_into_the_folder_that_its_annotations_are_read_from(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = tmp_path / 'bag'
    assert run(photos, '--annotations', tmp_path / 'instances.json', bag) == 0
    before = contents(bag)
    assert run(photos, '--annotations', bag / 'instances.json', bag) == 2
    assert 'reads instances.json there' in capsys.readouterr().err
    assert contents(bag) == before


@pytest.mark.parametrize('with_annotations', [False, True])
def test_annotations_that_are_not_its_own_stay(
    photos: Path, tmp_path: Path, with_annotations: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = tmp_path / 'bag'
    options = ['--annotations', tmp_path / 'instances.json'] if with_annotations else []
    assert run(photos, *options, bag) == 0
    (bag / 'instances.json').write_text('{"images": [], "by": "hand"}')
    before = contents(bag)
    assert run(photos / '0.png', *options, bag) == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert f'{bag / "instances.json"}: expected a new file' in line
    assert contents(bag) == before


def test_annotations_stay_until_a_new_bag_is_in_its_place(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bag = tmp_path / 'bag'
    assert run(photos, '--annotations', tmp_path / 'instances.json', bag) == 0
    before = contents(bag)

    def fail(_: BagWriter) -> None:
        raise OutputError('no room')

    monkeypatch.setattr(BagWriter, 'close', fail)
    assert run(photos / '0.png', bag) == 1
    after = contents_but_parts(bag)
    assert after == before


def contents_but_parts(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
