# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Ground truth of a bag: which annotated image is which frame.

One rule holds for a whole file: what most of its images have of `frame_keys.KINDS`. Frames that
are not annotated count neither way, as do annotated images whose frame was left out on purpose.
An annotated frame whose message could not be used counts as missed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from segnode.errors import AnnotationError
from segnode.evaluation.annotations import Annotations
from segnode.evaluation.entries import AnnotatedImage, Id, few
from segnode.evaluation.frame_keys import KINDS, NUMBER_KINDS, frame_key
from segnode.evaluation.frame_pairs import Camera, Keyed, by_number, by_stamp, time_ns
from segnode.evaluation.frames import FrameRow
from segnode.text_files import shown

LEFT_OUT = {
    'every': 'its frame was left out by --every',
    'range': 'its frame lies outside of --start and --end',
}


@dataclass(frozen=True, slots=True)
class Matching:
    """Which frame is which annotated image.

    Attributes:
        image_ids: annotated image by frame (`FrameRow.frame`).
        skipped: annotated images that count neither way, by reason.
        rule: in words, how they were matched.
    """

    image_ids: dict[int, Id]
    skipped: Counter[str]
    rule: str


@dataclass(frozen=True, slots=True)
class BagTruth:
    """Annotations whose images are frames of a bag.

    Attributes:
        annotations: the ground truth.
        name: of the file or topic that it comes from, for messages.
    """

    annotations: Annotations
    name: str

    def __post_init__(self) -> None:
        """Check that any image tells its frame.

        Raises:
            AnnotationError: none does.
        """
        images = self.annotations.images.values()
        if not any(frame_key(image) for image in images):
            names = few([image.file_name for image in images]) or 'no images'
            raise AnnotationError(
                f"{self.name}: expected images with a 'stamp_ns' or a 'frame' (its number), or "
                f'file names that are one, found {names}'
            )

    @classmethod
    def read(cls, path: Path, report: Callable[[str], None]) -> BagTruth:
        """Read a COCO file, as `Annotations.read`.

        Raises:
            AnnotationError: it cannot be used, or none of its images tells its frame.
        """
        return cls(Annotations.read(path, report), str(path))

    @classmethod
    def from_coco(cls, dataset: object, name: str, report: Callable[[str], None]) -> BagTruth:
        """Take a parsed COCO dataset, as `Annotations.from_coco`.

        Raises:
            AnnotationError: as `read`.
        """
        return cls(Annotations.from_coco(dataset, name, report), name)

    def match(self, frames: Sequence[FrameRow], window_ns: int) -> Matching:
        """Find the frame of every annotated image, each frame and image at most once.

        Stamps are compared with the header's where the clock policy took that, else with the
        log time; of several pairs the nearer one wins. Numbers are those of the topic's messages,
        from 0, or from 1 where the highest one is the number of messages.

        Args:
            frames: of the run, those that were left out as well.
            window_ns: how far an annotated stamp may be from its frame's, in nanoseconds.

        Raises:
            AnnotationError: topics or bags are ambiguous, or no annotated image counts.
        """
        skipped: Counter[str] = Counter()
        kind, keyed = self._keyed(skipped)
        by_topic = self._by_topic(keyed, frames, skipped)
        if kind in NUMBER_KINDS:
            pairs, how = by_number(by_topic, self.name)
            unmatched = 'no frame has its number, or another image has it as well'
        else:
            pairs, how = by_stamp(by_topic, window_ns)
            unmatched = f'no free frame within {window_ns / 1e6:g} ms of its stamp'
        skipped[unmatched] += sum(len(c.images) for c in by_topic) - len(pairs)
        image_ids: dict[int, Id] = {}
        for image, row in pairs:
            if reason := _left_out(image, row):
                skipped[reason] += 1
            else:
                image_ids[row.frame] = image.id
        skipped = +skipped  # without zeros
        if not image_ids:
            raise AnnotationError(self._none_counts(kind, keyed, frames, skipped))
        return Matching(image_ids, skipped, f'by {kind}, {how}')

    def _keyed(self, skipped: Counter[str]) -> tuple[str, list[Keyed]]:
        """Return the kind of key that most images have, and those images."""
        keys = [(image, frame_key(image)) for image in self.annotations.images.values()]
        kinds = Counter(key.kind for _, key in keys if key is not None)
        kind = max(KINDS, key=lambda kind: kinds[kind])
        keyed = [(image, key) for image, key in keys if key is not None and key.kind == kind]
        skipped[f'it is not among {kind}'] = len(keys) - len(keyed)
        return kind, keyed

    def _by_topic(
        self, keyed: Sequence[Keyed], frames: Sequence[FrameRow], skipped: Counter[str]
    ) -> list[Camera]:
        """Return images and frames by topic.

        Raises:
            AnnotationError: there are several topics, and no image says which is its.
        """
        cameras = {topic: Camera([], []) for topic in dict.fromkeys(row.topic for row in frames)}
        for row in frames:
            cameras[row.topic].frames.append(row)
        plain = {_plain(topic): topic for topic in reversed(cameras)}
        plain |= {topic: topic for topic in cameras}
        named = any('topic' in image.frame_keys for image, _ in keyed)
        if len(cameras) > 1 and not named:
            raise AnnotationError(
                f'{self.name}: expected every image to have a "topic", as {len(cameras)} image '
                f'topics were replayed ({few(list(cameras))}), found none; add it, or replay the '
                'annotated one alone (--topic)'
            )
        for image, key in keyed:
            topic = image.frame_keys.get('topic')
            if topic is None and len(cameras) == 1:
                (camera,) = cameras.values()
            elif topic is None:
                skipped['it has no topic, and several were replayed'] += 1
                continue
            elif (known := plain.get(str(topic)) or plain.get(_plain(str(topic)))) is not None:
                camera = cameras[known]
            else:
                skipped['its topic was not replayed'] += 1
                continue
            camera.images.append((image, key))
        return [camera for camera in cameras.values() if camera.images]

    def _none_counts(
        self,
        kind: str,
        keyed: Sequence[Keyed],
        frames: Sequence[FrameRow],
        skipped: Counter[str],
    ) -> str:
        why = '; '.join(f'{count} times {reason}' for reason, count in skipped.most_common())
        image = shown(keyed[0][1].text) if keyed else 'none'
        frame = 'there is no frame'
        if frames:
            row = frames[0]
            frame = f'frame {row.number} of {shown(row.topic)} has the stamp {time_ns(row)} ns'
        return (
            f'{self.name}: expected images that are frames of the bag, matched by {kind}, found '
            f'none that counts ({why}); an image has {image}, {frame}'
        )


def _plain(topic: str) -> str:
    return topic.strip('/').removesuffix('/compressed')


def _left_out(image: AnnotatedImage, row: FrameRow) -> str:
    """Return why an annotated image with a frame does not count, empty where it does."""
    if row.status in LEFT_OUT:
        return LEFT_OUT[row.status]
    if row.height and (row.height, row.width) != image.image_hw:
        return (
            f'annotated with {image.image_hw[1]} x {image.image_hw[0]} pixels, its frame has '
            f'{row.width} x {row.height}'
        )
    return ''
