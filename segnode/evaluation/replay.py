# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Every frame of bags through the node's pipeline, one after the other.

Nothing is dropped for being late, no input shrinks and no steps overlap: the same frames give the
same answers every time on one machine, at one precision and number of threads.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segnode.bags.bag import Bag, open_bag
from segnode.bags.images import read_header, read_image
from segnode.bags.record import Header, Record
from segnode.bags.topics import image_topics, shown
from segnode.errors import BagError, ImageError, SegnodeError, first_line
from segnode.evaluation.frames import FrameRow
from segnode.evaluation.health import TopicHealth, time_of
from segnode.live.grey_values import FULL_BITS, GreyValues
from segnode.live.pipeline import Answered, Decoded, Frame, decode, segment

if TYPE_CHECKING:
    from segnode.engine import Engine
    from segnode.image import Lend

_SAME_FAILURES = 10
"""So many frames in a row fail alike when the device is at fault, not a frame."""
# Nanoseconds of 64 bits, signed: mcap's have no sign.
_LATEST_NS = 2**63 - 1
# Sizes that come one after the other, as of photographs, are not worth warming up for.
_WARMED_SIZES = 4
# A replay has no queues, so that waiting in them says nothing.
_NO_STAGES = ('wait', 'device_wait')


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is replayed, and what is made of it.

    Attributes:
        bags: folders or files, one after the other.
        topics: of images, () for all.
        start_s: seconds behind the first recorded image of a bag from which frames count.
        end_s: up to which they do, None for the end.
        every: of each topic's frames the first of so many.
        mono16_bits: bits in use of 16-bit grey values.
        annotations: COCO ground truth.
        label_topic: topic of label images that are the ground truth, '' for none.
        window_ms: by which stamps of frames and of the ground truth may differ.
        latencies: a number in milliseconds or a ``frames.csv``, in place of what was measured.
        command: that the user gave, for the report.
        output_bag: whether the answers are written as a bag.
    """

    bags: tuple[Path, ...]
    topics: tuple[str, ...] = ()
    start_s: float = 0.0
    end_s: float | None = None
    every: int = 1
    mono16_bits: int = FULL_BITS
    annotations: Path | None = None
    label_topic: str = ''
    window_ms: float = 20.0
    latencies: Path | float | None = None
    command: str = ''
    output_bag: bool = True


class Replay:
    """The frames of bags, in the order in which they were recorded.

    Attributes:
        topics: of images that are replayed, of all bags.
        bags: what each bag is and what could not be read of it, as JSON has it.
        health: of each topic, once its frames have passed.
        stopped: why the replay ended before the last frame, '' where it did not.
    """

    def __init__(self, request: Request, report: Callable[[str], None]) -> None:
        """Open the bags.

        Raises:
            BagError: one cannot be read, or none has a wanted topic of images.
        """
        self._request = request
        self._report = report
        self._closing = ExitStack()
        self.health: dict[str, TopicHealth] = defaultdict(TopicHealth)
        self.stopped = ''
        self._bags: list[tuple[Bag, list[str]]] = []
        self._passed = 0
        self._remarks: dict[str, str] = {}
        with ExitStack() as opened:
            for path in request.bags:
                bag = opened.enter_context(open_bag(path, report))
                self._bags.append((bag, self._names(bag)))
            self._check_topics()
            self._closing = opened.pop_all()
        self.topics = tuple(dict.fromkeys(name for _, names in self._bags for name in names))
        self._grey = {topic: GreyValues(lambda: request.mono16_bits) for topic in self.topics}

    def __enter__(self) -> Replay:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the bags, and say what is odd about grey values of 16 bits."""
        for topic, remark in self._remarks.items():
            self._report(f'{shown(topic)}: {remark}')
        self._remarks.clear()
        self._closing.close()

    def _names(self, bag: Bag) -> list[str]:
        """Return the image topics of a bag that are replayed."""
        wanted = self._request.topics
        found = [topic.name for topic in bag.topics.values() if topic.is_image]
        if len(self._request.bags) == 1 or not (found or wanted):
            # With the words of the one place that knows what a bag has.
            found = [topic.name for topic in image_topics(bag, wanted)]
        if wanted:
            found = [name for name in wanted if name in found]
        elif self._request.label_topic in found:
            found.remove(self._request.label_topic)
        if not found and len(self._request.bags) > 1:
            self._report(f'{bag.path}: left out, as it has none of the image topics')
        return sorted(found)

    def _check_topics(self) -> None:
        missing = set(self._request.topics) - {name for _, names in self._bags for name in names}
        for name in sorted(missing):
            raise BagError(f'expected images on {shown(name)}, found none in any of the bags')
        if not any(names for _, names in self._bags):
            raise BagError(
                f'{self._bags[0][0].path}: expected images beside the label images of '
                f'{shown(self._request.label_topic)}, found none; give another bag'
            )

    @property
    def frames_known(self) -> int | None:
        """How many frames there are, None where a bag does not tell before it is read."""
        counts = [bag.topics[name].messages for bag, names in self._bags for name in names]
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None

    @property
    def bags(self) -> list[dict[str, Any]]:
        """What each bag is, as JSON has it."""
        return [_described(bag) for bag, _ in self._bags]

    def progress(self) -> float:
        """Return which part of the bags has passed, 0 to 1."""
        now = self._bags[self._passed][0].progress() if self._passed < len(self._bags) else 0.0
        return (self._passed + now) / len(self._bags)

    def frames(self) -> Iterator[tuple[FrameRow, Record]]:
        """Yield every image message with its row; those left out have their reason already."""
        self._passed = 0
        self.health.clear()
        frame = 0
        for position, (bag, names) in enumerate(self._bags):
            numbers: Counter[str] = Counter()
            first_ns: int | None = None
            for record in bag.records(names):
                topic = record.topic.name
                first_ns = record.log_ns if first_ns is None else first_ns
                row = self._row(frame, position, numbers[topic], record, first_ns)
                frame, numbers[topic] = frame + 1, numbers[topic] + 1
                self.health[topic].add(row)
                yield row, record
            self._passed = position + 1

    def decode(
        self, row: FrameRow, record: Record, lend: Lend | None = None
    ) -> Decoded[Header] | None:
        """Return a frame ready for the engine; None where it is left out, as its row says.

        ``lend`` is the engine's, where it has one.
        """
        if not row.processed:
            return None
        grey = self._grey[row.topic]

        def read(_: bytes) -> tuple[Header, Any]:
            return read_image(record, grey, lend)

        try:
            decoded = decode(Frame(record.data, time.monotonic()), read)
        except ImageError as error:
            row.status, row.reason = 'decode', first_line(error)
            return None
        if remark := grey.remark():
            # It is of the last seconds alone.
            self._remarks[row.topic] = remark
        row.height, row.width = decoded.image.height, decoded.image.width
        self.health[row.topic].add_size(row)
        return decoded

    def run(self, engine: Engine) -> Iterator[tuple[FrameRow, Answered[Header] | None]]:
        """Yield every frame's row, and its answer where it has one.

        It ends early, and ``stopped`` says so, where frames keep failing one like the other.
        """
        warmed: set[tuple[int, int]] = set()
        failures, last_failure = 0, ''
        for row, record in self.frames():
            decoded = self.decode(row, record, engine.lend)
            if decoded is None:
                yield row, None
                continue
            image_hw = decoded.image.height, decoded.image.width
            if image_hw not in warmed and len(warmed) < _WARMED_SIZES:
                warmed.add(image_hw)
                _warm_up(engine, image_hw)
            try:
                (answered,) = segment([decoded], engine, whole_masks=True)
            except Exception as error:  # noqa: BLE001 - no frame stops the others
                text = first_line(error)
                if not isinstance(error, SegnodeError):
                    text = f'{type(error).__name__}: {text}'
                row.status, row.reason = 'error', text
                yield row, None
                failures = failures + 1 if text == last_failure else 1
                last_failure = text
                if failures == _SAME_FAILURES:
                    self.stopped = f'{failures} frames in a row failed alike: {text}'
                    return
                continue
            failures, last_failure = 0, ''
            _complete(row, answered)
            yield row, answered

    def _row(self, frame: int, bag: int, number: int, record: Record, first_ns: int) -> FrameRow:
        stamp_ns, log_ns, status, reason = 0, record.log_ns, 'processed', ''
        try:
            stamp_ns = read_header(record).stamp_ns
        except ImageError as error:
            status, reason = 'decode', first_line(error)
        if not 0 <= log_ns <= _LATEST_NS:
            log_ns, status, reason = _LATEST_NS, 'decode', 'recorded at an impossible time'
        time_ns, clock = time_of(stamp_ns, log_ns)
        since_s = (log_ns - first_ns) / 1e9
        request = self._request
        starts_late = request.start_s > 0 and since_s < request.start_s
        if starts_late or (request.end_s is not None and since_s > request.end_s):
            status, reason = 'range', 'outside of --start and --end'
        elif number % request.every:
            status, reason = 'every', f'not one of every {request.every}'
        return FrameRow(
            frame=frame,
            bag=bag,
            topic=record.topic.name,
            number=number,
            stamp_ns=stamp_ns,
            log_ns=log_ns,
            time_ns=time_ns,
            clock=clock,
            status=status,
            reason=reason,
        )


