# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The same model with its dense parts in another engine, as ``segnode export`` makes it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from segnode.benchmark.contenders import Answer, Case, SegnodeContender
from segnode.benchmark.planted import render_frames, rendered_truth
from segnode.benchmark.rows import Accuracy
from segnode.checkpoint import NativeModel
from segnode.checkpoint.exported import Format
from segnode.config import Config
from segnode.demo.scene import CLASS_NAMES
from segnode.engine import Engine
from segnode.evaluation.annotations import Annotations
from segnode.export.request import Calibration, Request
from segnode.export.run import export
from segnode.image import Image

_FORMATS: Final[dict[str, Format]] = {'openvino': 'openvino', 'onnxruntime': 'onnx'}


class ExportContender:
    """An export for each size of frame, made when a case of it comes.

    In INT8 the ranges come from the benchmark's own frames, and no layer but those that rank is
    kept from it: planted weights cannot tell what that costs. Those of a model can, and its mask
    AP is measured on these frames.

    Attributes:
        name: the engine, or with ``-int8`` behind it.
        precision: fp32 or int8.
    """

    def __init__(
        self,
        name: str,
        model: NativeModel,
        config: Config,
        report: Callable[[str], None],
        *,
        planted: bool,
    ) -> None:
        """Take a model, the settings that it runs with, and whether its weights are planted."""
        self.name = name
        engine, _, form = name.partition('-')
        self.precision = form or 'fp32'
        self._format = _FORMATS[engine]
        self._model, self._config, self._report = model, config, report
        # It goes with this object.
        self._folder = tempfile.TemporaryDirectory(prefix='segnode-benchmark-')
        self._planted = planted
        self._made: dict[tuple[int, int], tuple[SegnodeContender, Accuracy | None]] = {}
        self._current: SegnodeContender | None = None
        self._accuracy: Accuracy | None = None

    def prepare(self, case: Case) -> None:
        """Export for the frames' size, and plant."""
        if case.image_hw not in self._made:
            self._made[case.image_hw] = self._make(case.image_hw)
        self._current, self._accuracy = self._made[case.image_hw]
        self._current.prepare(case)

    def accuracy(self) -> Accuracy | None:
        """Return how well it finds what the frames of this case show; None if planted."""
        return self._accuracy

    def run(self, frames: Sequence[Image]) -> list[Answer]:
        """Answer frames of one size."""
        assert self._current is not None
        return self._current.run(frames)

    def _make(self, image_hw: tuple[int, int]) -> tuple[SegnodeContender, Accuracy | None]:
        output = Path(self._folder.name, '{}x{}'.format(*image_hw))
        sides: dict[str, Any] = {
            'resolution.short_side': min(image_hw),
            'resolution.long_side': max(image_hw),
        }
        config = self._config.replace(sides)
        quantised = self.precision == 'int8'
        frames = render_frames(image_hw)
        request = Request(
            form=self._format,
            precision=self.precision,
            shapes=(image_hw,),
            output=output,
            calibration=Calibration(pictures=frames, sha256='') if quantised else None,
            check=() if self._planted else frames,
            truth=None if self._planted else _truth(self._model.class_names, image_hw),
            search=False,
        )
        self._report(f'exporting for {self.name}')
        found = export(config, self._model, request, lambda _: None, _silently)
        folder = {'model': str(output), 'weights': '', 'norm_eps': -1.0, 'class_names': ()}
        auto = dict.fromkeys(('backend', 'precision', 'device'), 'auto')
        engine = Engine(config.replace({**folder, **auto}))
        return SegnodeContender(engine), _accuracy(found['agreement'])


def _truth(class_names: Sequence[str], image_hw: tuple[int, int]) -> Annotations | None:
    """Return what the frames show where the model knows it, None for what fp32 finds in them."""
    return rendered_truth(image_hw) if set(class_names) & set(CLASS_NAMES) else None


def _accuracy(agreement: Mapping[str, Any] | None) -> Accuracy | None:
    if agreement is None or agreement['mask_ap'] is None:
        return None
    return Accuracy(**{field.name: agreement[field.name] for field in fields(Accuracy)})


def _silently(pictures: Iterable[Image], _: str) -> Iterable[Image]:
    return pictures
