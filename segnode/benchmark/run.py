# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""A benchmark from a request to its figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from segnode.benchmark.contenders import (
    Answer,
    Case,
    Contender,
    SegnodeContender,
    agreement,
    check_counts,
    check_equal,
)
from segnode.benchmark.detectron2 import Detectron2
from segnode.benchmark.floor import Peak, device_peak, floor_ms
from segnode.benchmark.measure import Spread, count_calls, paired_ratio, time_rounds
from segnode.benchmark.parts import measure_parts
from segnode.benchmark.planted import (
    FRAMES,
    PlantedDetections,
    named_architecture,
    plant_model,
    render_frames,
)
from segnode.benchmark.request import Request
from segnode.benchmark.rows import Accuracy, Floor, Row, Times
from segnode.benchmark.torchvision import DIFFERENCES, Torchvision
from segnode.checkpoint import NativeModel, load_model
from segnode.cli import stage_summary
from segnode.config import Config
from segnode.engine import Engine
from segnode.engine.device import select_device
from segnode.errors import ConfigError, MeasurementError, first_line
from segnode.hardware.machine import describe_machine
from segnode.image import Image
from segnode.model.architecture import Architecture
from segnode.model.costs import count_costs
from segnode.model.precision import exact_float32

Report = Callable[[str], None]

# Engines that ``segnode export`` makes a model for.
ENGINES = ('openvino', 'onnxruntime')

ROUNDS = {'cpu': 20, 'cuda': 200}
WARM_UP = {'cpu': 3, 'cuda': 20}
# What a reference may raise that compilers, allocators and kernels have a hand in.
_FAILURES = (RuntimeError, ImportError, AttributeError, TypeError, ValueError, MemoryError)


@dataclass(slots=True)
class Entry:
    """A contender with what is known of it.

    Attributes:
        contender: None once it has failed for good.
        exact: it must give segnode's answers in float32.
        rebuild: makes it anew without compiled layers, None where it has none.
        weights_bytes: device memory that it takes at rest.
        notes: for the report.
        accuracy: gives that of the case that it is prepared for, where it is measured.
    """

    contender: Contender
    exact: bool
    rebuild: Callable[[], Contender] | None
    weights_bytes: int
    notes: list[str] = field(default_factory=list)
    accuracy: Callable[[], Accuracy | None] = lambda: None


def run(config: Config, request: Request, report: Report) -> dict[str, Any]:
    """Measure everything that a request asks for.

    Returns:
        ``machine``, ``model``, ``protocol``, ``rows`` and ``parts``, ready for JSON.

    Raises:
        SegnodeError: the request cannot be met, or contenders differ.
    """
    device = select_device(config.device)
    rounds = request.rounds or ROUNDS[device.type]
    warm_up = min(WARM_UP[device.type], rounds)
    rows: list[Row] = []
    name = config.model or 'the embedded model'
    if request.shapes:
        bench = Bench(config, request, device, report)
        name = bench.name
        rows = [bench.measure(case, rounds, warm_up) for case in bench.cases()]
    part_rows = measure_parts(config, request, device, rounds, warm_up) if request.parts else []
    return {
        'machine': describe_machine(device),
        'model': name,
        'protocol': (
            f'{rounds} rounds after {warm_up} of warm-up, contenders in turn; host to host; '
            'without message decoding and publishing'
        ),
        'rows': [row.json() for row in rows],
        'parts': [row.json() for row in part_rows],
    }


class _Frames:
    """The frames of a case, in batches that go round."""

    def __init__(self, case: Case) -> None:
        self._frames = render_frames(case.image_hw)
        self._size = case.batch

    def batch(self, number: int) -> list[Image]:
        """Return the frames of a round."""
        return [self._frames[(number + k) % len(self._frames)] for k in range(self._size)]

    def caller(self, contender: Contender) -> Callable[[int], object]:
        """Return what a round calls."""
        return lambda number: contender.run(self.batch(number))


