# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What was measured, and how it is written as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from segnode.benchmark.measure import Spread
from segnode.percentiles import Percentiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """What a contender that rounds finds in the benchmark's own frames.

    Attributes:
        mask_ap: of it.
        mask_ap_fp32: of the native network in fp32.
        annotated: both are of the scene's truth, and not of fp32's own confident instances.
    """

    mask_ap: float
    mask_ap_fp32: float
    annotated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """One contender in one case.

    Attributes:
        precision: its number format.
        ms: of a call.
        ratio: how many times longer than segnode it took, round by round; None for segnode.
        agreement_fp32: share of pixels with segnode's label in fp32, None where not compared.
        calls: what the host did in one call, see ``count_calls``.
        memory_mb: device memory taken, None on a CPU.
        accuracy: None where it was not measured.
        notes: for people.
    """

    precision: str
    ms: Spread
    ratio: Spread | None = None
    agreement_fp32: float | None = None
    accuracy: Accuracy | None = None
    calls: Mapping[str, int]
    memory_mb: float | None
    notes: tuple[str, ...]

    def json(self) -> dict[str, Any]:
        """Return it flat; what compares with segnode is left out for segnode."""
        compared: dict[str, Any] = {}
        if self.ratio is not None:
            compared = {**self.ratio.json('ratio'), 'agreement_fp32': self.agreement_fp32}
        if self.accuracy is not None:
            compared |= asdict(self.accuracy)
        return {
            'precision': self.precision,
            **self.ms.json('ms'),
            **compared,
            'calls': dict(self.calls),
            'memory_mb': self.memory_mb,
            'notes': list(self.notes),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """What the network takes at least; None where that is not known.

    Attributes:
        gflop: of one call.
        floor_ms: at the device's peak.
        times_floor: how many times that segnode took.
    """

    gflop: float | None = None
    floor_ms: float | None = None
    times_floor: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """All contenders in one case.

    Attributes:
        shape: of the frames, HxW.
        detections: of a frame, the median.
        batch: frames in a call.
        device: where it ran.
        segnode: its times.
        rounds: timed.
        warm_up: rounds before.
        overflow: more candidates were found than NMS takes.
        against: the references' times.
        stages: segnode's medians, milliseconds.
        failed: why a reference did not run.
        floor: what the network takes at least.
    """

    shape: str
    detections: float
    batch: int
    device: str
    segnode: Times
    rounds: int
    warm_up: int
    overflow: bool
    against: Mapping[str, Times]
    stages: Mapping[str, float]
    failed: Mapping[str, str]
    floor: Floor

    def json(self) -> dict[str, Any]:
        """Return it with segnode's times in line."""
        whole = self.detections == int(self.detections)
        return {
            'shape': self.shape,
            'detections': int(self.detections) if whole else self.detections,
            'batch': self.batch,
            'device': self.device,
            **self.segnode.json(),
            'rounds': self.rounds,
            'warm_up': self.warm_up,
            'overflow': self.overflow,
            'against': {name: times.json() for name, times in self.against.items()},
            'stages': dict(self.stages),
            'failed': dict(self.failed),
            'gflop': self.floor.gflop,
            'floor_ms': self.floor.floor_ms,
            'times_floor': self.floor.times_floor,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PartRow:
    """One part on its own.

    Attributes:
        name: ``preprocess`` or ``paste``.
        shape: of the camera frame or the label image, HxW.
        count: frames or masks.
        ms: segnode's.
        against: milliseconds and ratio of each reference.
        network_input: HxW, None for a paste.
    """

    name: str
    shape: str
    count: int
    ms: Spread
    against: Mapping[str, tuple[Spread, Spread]] = field(default_factory=dict)
    network_input: str | None = None

    def json(self) -> dict[str, Any]:
        """Return it flat."""
        row = {
            'name': self.name,
            'shape': self.shape,
            'count': self.count,
            **self.ms.json('ms'),
            'against': {
                name: {**ms.json('ms'), **ratio.json('ratio')}
                for name, (ms, ratio) in self.against.items()
            },
        }
        if self.network_input is not None:
            row['network_input'] = self.network_input
        return row


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRow:
    """The whole node with images of one size and transport.

    Attributes:
        shape: of the images, HxW.
        transport: raw or compressed.
        model: its name.
        cameras: of the node.
        rate_hz: of each camera.
        image_bytes: of a message.
        sent: frames that the cameras published.
        received: of them that the node took.
        published: answers, all of which arrived.
        dropped: frames by reason, those that there were.
        instances: in an answer, the median.
        age_ms: of the answers at the subscriber.
        relay_ms: of the same images that went through the relay.
        overheads_ms: by round, how much the node's median is above the relay's.
        published_hz: answers a second, of all cameras together.
        stage_ms: means of the node's own stages.
        cpu_ms: processor time of the node a frame sent; None where the system does not tell.
        relay_cpu_ms: the same of the relay.
    """

    shape: str
    transport: str
    model: str
    cameras: int
    rate_hz: float
    image_bytes: int
    sent: int
    received: int
    published: int
    dropped: Mapping[str, int]
    instances: float
    age_ms: Percentiles
    relay_ms: Percentiles
    overheads_ms: Sequence[float]
    published_hz: float
    stage_ms: Mapping[str, float]
    cpu_ms: float | None
    relay_cpu_ms: float | None

    def json(self) -> dict[str, Any]:
        """Return it flat."""
        return {
            'shape': self.shape,
            'transport': self.transport,
            'model': self.model,
            'cameras': self.cameras,
            'rate_hz': self.rate_hz,
            'image_bytes': self.image_bytes,
            'sent': self.sent,
            'received': self.received,
            'published': self.published,
            'dropped': sum(self.dropped.values()),
            'dropped_by_reason': dict(self.dropped),
            'instances': self.instances,
            'age_ms_p50': self.age_ms.p50,
            'age_ms_p95': self.age_ms.p95,
            'relay_ms_p50': self.relay_ms.p50,
            'relay_ms_p95': self.relay_ms.p95,
            'overhead_ms_p50': self.age_ms.p50 - self.relay_ms.p50,
            'overhead_ms_rounds': list(self.overheads_ms),
            'published_hz': self.published_hz,
            'stage_ms': dict(self.stage_ms),
            'cpu_ms': self.cpu_ms,
            'relay_cpu_ms': self.relay_cpu_ms,
        }
