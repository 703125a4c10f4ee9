# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""A bag of rendered scenes with their ground truth, as a robot would have recorded them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import cv2

from segnode.bags import messages
from segnode.bags.record import COMPRESSED_IMAGE, IMAGE, Header
from segnode.bags.writer import BagWriter
from segnode.demo.scene import DEMO_SEEDS, Scene, SceneFrame, coco_annotations

RATE_HZ = 10
START_NS = 1_700_000_000_000_000_000
# A recorder gets a message a little after its stamp.
DELAY_NS = 4_000_000
TOPIC = '/camera/image'


def scene_frames(count: int, image_hw: tuple[int, int], seed: int = 0) -> list[SceneFrame]:
    return list(Scene(DEMO_SEEDS[seed], image_hw).frames(count))


def stamp_of(number: int) -> int:
    return START_NS + number * 1_000_000_000 // RATE_HZ


def write_bag(
    folder: Path,
    frames: Iterable[SceneFrame],
    topics: tuple[str, ...] = (TOPIC,),
    *,
    compressed: bool = False,
    broken: tuple[int, ...] = (),
) -> Path:
    """Write frames to each topic; of the numbers in ``broken`` the data is cut off."""
    with BagWriter(folder) as bag:
        for number, frame in enumerate(frames):
            header = Header(stamp_of(number), 'camera')
            for topic in topics:
                if compressed:
                    data = cv2.imencode('.png', frame.image)[1].tobytes()
                    name, kind = f'{topic}/compressed', COMPRESSED_IMAGE
                    message = messages.compressed_message(header, 'png', data)
                else:
                    name, kind = topic, IMAGE
                    message = messages.image_message(header, frame.image, 'bgr8')
                if number in broken:
                    message = message[: len(message) // 2]
                bag.write(name, kind, message, stamp_of(number) + DELAY_NS)
    return folder


def write_annotations(path: Path, frames: Iterable[SceneFrame], every: int = 1) -> Path:
    """Write the ground truth of each of ``every`` frames, keyed by stamp."""
    dataset = coco_annotations(frames)
    kept = {image['id'] for image in dataset['images'] if image['id'] % every == 0}
    dataset['images'] = [
        image | {'stamp_ns': stamp_of(image['id'])}
        for image in dataset['images']
        if image['id'] in kept
    ]
    dataset['annotations'] = [a for a in dataset['annotations'] if a['image_id'] in kept]
    path.write_text(json.dumps(dataset))
    return path
