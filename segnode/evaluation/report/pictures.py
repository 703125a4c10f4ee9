# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Overlays of a run's frames out of its output bag."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import PIL.Image

from segnode.errors import BagError, ImageError
from segnode.evaluation.frames import FrameRow
from segnode.evaluation.report.gallery import small_jpeg

_OVERLAY = 'overlay/compressed'


def overlays(
    bag_path: Path, rows: Sequence[FrameRow], report: Callable[[str], None]
) -> dict[int, bytes]:
    """Return small JPEGs of overlays by frame, those that the bag has.

    Args:
        bag_path: the output bag of the run.
        rows: the frames that are wanted.
        report: is told why pictures are missing.
    """
    from tqdm import tqdm

    from segnode.bags.bag import open_bag
    from segnode.bags.images import read_image

    if not bag_path.exists():
        report('the report has no pictures: the run has no output bag')
        return {}
    wanted: dict[int, list[FrameRow]] = defaultdict(list)
    for row in rows:
        wanted[row.time_ns].append(row)
    found: dict[int, bytes] = {}
    broken = 0
    try:
        with (
            open_bag(bag_path, report) as bag,
            tqdm(total=100, desc='pictures', unit='%', disable=None, leave=False) as bar,
        ):
            names = [name for name in bag.topics if name.endswith(_OVERLAY)]
            for record in bag.records(names):
                bar.update(round(100 * bag.progress()) - bar.n)
                for row in wanted.get(record.log_ns, ()):
                    if row.frame in found or record.topic.name != _overlay_of(row.topic, names):
                        continue
                    try:
                        _, image = read_image(record)
                    except ImageError:
                        broken += 1
                        continue
                    rgb = image.pixels if image.order == 'rgb' else image.pixels[..., ::-1]
                    picture = PIL.Image.fromarray(np.ascontiguousarray(rgb))
                    found[row.frame] = small_jpeg(picture)
                    break
                if len(found) == len(rows):
                    break
    except BagError as error:
        report(f'the report lacks pictures: {error}')
    if broken:
        report(f'the report lacks {broken} pictures, which could not be decoded')
    return found


def _overlay_of(topic: str, names: Sequence[str]) -> str | None:
    """Return the overlay of a camera: of several, the one whose name has most of the topic's.

    ``/segnode/front/overlay/compressed`` is of ``/front/image_raw``.
    """
    if len(names) == 1:
        return names[0]
    words = set(topic.strip('/').replace('/', '_').split('_'))

    def likeness(name: str) -> tuple[int, int]:
        camera = name.removesuffix(_OVERLAY).strip('/').rpartition('/')[2].split('_')
        return len(words & set(camera)), -len(set(camera) - words)

    return max(names, key=likeness, default=None)
