# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Where every frame of one camera went, counted from outside of the node.

The node's numbers hold for one life of it; those here outlast its death. A *stretch* is the time
between two moments at which nothing was under way: its frames are settled, to the last one.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from segnode.soak.checks import (
    PARTS,
    Sent,
    answer_problems,
    backward_problem,
    identity_problem,
    sameness_problems,
)

LOST_MEANS = """\
lost = sent - received - reported, summed over every stretch of every life of the node: `sent` is
counted by the soak's cameras, each frame before it goes out, `received` are the frames that the
node counts, `reported` those that the middleware told the node to be lost. A stretch begins when
the node is active and has answered a frame of every camera, and ends when nothing is under way.
Not in it: `probes`, with which a stretch is opened, and `unheard`, sent while the node was down,
inactive or not yet matched. Where a process is killed or stopped in mid-stream nobody can know
what it still took from the middleware: frames of that stretch that neither diagnostics nor answers
told of are `unknown`, by cause, and must have been sent after the last diagnostics, and where the
node lives on at the very moment of the cause. The queue of the node's subscription is
raised from 1 to 100 frames, because DDS does not report what it replaces there; in lives with the
shipped queue of 1 such frames are `replaced`."""

IN_TRANSIT_S = 0.3
"""What a frame may take from the camera into the node's numbers."""
ERROR_SHOWN_S = 10.0
"""For how long the level ERROR may follow a broken frame: the node shows a failure for 5 s, once a
second, on a machine that is busy."""


@dataclass(slots=True)
class Totals:
    """Sums over all stretches; the fields are as `LOST_MEANS` has them.

    Attributes:
        lost_answers: published by the node, not seen by the watcher, not reported as lost to it.
        labels: instances that own a pixel of their mask.
        missed: messages that the middleware reported as lost between the node and the watcher;
            a finding, except where the node's publishers have their shipped queue.
    """

    sent: int = 0
    received: int = 0
    reported: int = 0
    published: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    replaced: int = 0
    unknown: Counter[str] = field(default_factory=Counter)
    probes: int = 0
    unheard: int = 0
    answers: int = 0
    lost_answers: int = 0
    missed: int = 0
    detections: int = 0
    labels: int = 0


