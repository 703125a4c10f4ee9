# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The page of a run: whole, safe whatever a bag holds, and bounded."""

from __future__ import annotations

import base64
import io
import json
import random
import re
import shutil
import subprocess
import tracemalloc
from collections import Counter
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from pycocotools import mask as coco_mask
from seeds import fresh_seeds

from segnode.bags.messages import compressed_message, overlay_jpeg
from segnode.bags.record import COMPRESSED_IMAGE, Header
from segnode.bags.writer import BagWriter
from segnode.errors import ConfigError, OutputError
from segnode.evaluation.frames import FrameRow, FramesWriter
from segnode.evaluation.report import write_report
from segnode.evaluation.report.axes import Axis, linear_axis, log_axis
from segnode.evaluation.report.charts import stack, step_path
from segnode.evaluation.report.gallery import LARGEST_BYTES, WIDEST_PX, Gallery
from segnode.evaluation.report.markup import Html, element, escape
from segnode.evaluation.report.pictures import overlays
from segnode.evaluation.report.samples import Sample
from segnode.evaluation.report.style import style_sheet

STAGES = ('preprocess', 'backbone', 'mask_head')
HOSTILE = '"\'><script>alert(1)</script><img src=x onerror=alert(2)>&\x00\x1b[2J\u202e\ud800\n'
Frames = Sequence[tuple[FrameRow, list[dict[str, Any]]]]


def entry(frame: int, name: str = 'person', score: float = 0.8, area: int = 400) -> dict[str, Any]:
    pixels = np.zeros((40, 60), np.uint8, order='F')
    pixels.reshape(-1, order='F')[:area] = 1
    rle = coco_mask.encode(pixels)
    return {
        'image_id': frame,
        'category_id': 0,
        'category_name': name,
        'score': score,
        'area': area,
        'bbox': [0.0, 0.0, 10.0, 40.0],
        'segmentation': {'size': [40, 60], 'counts': rle['counts'].decode()},
    }


def row(frame: int, topic: str = '/camera/image', **values: Any) -> FrameRow:
    time_ns = 1_750_000_000_000_000_000 + frame * 50_000_000
    usual = {'bag': 0, 'stamp_ns': time_ns, 'log_ns': time_ns + 10**6, 'time_ns': time_ns}
    made = FrameRow(frame=frame, topic=topic, number=frame, **(usual | values))
    if made.processed and not made.stage_ms:
        made.stage_ms = {stage: 2.0 + k + frame % 7 for k, stage in enumerate(STAGES)}
    return made


def some_frames(count: int, topic: str = '/camera/image', name: str = 'person') -> Frames:
    """Of ten frames, one cannot be decoded, one is empty, the others have one to three."""
    frames: list[tuple[FrameRow, list[dict[str, Any]]]] = []
    for k in range(count):
        if k % 10 == 3:
            frames.append((row(k, topic, status='decode', reason=f'{name}: too short'), []))
            continue
        scores = (
            [] if k % 10 == 5 else [0.9 - 0.1 * n - 0.001 * (k % 50) for n in range(k % 3 + 1)]
        )
        frames.append((row(k, topic), [entry(k, name, score, 100 + k % 900) for score in scores]))
    return frames


def write_run(folder: Path, frames: Frames, **summary: Any) -> Path:
    folder.mkdir(exist_ok=True)
    with (folder / 'frames.csv').open('w', newline='') as stream:
        writer = FramesWriter(stream, next((list(r.stage_ms) for r, _ in frames), STAGES))
        for line, _ in frames:
            writer.write(line)
    lines = ',\n'.join(json.dumps(item) for _, entries in frames for item in entries)
    (folder / 'results.json').write_text(f'[\n{lines}\n]\n')
    skipped = Counter(line.status for line, _ in frames if not line.processed)
    kept = Counter(item['category_name'] for _, entries in frames for item in entries)
    found = {
        'frames': len(frames),
        'processed': len(frames) - skipped.total(),
        'skipped': dict(skipped),
        'counts': {
            'detected': kept.total() + 30,
            'kept': kept.total(),
            'filtered_class': 10,
            'filtered_area': 20,
        },
        'classes': dict(kept),
        'scores': None,
        'truth': None,
        'streaming': None,
    }
    (folder / 'summary.json').write_text(json.dumps(found | summary))
    return folder


