# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Overlays of a run's frames out of its output bag."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import PIL.Image

from segnode.errors import BagError, ImageError
from segnode.evaluation.frames import FrameRow
from segnode.evaluation.output_topics import overlay_topic
from segnode.evaluation.report.gallery import small_jpeg


def overlays(
    bag_path: Path,
    rows: Sequence[FrameRow],
    outputs: Mapping[str, str],
    report: Callable[[str], None],
) -> dict[int, bytes]:
    """Return small JPEGs of overlays by frame, those that the bag has.

    Args:
        bag_path: the output bag of the run.
        rows: the frames that are wanted.
        outputs: under which name the bag has the answers of each image topic.
        report: is told why pictures are missing.
    """
    from tqdm import tqdm

    from segnode.bags.bag import open_bag
    from segnode.bags.images import read_image

    if not bag_path.exists():
        report('the report has no pictures: the run has no output bag')
        return {}
    wanted: dict[tuple[str, int], list[FrameRow]] = defaultdict(list)
    for row in rows:
        if row.topic in outputs:
            wanted[overlay_topic(outputs[row.topic]), row.log_ns].append(row)
    found: dict[int, bytes] = {}
    broken = 0
    try:
        with (
            open_bag(bag_path, report) as bag,
            tqdm(total=100, desc='pictures', unit='%', disable=None, leave=False) as bar,
        ):
            for record in bag.records({name for name, _ in wanted}):
                bar.update(round(100 * bag.progress()) - bar.n)
                for row in wanted.get((record.topic.name, record.log_ns), ()):
                    if row.frame in found:
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