class Account:
    """One camera's frames: what was sent, what came back, and the node's own numbers.

    Attributes:
        totals: of all settled stretches.
        findings: broken promises, in order.
        injected: frames of each fault's kind.
        confirmed: those of them whose fate was seen to be the right one.
        counts: the node's last numbers; empty before the first of a life.
        network_hw: the network's input for its last answer.
        frame_s: what its last answer took, seconds.
    """

    def __init__(self, name: str) -> None:
        """Take the camera's name, as its frames have it before their number."""
        self.name = name
        self.totals = Totals()
        self.findings: list[str] = []
        self.injected: Counter[str] = Counter()
        self.confirmed: Counter[str] = Counter()
        self.counts: dict[str, int] = {}
        self.network_hw = (0, 0)
        self.frame_s = 0.0
        self._base: dict[str, int] | None = None
        self._sent: dict[int, Sent] = {}
        self._answers: dict[int, dict[str, dict[str, Any]]] = {}
        self._first = 0
        self._settled_exactly = False
        self._probing = False
        self.next_number = 0
        self._missed: Counter[str] = Counter()
        self._status_s = 0.0
        self._answered_by_status: frozenset[int] = frozenset()
        self._broken = (-1, -math.inf)
        self._last_answered = -1
        self._error = ''

    # What happens

    def send(self, number: int, sent: Sent) -> None:
        """Note a frame that a camera is about to send."""
        self.next_number = number + 1
        if sent.kind != 'frame':
            self.injected[sent.kind] += 1
        if sent.answer_hw is None:
            self._broken = number, sent.sent_s
        self._sent[number] = sent
        if self._base is None:
            if self._probing:
                self.totals.probes += 1
            else:
                self.totals.unheard += 1

    def answer(self, part: str, event: Mapping[str, Any]) -> None:
        """Note a part of an answer, as the watcher told it."""
        match = re.fullmatch(r'(.+)_(\d+)', event['frame_id'])
        number = int(match[2]) if match is not None and match[1] == self.name else -1
        if number < 0:
            self.findings.append(f'{part} with the frame id {event["frame_id"]!r} of no image')
            return
        if number < self._first:
            if self._settled_exactly:
                self.findings.append(f'frame {number}: its {part} came after all was settled')
            return
        # A quick answer may overtake what the camera says: it is held against it in the end.
        parts = self._answers.setdefault(number, {})
        if part in parts:
            self.findings.append(f'frame {number}: its {part} came twice')
        parts[part] = dict(event)
        if part == 'times':
            self.network_hw = (event['network_hw'][0], event['network_hw'][1])
            self.frame_s = event['total_ms'] / 1e3
        if len(parts) == len(PARTS):
            self.totals.detections += parts['detections']['count']
            self._last_answered = max(self._last_answered, number)

    def miss(self, part: str, count: int) -> None:
        """Note parts of answers that the middleware lost between the node and the watcher."""
        self._missed[part] += count
        self.totals.missed += count

    def status(self, counts: dict[str, int], at_s: float = 0.0, error: str = '') -> None:
        """Note the node's numbers, and hold them against those before.

        Args:
            counts: as in the diagnostics.
            at_s: monotonic time at which the node took them down.
            error: its message where the level is ERROR and nothing but a frame can be the cause.
        """
        for problem in (identity_problem(counts), backward_problem(self.counts, counts)):
            if problem:
                self.findings.append(f'diagnostics: {problem}')
        if self.is_open:
            # A subscription takes its number along when it is closed.
            lost = max(self.counts.get('message_lost', 0), counts.get('message_lost', 0))
            counts = {**counts, 'message_lost': lost}
        self.counts = counts
        self._status_s, self._answered_by_status = at_s, frozenset(self._answers)
        number, broken_s = self._broken
        caused = self._last_answered <= number or at_s - broken_s <= ERROR_SHOWN_S
        if error and error != self._error and not (number >= 0 and caused):
            self.findings.append(f'diagnostics: ERROR, but nothing was broken: {error}')
        self._error = error

    # Stretches

    @property
    def is_open(self) -> bool:
        """Whether frames are in a stretch."""
        return self._base is not None

    def probe(self) -> None:
        """Count what is sent from now on as probes, until a stretch is opened."""
        self._probing = True

    def has_last_answer(self) -> bool:
        """Return whether the last frame that was sent has its whole answer."""
        return len(self._answers.get(self.next_number - 1, ())) == len(PARTS)

    def open(self) -> None:
        """Begin a stretch at the node's last numbers; nothing is under way."""
        self._check_answers(complete=False)
        self._begin()

    def new_life(self) -> None:
        """Forget the numbers of a life that has ended."""
        self.counts = {}

    def balance(self) -> tuple[int, int, int]:
        """Return what is missing so far: frames of the node, frames in flight, answers."""
        if self._base is None:
            return 0, 0, 0
        taken = self._since('received') + self._since('message_lost')
        whole = sum(len(parts) == len(PARTS) for parts in self._answers.values())
        unseen = self._since('published') - whole
        return (
            len(self._sent) - taken,
            self.counts.get('in_flight', 0),
            # An answer of which several parts were lost is one answer still.
            max(0, unseen - max(self._missed.values(), default=0)),
        )

    def is_settled(self, replaces: bool) -> bool:
        """Return whether nothing is under way; where a queue replaces, frames may be missing."""
        missing, in_flight, answers = self.balance()
        return in_flight == answers == 0 and (missing == 0 or (replaces and missing > 0))

    def settle(self, replaces: bool, quiet: bool = False) -> None:
        """End a stretch at rest, and begin the next one.

        Args:
            replaces: the node's queue is of one frame, and what it replaces is not reported.
            quiet: frames came one by one and nothing else happened, so every fate is certain.
        """
        missing, _, lost_answers = self.balance()
        if missing < 0:
            self.findings.append(f'the node received {-missing} frames more than were sent')
        elif replaces:
            self.totals.replaced += missing
        else:
            self.totals.lost += missing
            if missing:
                self.findings.append(f'{missing} of {len(self._sent)} frames are lost')
        if lost_answers:
            self.findings.append(f'{lost_answers} answers were published and never came')
        if self._missed and not replaces:
            told = ', '.join(f'{count} of {part}' for part, count in self._missed.items())
            self.findings.append(f'answers were lost between the node and the watcher: {told}')
        self.totals.lost_answers += lost_answers
        self._check_newest()
        self._judge_fates(exact=missing == 0, quiet=quiet)
        self._check_answers(complete=not self._missed)
        self._add_up()
        self._begin()

    def cut(self, cause: str, at_s: float, replaces: bool = False) -> None:
        """End a stretch whose last frames nobody can know the fate of.

        Args:
            cause: why.
            at_s: monotonic time of it; what was sent later was sent to nobody.
            replaces: as in `settle`.
        """
        if self._base is None:
            return
        numbers = sorted(self._sent)
        taken = self._since('received') + self._since('message_lost')
        # Frames come in order: the first ones are those that the last status tells of.
        answered = [
            i
            for i in range(max(0, taken), len(numbers))
            if numbers[i] in self._answers and numbers[i] not in self._answered_by_status
        ]
        # The last of them may have been on their way when it happened, and did arrive.
        sent_before = sum(sent.sent_s <= at_s for sent in self._sent.values())
        arrived = max(min(taken, len(numbers)), *(i + 1 for i in answered), 0)
        counted = max(sent_before, arrived)
        missing = counted - taken - len(answered)
        if missing < 0:
            self.findings.append(f'the node received {-missing} frames more than were sent')
        since_s = min(at_s, self._status_s) - IN_TRANSIT_S
        recent = sum(
            self._sent[numbers[i]].sent_s >= since_s and i not in answered
            for i in range(max(0, taken), counted)
        )
        if missing > recent and not replaces:
            self.findings.append(
                f'{cause}: {missing} frames are unknown, but only {recent} were sent after the '
                f'last diagnostics, or {IN_TRANSIT_S} s before'
            )
        self.totals.unknown[cause] += max(0, missing)
        self.totals.unheard += len(numbers) - counted
        self._judge_fates(exact=False)
        self._check_answers(complete=False)
        self._add_up(counted, len(answered))
        self._base, self._probing = None, False
        self._forget(exactly=False)

    def _since(self, key: str) -> int:
        assert self._base is not None
        return self.counts.get(key, 0) - self._base.get(key, 0)

    def _begin(self) -> None:
        self._base, self._probing = dict(self.counts), False
        self._forget(exactly=True)

    def _forget(self, exactly: bool) -> None:
        self._sent, self._answers, self._missed = {}, {}, Counter()
        self._first, self._settled_exactly = self.next_number, exactly

    def _add_up(self, counted: int | None = None, answered: int = 0) -> None:
        totals = self.totals
        totals.sent += len(self._sent) if counted is None else counted
        totals.received += self._since('received') + answered
        totals.reported += self._since('message_lost')
        totals.published += self._since('published')
        for key in self.counts:
            if key.startswith('dropped_'):
                totals.dropped[key.removeprefix('dropped_')] += self._since(key)

    def _judge_fates(self, exact: bool, quiet: bool = False) -> None:
        """Hold what became of the frames against what had to, and confirm the faults."""
        refused = [s for s in self._sent.values() if s.answer_hw is None]
        decode = self._since('dropped_decode')
        # On a busy machine the next frame may come before this one was looked at.
        accounted = decode + self._since('dropped_superseded') + self._since('message_lost')
        if decode > len(refused):
            self.findings.append(
                f'{decode} frames were dropped as decode, but only {len(refused)} were broken'
            )
        elif exact and quiet and accounted < len(refused):
            self.findings.append(
                f'{len(refused)} broken frames came in quiet, but only {accounted} were dropped '
                'as decode, superseded or lost'
            )
        if quiet:
            self.findings += sameness_problems(self._sent, self._answers)
        if self._since('dropped_error'):
            self.findings.append(f'{self._since("dropped_error")} frames failed with an error')
        if exact and decode == len(refused):
            self.confirmed.update(s.kind for s in refused)
        for number, parts in self._answers.items():
            sent = self._sent.get(number)
            if sent is None:
                self.findings.append(f'frame {number} was answered, but never sent')
            elif sent.kind != 'frame' and not answer_problems(number, sent, parts):
                self.confirmed[sent.kind] += 1

    def _check_newest(self) -> None:
        """Nothing came after a stretch's last frame, so nothing may have taken its place.

        A queue loses the oldest first, so the last answer also comes where others are missed.
        """
        number = max(self._sent, default=-1)
        reported = self._since('message_lost') or self._since('dropped_error')
        if number >= 0 and number not in self._answers and not reported:
            sent = self._sent[number]
            if sent.answer_hw is not None:
                self.findings.append(f'frame {number} ({sent.kind}), the newest, has no answer')

    def _check_answers(self, complete: bool) -> None:
        """Check every answer; one that is not whole is a finding where it had to be."""
        for number, parts in self._answers.items():
            whole = len(parts) == len(PARTS)
            if self.is_open:
                self.totals.answers += whole
            if whole:
                self.totals.labels += sum(k > 0 for k in parts['mask'].get('labels', ()))
            if number in self._sent and (whole or complete):
                self.findings += answer_problems(number, self._sent[number], parts)