def scores(name: str) -> dict[str, Any]:
    ap = {'ap': 0.5, 'ap50': 0.7, 'ap75': 0.5, 'ap_small': None, 'ap_medium': 0.4, 'ap_large': 0.6}
    curve = {'recall': [k / 100 for k in range(101)], 'iou50': [0.5] * 101, 'iou75': None}
    by_class = {'name': name, 'truth': 10, 'found': 6, 'detected': 9}
    return {
        'box': ap,
        'mask': ap,
        'by_class': [by_class | {'mask_ap': 0.5, 'mask_ap50': 0.6, 'box_ap': 0.5}],
        'confusion': {
            'iou': 0.5,
            'score_threshold': 0.5,
            'rows': [name, 'background'],
            'columns': [name, 'missed'],
            'counts': [[6, 4], [3, 0]],
        },
        'precision_recall': {'box': curve, 'mask': curve},
        'images': 3,
    }


def full_summary(text: str) -> dict[str, Any]:
    """A summary with ``text`` wherever a bag, a user or a machine can put one."""
    return {
        'bags': [
            {
                'path': f'/bags/{text}',
                'files': [text],
                'topics': [{'name': text, 'type': text, 'messages': None}],
                'damage': {
                    'remarks': [text],
                    'unreadable_bytes': 12_345,
                    'skipped': {text: 2},
                    'last_ns': 5,
                },
            }
        ],
        'health': {
            text: {
                'frames': 9,
                'rate_hz': 20.0,
                'first_ns': 0,
                'last_ns': 10**9,
                'clock': {'stamp': 8, 'log': 1},
                'duplicates': 1,
                'backward': 2,
                'gaps': [{'at_ns': 10**8, 'seconds': 3.5}],
                'delay_ms': {
                    'p50': 1.0,
                    'p95': 2.0,
                    'max': 3.0,
                    'histogram': {'edges': [0.0, 1.0, 2.0], 'counts': [3, 4]},
                },
                'sizes': {text: 9},
            }
        },
        'stage_ms': {text: {'p50': 1.0, 'p95': 2.0, 'max': 3.0}},
        'total_ms': {'p50': 1.0, 'p95': 2.0, 'max': 3.0},
        'scores': scores(text),
        'truth': {'rule': text, 'annotated': 3, 'matched': 2, 'skipped': {text: 1}},
        'streaming': {'frames': 9, 'worked_on': 5, 'missed': 2, 'in_time': 0.5, 'mean_lag_ms': 60},
        'mask_ap': 0.5,
        'model': text,
        'weights_sha256': text,
        'device': text,
        'precision': text,
        'threads': 2,
        'settings': {'filter': {'min_mask_area': 150}, text: text},
        'versions': {text: text},
        'command': text,
        'left_off': {text: 0},
    }