class Bench:
    """One model in every contender.

    Attributes:
        name: the model, and whether it is planted.
    """

    def __init__(
        self, config: Config, request: Request, device: torch.device, report: Report
    ) -> None:
        """Load or plant the model, and build all contenders.

        Raises:
            SegnodeError: the model is not usable, or a reference cannot have it.
        """
        self._request = request
        self._device = device
        self._report = report
        if request.plant:
            _check_counts(config, request)
        model = plant_model(config) if request.plant else load_model(config, report)
        self.name = f'{model.name}{", planted" if request.plant else ""}'
        self._architecture: Architecture | None = None
        if isinstance(model, NativeModel):
            self._architecture = model.architecture
        elif request.references:
            raise ConfigError(
                f'--against: expected none beside an exported model, found '
                f'{", ".join(request.references)}; its weights are for one program alone'
            )
        before = _allocated(device)
        engine = Engine(config, report, model=model)
        self._segnode = SegnodeContender(engine)
        self._entries = [Entry(self._segnode, True, None, _allocated(device) - before)]
        self._exact = self._segnode
        if request.references:
            if engine.precision != 'fp32':
                exact = config.replace({'precision': 'fp32'})
                self._exact = SegnodeContender(Engine(exact, model=model))
            assert isinstance(model, NativeModel)
            for reference in _with_best(request.references, device):
                self._entries.append(self._build(reference, model))

    def cases(self) -> Iterator[Case]:
        """Yield every combination that is asked for."""
        classes = 1 if self._architecture is None else self._architecture.num_classes
        for image_hw in self._request.shapes:
            for count in self._request.detections:
                planted = None if count is None else PlantedDetections(count, image_hw, classes)
                for batch in self._request.batches:
                    yield Case(image_hw=image_hw, batch=batch, planted=planted)

    def measure(self, case: Case, rounds: int, warm_up: int) -> Row:
        """Check, warm up and time all contenders in one case.

        Raises:
            MeasurementError: they differ, or one that must run does not.
        """
        frames = _Frames(case)
        torch.compiler.reset()
        shares = self._check_equal(case, frames.batch(0))
        running, memory, failed = self._warm_up_all(case, frames, warm_up)
        self._segnode.stages.clear()
        contenders = [entry.contender for entry in running]
        label = 'x'.join(map(str, case.image_hw))
        bar = tqdm(range(rounds), desc=label, unit='round', disable=None, leave=False)
        times = time_rounds([frames.caller(each) for each in contenders], iter(bar))
        summary = stage_summary(self._segnode.stages)
        results: dict[str, Times] = {}
        for index, entry in enumerate(running):
            name, call = entry.contender.name, frames.caller(entry.contender)
            results[name] = Times(
                precision=entry.contender.precision,
                ms=Spread.of(times[:, index]),
                ratio=paired_ratio(times[:, index], times[:, 0]) if index > 0 else None,
                agreement_fp32=shares.get(name),
                accuracy=entry.accuracy(),
                calls=count_calls(partial(call, 0), self._device),
                memory_mb=_megabytes(memory[name], self._device),
                notes=tuple(entry.notes),
            )
        found = [len(a.scores) for n in range(FRAMES) for a in self._segnode.run(frames.batch(n))]
        count = float(np.median(found))
        ours = results.pop(self._segnode.name)
        return Row(
            shape=label,
            detections=count,
            batch=case.batch,
            device=str(self._device),
            segnode=ours,
            rounds=rounds,
            warm_up=warm_up,
            overflow=self._segnode.overflow,
            against=results,
            stages={name: ms['p50'] for name, ms in summary.items()},
            failed=failed,
            floor=self._floor(case, round(count), ours.ms.p50),
        )

    def _warm_up_all(
        self, case: Case, frames: _Frames, rounds: int
    ) -> tuple[list[Entry], dict[str, int], dict[str, str]]:
        """Return who runs, the device memory that each takes, and why others do not run."""
        running: list[Entry] = []
        memory: dict[str, int] = {}
        failed: dict[str, str] = {}
        for entry in self._entries:
            name = entry.contender.name
            try:
                answers, memory[name] = self._warm_up(entry, case, frames, rounds)
            except _FAILURES as error:
                if entry.rebuild is None:
                    raise MeasurementError(f'{name} failed: {_reason(error)}') from None
                failed[name] = _reason(error)
                continue
            check_counts(answers, case.planted, name)
            running.append(entry)
        return running, memory, failed

    def _build(self, reference: str, model: NativeModel) -> Entry:
        kind, _, best = reference.partition('-')
        if kind in ENGINES:
            return self._build_export(reference, model, exact=not best)
        family = model.architecture.semantics.family
        if kind == 'detectron2' and family != 'detectron2':
            raise ConfigError(
                f"--against detectron2: expected a model of Detectron2's family, found "
                f"{model.name}; its weights need torchvision's own RoIAlign and paste"
            )
        exact = kind == family and not best
        if kind != family and not self._request.plant:
            raise ConfigError(
                f'--against torchvision: expected --plant with {model.name}, whose weights find '
                "other things with torchvision's RoIAlign; or --model maskrcnn_resnet50_fpn"
            )
        self._report(f'building {reference}')
        make = Detectron2 if kind == 'detectron2' else Torchvision
        settings = self._segnode.engine.settings

        def build(*, compiled: bool) -> Contender:
            return make(
                model.architecture,
                model.state_dict,
                settings,
                self._device,
                best=bool(best),
                compiled=compiled,
            )

        before = _allocated(self._device)
        contender = build(compiled=True)
        entry = Entry(
            contender,
            exact,
            (lambda: build(compiled=False)) if best else None,
            _allocated(self._device) - before,
        )
        if kind != family:
            entry.notes.append(DIFFERENCES)
        return entry

    def _build_export(self, reference: str, model: NativeModel, *, exact: bool) -> Entry:
        if self._device.type != 'cpu':
            raise ConfigError(
                f'--against {reference}: expected --device cpu with it, found {self._device}'
            )
        # Here, as it needs what exports a model.
        from segnode.benchmark.exports import ExportContender

        config, planted = self._segnode.engine.config, self._request.plant
        contender = ExportContender(reference, model, config, self._report, planted=planted)
        return Entry(contender, exact, None, 0, accuracy=contender.accuracy)

    def _check_equal(self, case: Case, frames: Sequence[Image]) -> dict[str, float]:
        """Compare answers in float32; return the share of equal labels by reference."""
        references = [e for e in self._entries[1:] if e.rebuild is None]
        if not references:
            return {}
        shares = {}
        with exact_float32():
            self._exact.prepare(case)
            ours = self._exact.run(frames)
            for entry in references:
                entry.contender.prepare(case)
                theirs = entry.contender.run(frames)
                check_counts(theirs, case.planted, entry.contender.name)
                shares[entry.contender.name] = (
                    check_equal(ours, theirs, entry.contender.name)
                    if entry.exact
                    else agreement(ours, theirs)
                )
        return shares

    def _warm_up(
        self, entry: Entry, case: Case, frames: _Frames, rounds: int
    ) -> tuple[list[Answer], int]:
        """Run the first rounds; return the first answers and the device memory taken in all."""
        entry.contender.prepare(case)
        before = _reserved(self._device)
        try:
            answers = entry.contender.run(frames.batch(0))
        except _FAILURES as error:
            if entry.rebuild is None:
                raise
            reason = f'not compiled, as that failed ({_reason(error)})'
            self._report(f'{entry.contender.name}: {reason}')
            entry.notes.append(reason)
            entry.contender = entry.rebuild()
            entry.contender.prepare(case)
            answers = entry.contender.run(frames.batch(0))
        for number in range(1, rounds):
            entry.contender.run(frames.batch(number))
        return answers, entry.weights_bytes + _reserved(self._device, free=False) - before

    def _floor(self, case: Case, detections: int, ms_p50: float) -> Floor:
        peak: Peak | None = device_peak(self._device)
        half = self._segnode.precision in ('fp16', 'bf16')
        if self._architecture is None:
            return Floor()
        layers = count_costs(
            self._architecture,
            case.image_hw,
            images=case.batch,
            proposals=self._segnode.engine.settings.proposals,
            masks=detections,
        ).layers
        gflop = sum(layer.flop for layer in layers) / 1e9
        if peak is None or not half:
            return Floor(gflop=gflop)
        least = floor_ms(layers, peak)
        return Floor(gflop=gflop, floor_ms=least, times_floor=ms_p50 / least)


def _check_counts(config: Config, request: Request) -> None:
    most = config.filter.max_instances or named_architecture(config).max_instances
    for count in request.detections:
        if count is not None and count > most:
            raise ConfigError(
                f"--detections: expected at most {most}, the model's own limit, found {count}; "
                'raise it with --max-instances'
            )


def _with_best(references: Sequence[str], device: torch.device) -> list[str]:
    """Add each reference at its best on a GPU."""
    names = list(references)
    if device.type == 'cuda':
        names += [f'{name}-best' for name in references if not name.endswith('-best')]
    return list(dict.fromkeys(names))


def _allocated(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == 'cuda' else 0


def _reserved(device: torch.device, *, free: bool = True) -> int:
    if device.type != 'cuda':
        return 0
    if free:
        torch.cuda.empty_cache()
    return torch.cuda.memory_reserved(device)


def _megabytes(size: int, device: torch.device) -> float | None:
    return size / 2**20 if device.type == 'cuda' else None


def _reason(error: BaseException) -> str:
    text = first_line(error)
    name = type(error).__name__
    return name if text == name else f'{name}: {text[:200]}'
