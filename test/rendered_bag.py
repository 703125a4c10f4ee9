# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""A bag of rendered scenes with their ground truth, as a robot would have recorded them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from segnode.bags import messages
from segnode.bags.message_types import DETECTIONS
from segnode.bags.record import COMPRESSED_IMAGE, IMAGE, Header
from segnode.bags.writer import BagWriter
from segnode.demo.scene import CLASS_NAMES, DEMO_SEEDS, Scene, SceneFrame, coco_annotations
from segnode.engine import Detections

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
    labels: bool = False,
) -> Path:
    """Write frames to each topic; of the numbers in ``broken`` the data is cut off.

    With ``labels`` their ground truth stands beside them, as a simulator gives it.
    """
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
            if labels:
                truth = Detections(
                    np.asarray(frame.boxes_xyxy, np.float32),
                    np.ones(len(frame.class_ids), np.float32),
                    np.asarray(frame.class_ids, np.int64),
                    np.asarray([mask.sum() for mask in frame.masks], np.int64),
                )
                for name, kind, message in (
                    (
                        '/truth/instance_mask',
                        IMAGE,
                        messages.instance_mask_message(header, labels_of(frame)),
                    ),
                    (
                        '/truth/detections',
                        DETECTIONS,
                        messages.detections_message(header, truth, CLASS_NAMES),
                    ),
                ):
                    bag.write(name, kind, message, stamp_of(number) + DELAY_NS)
    return folder


def labels_of(frame: SceneFrame) -> npt.NDArray[np.uint16]:
    labels = np.zeros(frame.image.shape[:2], np.uint16)
    for k, mask in enumerate(frame.masks, start=1):
        labels[np.asarray(mask, bool)] = k
    return labels


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
