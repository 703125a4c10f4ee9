# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The answers of a run as a bag: what the node would have published, with the images' headers.

Messages stand at the time at which their image was recorded, so that the bag plays beside its
source.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from segnode.bags import messages
from segnode.bags.message_types import DETECTIONS, DIAGNOSTICS, IMAGE_ANNOTATIONS
from segnode.bags.record import COMPRESSED_IMAGE, IMAGE, Header
from segnode.bags.writer import BagWriter
from segnode.evaluation.frames import FrameRow
from segnode.evaluation.output_topics import NODE, overlay_topic, prefixes
from segnode.live.overlay import draw_overlay
from segnode.live.pipeline import Answered


class OutputBag:
    """Writes each answer's messages."""

    def __init__(self, folder: Path, topics: Sequence[str], class_names: Sequence[str]) -> None:
        """Begin a bag.

        Raises:
            OutputError: it cannot be written.
        """
        self._prefixes = prefixes(topics)
        self._class_names = class_names
        self._writer = BagWriter(folder)

    def __enter__(self) -> OutputBag:
        self._writer.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.__exit__(kind, error, trace)

    def write(self, row: FrameRow, answered: Answered[Header]) -> None:
        """Write a frame's answer.

        Raises:
            OutputError: it cannot be written.
        """
        header, result, prefix = answered.header, answered.result, self._prefixes[row.topic]
        found, names = result.detections, self._class_names
        overlay = draw_overlay(answered.image, found, result.label_image, names)
        counts = dataclasses.asdict(result.counts)
        for topic, type_name, message in (
            (
                f'{prefix}/detections',
                DETECTIONS,
                messages.detections_message(header, found, names),
            ),
            (
                f'{prefix}/instance_mask',
                IMAGE,
                messages.instance_mask_message(header, result.label_image),
            ),
            (
                f'{prefix}/stage_times',
                DIAGNOSTICS,
                messages.stage_times_message(
                    header, NODE.lstrip('/'), row.stage_ms, result.network_hw, counts
                ),
            ),
            (
                f'{prefix}/annotations',
                IMAGE_ANNOTATIONS,
                messages.image_annotations_message(header, found, names),
            ),
            (
                overlay_topic(prefix),
                COMPRESSED_IMAGE,
                messages.overlay_jpeg(header, overlay),
            ),
        ):
            self._writer.write(topic, type_name, message, row.log_ns)