class Page(HTMLParser):
    """A page as a browser's parser sees it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str | None]] = []
        self.ids: list[str] = []
        self.missing = 0
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in ('meta', 'img'):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += attrs
        self.ids += [value or '' for name, value in attrs if name == 'id']
        self.missing += ('class', 'missing') in attrs

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def written(folder: Path, pictures: Callable[[FrameRow], bytes | None] | None = None) -> str:
    path = write_report(folder, lambda _: None, pictures or (lambda _: None))
    assert path == folder / 'report.html'
    return path.read_text(encoding='utf-8')


def jpeg(colour: tuple[int, int, int], size: tuple[int, int] = (640, 480)) -> bytes:
    data = io.BytesIO()
    PIL.Image.new('RGB', size, colour).save(data, 'JPEG')
    return data.getvalue()


def test_the_page_has_every_section_and_loads_nothing(tmp_path: Path) -> None:
    text = written(write_run(tmp_path, some_frames(60), **full_summary('warehouse')))
    page = Page(text)
    sections = ['health', 'latency', 'instances', 'stability', 'accuracy', 'gallery', 'settings']
    assert page.ids == sections
    assert not page.tags['script']
    assert not page.tags['link']
    assert not re.search(r'https?:|url\(|@import|src="(?!data:)', text)
    # Each drawing says what it is, for those who do not see it.
    assert page.tags['title'] - 1 == page.tags['desc'] == text.count('role="img"') > 6
    assert page.tags['figure'] == page.tags['figcaption']
    assert all(link[1:] in sections for name, link in page.attributes if name == 'href' and link)


def test_nothing_that_a_bag_holds_is_markup(tmp_path: Path) -> None:
    frames = some_frames(40, HOSTILE.replace('\ud800', '').replace('\x00', ''), HOSTILE)
    for line, _ in frames:
        line.reason = line.reason.replace('\ud800', '').replace('\x00', '')
    run = write_run(tmp_path, frames, **full_summary(HOSTILE))
    text = written(run, lambda _: jpeg((9, 9, 9)))
    page = Page(text)
    assert not page.tags['script']
    assert page.tags['img'] == text.count('src="data:image/jpeg;base64,') == 12
    assert not [name for name, _ in page.attributes if name.startswith('on')]
    assert not [c for c in set(text) if not (c.isprintable() or c in '\n\xa0\u202f')]
    # It is shown, and as what it is.
    assert sum('<script>alert(1)</script>' in piece for piece in page.texts) > 20


def test_a_run_without_anything_says_why_each_section_is_empty(tmp_path: Path) -> None:
    text = written(write_run(tmp_path, [], counts={}))
    page = Page(text)
    assert page.missing >= 12
    assert 'No annotations were given' in text
    assert 'no frame was processed' in text
    assert 'No image was found on any topic' in text


@pytest.mark.parametrize(
    'frames',
    [
        [(row(0), [])],
        [(row(0), [entry(0)])],
        [(row(0, status='decode', reason='short'), [])],
        [(row(0, stage_ms=dict.fromkeys(STAGES, 0.0)), [entry(0, area=0)])],
        [(row(0), [entry(0)]), (row(1, time_ns=-5, stamp_ns=0, clock='log'), [entry(1)])],
    ],
    ids=['empty', 'one instance', 'skipped', 'no time and no area', 'two clocks'],
)
def test_the_smallest_runs_have_a_page(tmp_path: Path, frames: Frames) -> None:
    page = Page(written(write_run(tmp_path, frames)))
    assert len(page.ids) == 7


def test_reasons_are_counted_with_examples(tmp_path: Path) -> None:
    frames = [
        (row(0), []),
        *[(row(k, status='decode', reason='found 30 bytes'), []) for k in range(1, 4)],
        (row(4, status='every', reason=''), []),
    ]
    text = written(write_run(tmp_path, frames))
    assert 'found 30 bytes (3×)' in text
    assert '60.0\xa0%' in text
    assert 'left out by --every' in text


def test_thresholds_of_mask_area_are_drawn_where_they_are_set(tmp_path: Path) -> None:
    areas = {'filter.min_mask_area': 150, 'filter.max_mask_area': 9000}
    text = written(write_run(tmp_path, some_frames(30), settings=areas))
    assert 'min 150' in text
    assert 'max 9\u202f000' in text
    text = written(write_run(tmp_path, some_frames(30), settings={'filter.min_mask_area': 0}))
    assert 'no limit of mask area was set' in text


def test_memory_does_not_grow_with_the_frames(tmp_path: Path) -> None:
    peaks = []
    for count in (600, 2400):
        run = write_run(tmp_path / str(count), some_frames(count), **full_summary('warehouse'))
        tracemalloc.start()
        written(run)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # The rows and entries of 1800 frames would take four times as much.
    assert peaks[1] < peaks[0] + 1_000_000


def test_the_page_is_small_where_nothing_is_smooth(tmp_path: Path) -> None:
    draw = random.Random(1)
    stages = [f'stage_{k}' for k in range(12)]
    frames = []
    for k in range(800):
        stage_ms = {stage: draw.lognormvariate(1, 1) for stage in stages}
        line = row(k, f'/camera_{k % 8}/image', stage_ms=stage_ms)
        names = [f'class_{draw.randrange(20)}' for _ in range(draw.randrange(9))]
        frames.append((line, [entry(k, name, area=draw.randrange(2000)) for name in names]))
    text = written(write_run(tmp_path, frames, **full_summary('warehouse')))
    assert len(text) < 300_000


@pytest.mark.parametrize(
    ('name', 'content', 'says'),
    [
        ('summary.json', None, 'cannot be read'),
        ('summary.json', '{', 'no JSON'),
        ('summary.json', '[]', 'without frames'),
        ('frames.csv', 'a,b\n', 'without the column'),
        ('results.json', None, 'cannot be read'),
        ('results.json', '[\n{"image_id": 0},\n]', 'line 2'),
        ('results.json', f'[\n{json.dumps(entry(99))}\n]', 'of one run'),
    ],
)
def test_a_folder_that_is_no_run_is_one_line(
    tmp_path: Path, name: str, content: str | None, says: str
) -> None:
    path = write_run(tmp_path, some_frames(5)) / name
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(ConfigError, match=says) as error:
        written(tmp_path)
    assert name in str(error.value)
    assert '\n' not in str(error.value)
    assert not (tmp_path / 'report.html').exists()


def test_only_an_own_page_is_replaced(tmp_path: Path) -> None:
    run = write_run(tmp_path, some_frames(5))
    first = written(run)
    assert written(run) == first
    (run / 'report.html').write_text('<!doctype html><title>mine</title>')
    with pytest.raises(OutputError, match='somebody else'):
        written(run)
    assert 'mine' in (run / 'report.html').read_text()


@pytest.mark.parametrize('seed', fresh_seeds(3))
def test_the_gallery_shows_frames_of_each_quarter_and_none_twice(seed: int) -> None:
    draw = random.Random(seed)
    count = draw.choice([12, 13, 100])
    gallery, means = Gallery(count), {}
    for k in range(count):
        # Scores that no two frames share, and at least one instance.
        found = [round(draw.uniform(0.1, 0.9), 9) for _ in range(draw.randrange(1, 5))]
        gallery.add(row(k), [{'score': score} for score in found])
        means[k] = (sum(found) / len(found), len(found))
    chosen = {kind: [c.row.frame for c in found] for kind, found in gallery.chosen().items()}
    frames = [frame for found in chosen.values() for frame in found]
    assert len(frames) == len(set(frames)) == 12
    for found in chosen.values():
        assert [frame * 4 // count for frame in found] == [0, 1, 2, 3]
    # The best and the worst of all are among them, unless another list has taken the frame.
    assert max(means, key=lambda k: means[k][0] * (1 - 0.5 ** means[k][1])) in chosen['best']
    assert min(means, key=lambda k: means[k][0]) in chosen['worst'] + chosen['best']
    assert gallery.rows() == [c.row for found in gallery.chosen().values() for c in found]


def test_pictures_are_small_and_asked_for_only_where_they_are_shown(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (900, 1600, 3), np.uint8)
    data = io.BytesIO()
    PIL.Image.fromarray(noise).save(data, 'JPEG', quality=95)
    asked: list[int] = []

    def picture(line: FrameRow) -> bytes | None:
        asked.append(line.frame)
        return (data.getvalue(), b'no picture', None)[len(asked) % 3]

    text = written(write_run(tmp_path, some_frames(60)), picture)
    assert len(asked) == len(set(asked)) == 12
    embedded = re.findall(r'data:image/jpeg;base64,([^"]+)', text)
    assert len(embedded) == 4
    assert text.count('No picture') == 8
    for item in embedded:
        decoded = base64.b64decode(item, validate=True)
        assert len(decoded) <= LARGEST_BYTES
        with PIL.Image.open(io.BytesIO(decoded)) as image:
            assert image.width == WIDEST_PX


def test_pictures_come_from_the_output_bag_by_camera_and_time(tmp_path: Path) -> None:
    front, rear = (np.full((48, 64, 3), bgr, np.uint8) for bgr in ((255, 0, 0), (0, 0, 255)))
    with BagWriter(tmp_path / 'bag') as bag:
        for k in range(3):
            stamp_ns = row(k).time_ns
            header = Header(stamp_ns, 'camera')
            for camera, picture in (('rear', rear), ('front', front)):
                message = overlay_jpeg(header, picture)
                if k == 2 and camera == 'rear':
                    message = compressed_message(header, 'jpeg', b'cut')
                name = f'/segnode/{camera}/overlay/compressed'
                bag.write(name, COMPRESSED_IMAGE, message, row(k).log_ns)
    outputs = {f'/{camera}/image_raw': f'/segnode/{camera}' for camera in ('front', 'rear')}
    wanted = [row(0, '/front/image_raw'), row(2, '/rear/image_raw'), row(9, '/front/image_raw')]
    # At the time of frame 0, but of the other camera.
    wanted.append(row(5, '/rear/image_raw', log_ns=row(0).log_ns))
    remarks: list[str] = []
    found = overlays(tmp_path / 'bag', wanted, outputs, remarks.append)
    assert sorted(found) == [0, 5]
    for frame, channel in ((0, 2), (5, 0)):
        with PIL.Image.open(io.BytesIO(found[frame])) as image:
            assert np.argmax(np.asarray(image).mean((0, 1))) == channel
    assert any('1 picture' in remark for remark in remarks)


def test_a_run_without_an_output_bag_says_so(tmp_path: Path) -> None:
    run, remarks = write_run(tmp_path, some_frames(5)), []
    write_report(run, remarks.append)
    assert any('no output bag' in remark for remark in remarks)
    (run / 'bag').write_bytes(b'no bag')
    write_report(run, remarks.append)
    assert any('lacks pictures' in remark for remark in remarks)


def test_text_is_escaped_where_it_enters_an_element() -> None:
    assert element('p', '<b>', Html('<i>x</i>'), None) == '<p>&lt;b&gt;<i>x</i></p>'
    assert element('a', 1, href='"x"', class_=None) == '<a href="&quot;x&quot;">1</a>'
    assert escape('a\x07b\u2066c') == 'a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}c'
    assert escape('x' * 9, 5) == 'xxxx…'


@pytest.mark.parametrize('seed', fresh_seeds(5))
def test_axes_hold_their_values_and_label_round_ones(seed: int) -> None:
    draw = random.Random(seed)
    lowest, highest = sorted(draw.uniform(-1, 1) * 10 ** draw.uniform(-4, 6) for _ in range(2))
    axis = linear_axis(highest, 'ms', lowest=lowest)
    # A value within a billionth of a step of a tick is at it.
    slack = 2e-9 * (axis.high - axis.low) + 1e-12 * max(abs(lowest), abs(highest))
    assert axis.low <= lowest <= highest <= axis.high + slack
    assert 2 <= len(axis.ticks) <= 8
    low, high = sorted(10 ** draw.uniform(-3, 6) for _ in range(2))
    axis = log_axis(low, high, 'ms')
    assert axis.low <= low * (1 + 1e-9)
    assert high <= axis.high * (1 + 1e-9)
    assert 2 <= len(axis.ticks) <= 8
    assert [axis.percent(v) for v in (axis.low, axis.high, -1.0)] == pytest.approx([0, 100, 0])


@pytest.mark.parametrize('seed', fresh_seeds(5))
def test_a_path_of_steps_has_the_heights_it_was_given(seed: int) -> None:
    draw = random.Random(seed)
    heights = [draw.choice([None, *map(float, range(0, 11, 2))]) for _ in range(30)]
    path = step_path(heights, Axis(0.0, 10.0, '', []), closed=False)
    seen: list[float | None] = [None] * len(heights)
    x = y = 0
    for command, numbers in re.findall(r'([Mvh])([-\d ]+)', path):
        if command == 'M':
            x, y = map(int, numbers.split())
        elif command == 'v':
            y += int(numbers)
        else:
            seen[x : x + int(numbers)] = [(1000 - y) / 100] * int(numbers)
            x += int(numbers)
    assert seen == heights


def test_series_stand_on_top_of_each_other() -> None:
    series = {'low': [1.0, 2.0, None], 'high': [3.0, 0.0, None]}
    drawn = stack(series, Axis(0.0, 10.0, '', []), ['c4', 'c5'])
    # Painted from the highest down: the sums, then the first series.
    paths = re.findall(r'd="([^"]+)" class="fill (c\d)"', drawn)
    assert paths == [('M0 600h1v200h1V1000H0z', 'c5'), ('M0 900h1v-100h1V1000H0z', 'c4')]


def test_figures_of_the_run_are_on_the_page(tmp_path: Path) -> None:
    frames = [
        (row(0), [entry(0, 'cat', 0.9), entry(0, 'dog', 0.5)]),
        (row(1), [entry(1, 'cat', 0.7)]),
    ]
    page = Page(written(write_run(tmp_path, frames, **full_summary('warehouse'))))
    assert page.texts[page.texts.index('Mask AP') + 1] == '0.500'
    assert page.texts[page.texts.index('Median latency') + 1] == '1.00\xa0ms'
    assert page.texts[page.texts.index('Mean lag') + 1] == '60.0\xa0ms'
    # One pair of frames with two instances, of which one persists, its mask the same.
    start = page.texts.index('score jitter') + 1
    assert page.texts[start : start + 7] == [
        '/camera/image', '1', '2', '50.0\xa0%', '1.00', '–', '0.200',
    ]  # fmt: skip
    assert {'cat (2)', 'dog (1)', '3, 9.1\xa0%'} <= set(page.texts)


def test_a_sample_is_bounded_and_spread_over_the_series() -> None:
    sample = Sample(limit=100)
    for k in range(12_345):
        sample.add(k)
    assert 50 <= len(sample.values) <= 100
    assert sample.values == sorted(sample.values)
    assert sample.values[-1] > 12_000
    assert len(set(np.diff(sample.values))) == 1


def test_colours_have_the_contrast_that_reading_takes() -> None:
    sheet = style_sheet()
    modes = [dict(re.findall(r'--(\w+):(#\w{6});', part)) for part in sheet.split('@media')[:2]]
    for colours in modes:
        card, paper = _luminance(colours['card']), _luminance(colours['paper'])
        for name, value in colours.items():
            if re.fullmatch(r'c\d|mark', name):
                assert _contrast(_luminance(value), card) >= 3, name
            elif name in ('ink', 'soft'):
                assert min(_contrast(_luminance(value), back) for back in (card, paper)) >= 4.5
    assert len(modes[0]) == len(modes[1]) == 16


def _luminance(colour: str) -> float:
    """Relative luminance of WCAG 2.1."""
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: float, other: float) -> float:
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'google-chrome'))), None)
# The page in frames of several widths; a page that holds no script is measured from outside.
_MEASURE = """
<body><script>
const page = PAGE;
for (const scheme of ['light', 'dark']) for (const width of [1280, 400]) {
  const frame = document.createElement('iframe');
  frame.style = `width:${width}px;height:900px;border:0;color-scheme:${scheme}`;
  frame.srcdoc = page;
  frame.onload = () => {
    const inner = frame.contentDocument, root = inner.documentElement;
    const back = frame.contentWindow.getComputedStyle(inner.body).backgroundColor;
    const out = document.createElement('p');
    out.textContent = `${scheme} ${width}: ${root.scrollWidth} of ${root.clientWidth}, ${back};`;
    document.body.append(out);
  };
  document.body.append(frame);
}
</script>
"""


@pytest.mark.skipif(CHROMIUM is None, reason='needs Chromium')
def test_a_browser_shows_the_page_without_overflow_or_error(tmp_path: Path) -> None:
    name = 'a_name_without_any_place_to_break_' * 6
    run = write_run(tmp_path / 'run', some_frames(50, name, name), **full_summary(name))
    text = written(run, lambda _: jpeg((200, 30, 30)))
    harness = tmp_path / 'measure.html'
    # Inside of a script, nothing may end it.
    harness.write_text(_MEASURE.replace('PAGE', json.dumps(text).replace('</', '<\\/')))
    command = [
        str(CHROMIUM), '--headless', '--no-sandbox', '--disable-gpu', '--dump-dom',
        '--enable-logging=stderr', '--virtual-time-budget=5000',
        f'--user-data-dir={tmp_path}/profile', harness.as_uri(),
    ]  # fmt: skip
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert 'CONSOLE' not in ran.stderr
    found = re.findall(r'<p>(\w+) (\d+): (\d+) of (\d+), (.*?);</p>', ran.stdout)
    assert len(found) == 4
    for scheme, width, scroll, client, _ in found:
        assert int(scroll) == int(client), (scheme, width)
    backs = {scheme: back for scheme, _, _, _, back in found}
    assert backs['light'] != backs['dark']