def replay(
    engine: Engine, request: Request, report: Callable[[str], None]
) -> Iterator[tuple[FrameRow, Answered[Header] | None]]:
    """Yield every frame of the bags, as `Replay.run`.

    Raises:
        BagError: a bag cannot be read.
    """
    with Replay(request, report) as source:
        yield from source.run(engine)


def _warm_up(engine: Engine, image_hw: tuple[int, int]) -> None:
    try:
        engine.warm_up(image_hw)
    except Exception:  # noqa: BLE001 - the frame itself will tell
        return


def _complete(row: FrameRow, answered: Answered[Header]) -> None:
    """Put what the engine found into a frame's row."""
    result = answered.result
    row.network_height, row.network_width = result.network_hw
    row.detected, row.kept = result.counts.detected, result.counts.kept
    row.filtered_class = result.counts.filtered_class
    row.filtered_area = result.counts.filtered_area
    row.stage_ms = {k: ms for k, ms in answered.stage_ms.items() if k not in _NO_STAGES}


def _described(bag: Bag) -> dict[str, Any]:
    damage = bag.damage
    return {
        'path': str(bag.path),
        'files': [file.name for file in bag.files],
        'topics': [
            {'name': topic.name, 'type': topic.type_name, 'messages': topic.messages}
            for topic in bag.topics.values()
        ],
        'damage': {
            'remarks': list(damage.remarks),
            'unreadable_bytes': damage.unreadable_bytes,
            'skipped': dict(damage.skipped),
            'last_ns': damage.last_ns,
        },
    }
