# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""One run of the node's process: what it held while it ran, and how it ended."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segnode.demo.processes import Child
from segnode.soak.checks import Sample
from segnode.soak.frames import Transport
from segnode.soak.shared_memory import mapped_segments, remove_orphans

PATIENCE_S = 60.0
ENDING_LIMIT_S = 10.0
QUEUE = 100
ANSWERS_QUEUE = 20
"""Of the topics that the watcher checks, in place of 5: a busy machine loses nothing by it, and a
stopped subscriber does not make the node hold much more."""


@dataclass(slots=True)
class Life:
    """One run of the node's process.

    Attributes:
        number: from 0.
        transport: of the images.
        replaces: the queue of its subscriptions holds one frame, as shipped.
        started_s: monotonic time of its start.
        ready_s: monotonic time when it was active, 0 before.
        samples: of its process, at rest.
        ended_by: the signal that ended it, empty while it runs and after a crash.
        exit_code: of its process.
        ending_s: seconds from the signal to the end.
        seconds: from its start to its end.
    """

    number: int
    transport: Transport
    replaces: bool
    started_s: float
    ready_s: float = 0.0
    samples: list[Sample] = field(default_factory=list)
    ended_by: str = ''
    exit_code: int | None = None
    ending_s: float = 0.0
    seconds: float = 0.0

    def parameters(self, topics: Mapping[str, str], outputs: Sequence[str]) -> dict[str, Any]:
        """Return the node's parameters for this life.

        Args:
            topics: base topic of each camera's images, by its name.
            outputs: what the names of each camera's outputs begin with.
        """
        found: dict[str, Any] = {
            'image_topics': list(topics.values()),
            'camera_names': list(topics),
            'image_transport': self.transport,
        }
        if self.replaces:
            return found
        suffix = '/compressed' if self.transport == 'compressed' else ''
        for topic in topics.values():
            found[f'qos_overrides.{topic}{suffix}.subscription.depth'] = QUEUE
        for output in outputs:
            for part in ('detections', 'instance_mask', 'stage_times'):
                found[f'qos_overrides.{output}{part}.publisher.depth'] = ANSWERS_QUEUE
        return found

    def sample(self, process_id: int) -> None:
        """Take down what its process holds; nothing where the system does not tell."""
        proc = Path('/proc', str(process_id))
        # One that has ended, and was not waited for, has no memory any more.
        with contextlib.suppress(OSError, KeyError):
            text = (proc / 'status').read_text(encoding='utf-8', errors='replace')
            status = dict(line.split(':', 1) for line in text.splitlines() if ':' in line)
            self.samples.append(
                Sample(
                    second=time.monotonic() - self.ready_s,
                    memory_mib=int(status['VmRSS'].split()[0]) / 1024,
                    files=sum(1 for _ in (proc / 'fd').iterdir()),
                    threads=int(status['Threads']),
                )
            )

    def end(self, child: Child, number: signal.Signals) -> list[str]:
        """Send its process a signal, wait for its end, and return what was wrong with that."""
        segments, start_s = mapped_segments(child.process.pid), time.monotonic()
        self.ended_by = number.name
        child.process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.process.wait(PATIENCE_S)
        child.end(signal.SIGKILL, PATIENCE_S)
        self.ending_s = time.monotonic() - start_s
        if number == signal.SIGKILL:
            remove_orphans(segments)
        return self.close(child)

    def close(self, child: Child) -> list[str]:
        """Return what was wrong with the end of its process, which has ended or is about to."""
        child.end(None, PATIENCE_S)
        self.seconds = time.monotonic() - self.started_s
        self.exit_code = child.process.wait()
        found = []
        if self.exit_code != (-signal.SIGKILL if self.ended_by == 'SIGKILL' else 0):
            found.append(
                f'ended by {self.ended_by or "itself"} with code {self.exit_code}: '
                f'{child.last_words()}'
            )
        elif not self.ended_by:
            found.append('ended by itself')
        if self.ending_s > ENDING_LIMIT_S:
            found.append(f'took {self.ending_s:.1f} s to end')
        if 'Traceback' in child.log.read_text(encoding='utf-8', errors='replace'):
            found.append(f'a traceback in {child.log}')
        return [f'life {self.number}: {text}' for text in found]
