# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""An export from a request to a folder and its figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from segnode.checkpoint import NativeModel
from segnode.config import Config
from segnode.engine import Engine
from segnode.engine.exported import select_engine
from segnode.errors import ConfigError, SegnodeError, first_line
from segnode.export.folder import ExportFolder, staged
from segnode.export.parity import CONFIDENT, Agreement, Reference, reindexed
from segnode.export.parts import PartProgram, trace_parts
from segnode.export.programs import Writer, select_writer
from segnode.export.quantisation import (
    MASK_ROIS,
    Samples,
    gather_samples,
    load_nncf,
    noise_by_layer,
    quantise,
    ranking_layers,
    trunk_input,
)
from segnode.export.request import Request
from segnode.image import Image
from segnode.kernels.preprocess import resized_hw
from segnode.model.mask_rcnn import build_mask_rcnn
from segnode.torch_features import check_export

Report = Callable[[str], None]
Progress = Callable[[Iterable[Image], str], Iterable[Image]]

# Mask AP that INT8 may lose before layers stay in float32: of what was annotated, and of the
# float32 network's own answers, which no other network reaches at the highest IoUs.
MOST_LOST: Final = 0.01
MOST_LOST_OF_OWN: Final = 0.08
# Layers that stay in float32, tried in turn.
_KEPT: Final = (2, 4, 8, 16, 32)
# Pictures that tell how noisy a layer is.
_NOISE_PICTURES: Final = 2


def export(
    config: Config, model: NativeModel, request: Request, report: Report, progress: Progress
) -> dict[str, Any]:
    """Write the folder, and compare it with the native network in float32.

    Args:
        config: sides of the network's input, which the folder keeps, and settings to compare with.
        model: what to export.
        request: how.
        report: is told in a line what is done.
        progress: goes through pictures and shows it.

    Returns:
        What was written and measured, ready for JSON.

    Raises:
        SegnodeError: it cannot be exported so.
    """
    model = _with_sides(model, config)
    job = _Job(config, model, request, report, progress)
    return job.run()


def _with_sides(model: NativeModel, config: Config) -> NativeModel:
    """Return the model with the sides that are asked for as its own."""
    a, wanted = model.architecture, config.resolution
    a = dataclasses.replace(
        a,
        short_side=wanted.short_side or a.short_side,
        long_side=wanted.long_side or a.long_side,
    )
    return dataclasses.replace(model, architecture=a)


def _check_layers(part: PartProgram, found: Iterable[str]) -> None:
    """Make sure that every layer can be kept in float32 by its name.

    Raises:
        ConfigError: a converted part has none of the name.
    """
    wanted = {name.partition('#')[0] for name in part.layers.values()}
    if lacking := sorted(wanted - {name.partition('#')[0] for name in found}):
        raise ConfigError(
            f'--precision int8: expected the layers of {part.name} by name in the converted '
            f'program, found none called {lacking[0]} ({len(lacking)} of {len(wanted)} lack); '
            'take another --format, or the versions that segnode[export] names'
        )


@dataclass(frozen=True, slots=True)
class _Candidate:
    """Quantised parts, the layers of each that stay in float32, and how they did."""

    models: dict[str, Any]
    kept: dict[str, list[str]]
    agreement: Agreement | None


class _Job:
    def __init__(
        self,
        config: Config,
        model: NativeModel,
        request: Request,
        report: Report,
        progress: Progress,
    ) -> None:
        self._config = config.replace({'backend': 'auto', 'precision': 'fp32', 'device': 'cpu'})
        self._model = model
        self._report, self._progress = report, progress
        self._shapes = tuple(dict.fromkeys(self._padded(hw) for hw in request.shapes))
        self._request = self._fitting(request)
        self._samples = Samples(())
        self._reference: Reference | None = None
        self._kept: dict[str, list[str]] = {}

    def run(self) -> dict[str, Any]:
        request = self._request
        writer = select_writer(request.form)
        if request.check:
            select_engine(request.form, request.precision, lambda _: None)
        if request.precision == 'int8':
            load_nncf()
            self._check_calibration()
            check_export('--precision int8')
        if request.form == 'openvino' and not request.shapes:
            check_export('--shapes: expected sizes of images, found none', 'give them, ')
        network = build_mask_rcnn(self._model.architecture, self._model.state_dict)
        parts = trace_parts(network, self._shapes, self._report)
        converted = {}
        for part in parts:
            self._report(f'converting {part.file_stem}')
            converted[part.file_stem] = self._convert(part, writer)
        if request.check:
            native = Engine(self._config, model=self._model)
            self._reference = Reference(
                native, request.check, request.truth, self._shown('native fp32')
            )
        with staged(request.output) as place:
            folder = ExportFolder(place, writer)
            if request.precision == 'int8':
                agreement = self._quantise(folder, parts, converted, writer)
            else:
                for part in parts:
                    folder.add(part, converted[part.file_stem])
                self._finish(folder, None)
                agreement = self._compare(folder)
            self._finish(folder, agreement)
            size = sum(file.stat().st_size for file in place.iterdir())
        return {
            'output': str(request.output),
            'format': request.form,
            'precision': request.precision,
            'model': self._model.name,
            'weights_sha256': self._model.weights_sha256,
            'parts': [part.file_stem for part in parts],
            'shapes': [list(hw) for hw in self._shapes],
            'bytes': size,
            **self._further(agreement),
            'whole': False,
        }

    def _convert(self, part: PartProgram, writer: Writer) -> Any:
        try:
            return writer.convert(part)
        except Exception as error:
            # Which layers a converter knows differs from release to release, and so do its types.
            versions = {'torch': torch.__version__, **writer.versions}
            raise SegnodeError(
                f'{part.file_stem}: expected that {_listed(versions)} convert it, found '
                f'{type(error).__name__}: {first_line(error)}; take another release of them, or '
                'another --format'
            ) from error

    def _finish(self, folder: ExportFolder, agreement: Agreement | None) -> None:
        folder.finish(
            self._model,
            self._request.form,
            self._request.precision,
            self._shapes,
            self._further(agreement),
        )

    def _further(self, agreement: Agreement | None) -> dict[str, Any]:
        calibration = self._request.calibration
        return {
            'calibration': None
            if calibration is None
            else {'pictures': len(self._samples.pictures), 'sha256': calibration.sha256},
            'float32_layers': [name for names in self._kept.values() for name in names],
            'agreement': None if agreement is None else agreement.json(),
        }

    def _compare(self, folder: ExportFolder) -> Agreement | None:
        if self._reference is None:
            return None
        config = self._config.replace(
            {'model': str(folder.path), 'weights': '', 'norm_eps': -1.0,
             'precision': 'auto', 'class_names': ()}
        )  # fmt: skip
        engine = Engine(config)
        return self._reference.compare(engine, self._shown(self._request.precision))

    def _quantise(
        self,
        folder: ExportFolder,
        parts: Sequence[PartProgram],
        converted: Mapping[str, Any],
        writer: Writer,
    ) -> Agreement | None:
        """Write the parts in INT8, and keep layers in float32 while too much is lost."""
        self._gather(parts)
        layers = {part.file_stem: writer.layers(converted[part.file_stem]) for part in parts}
        for part in parts:
            _check_layers(part, layers[part.file_stem])
        self._kept = {stem: ranking_layers(names) for stem, names in layers.items()}
        changed = list(parts)
        noisiest: list[tuple[str, str]] | None = None
        models: dict[str, Any] = {}
        best: _Candidate | None = None
        for count in (0, *_KEPT):
            if count:
                if noisiest is None:
                    noisiest = self._noisiest(parts)
                chosen = noisiest[:count]
                changed = self._keep(parts, layers, chosen)
                if not changed:
                    break
                lost = best.agreement.lost if best and best.agreement else 0.0
                self._report(
                    f'keeping in fp32, as INT8 loses {lost:.3f} of mask AP: '
                    + ', '.join(name for _, name in chosen)
                )
            for part in changed:
                stem = part.file_stem
                self._report(f'quantising {stem}')
                models[stem] = self._quantised(part, converted[stem], self._kept[stem])
                folder.add(part, models[stem])
            self._finish(folder, None)
            agreement = self._compare(folder)
            better = best is None or best.agreement is None or agreement is None
            if better or agreement.lost < best.agreement.lost:  # type: ignore[union-attr]
                best = _Candidate(dict(models), dict(self._kept), agreement)
            if agreement is None or not self._request.search or not self._loses(agreement):
                break
        assert best is not None
        for part in parts:
            if best.models[part.file_stem] is not models[part.file_stem]:
                folder.add(part, best.models[part.file_stem])
        self._kept = best.kept
        self._judge(best.agreement)
        return best.agreement

    def _judge(self, agreement: Agreement | None) -> None:
        """Say where INT8 loses too much, or where nothing can tell."""
        if not self._request.search:
            return
        if agreement is None:
            self._report('INT8 was not checked: there is no picture to check on')
        elif agreement.mask_ap is None or not agreement.mask_ap_fp32:
            self._report(
                'INT8 was not checked: '
                + (
                    'fp32 finds none of what is annotated in the pictures that check'
                    if agreement.annotated
                    else f'fp32 finds nothing of a score of {CONFIDENT} in the pictures that check'
                )
            )
        elif self._loses(agreement):
            count = sum(map(len, self._kept.values()))
            self._report(
                f'INT8 loses {agreement.lost:.3f} of mask AP even with {count} layers in fp32, '
                f'more than the {self._limit(agreement)} allowed; calibrate on other pictures, or '
                'export in fp32 or bf16'
            )

    def _loses(self, agreement: Agreement) -> bool:
        return agreement.lost > self._limit(agreement)

    @staticmethod
    def _limit(agreement: Agreement) -> float:
        return MOST_LOST if agreement.annotated else MOST_LOST_OF_OWN

    def _keep(
        self,
        parts: Sequence[PartProgram],
        layers: Mapping[str, Sequence[str]],
        chosen: Sequence[tuple[str, str]],
    ) -> list[PartProgram]:
        """Set what stays in float32; return the parts for which that is new."""
        changed = []
        for part in parts:
            names = {name for where, name in chosen if where == part.name}
            every = layers[part.file_stem]
            kept = [n for n in every if n.partition('#')[0] in names or n in ranking_layers([n])]
            if kept != self._kept[part.file_stem]:
                self._kept[part.file_stem] = kept
                changed.append(part)
        return changed

    def _fitting(self, request: Request) -> Request:
        """Return the request with those pictures to check on that have a size it is for."""
        places = [n for n, picture in enumerate(request.check) if self._fits(picture)]
        if lost := len(request.check) - len(places):
            sizes = ', '.join(f'{h}x{w}' for h, w in self._shapes)
            self._report(
                f'{lost} of {len(request.check)} pictures do not check: they make no network '
                f'input of {sizes}, as --shapes asks for'
            )
        return dataclasses.replace(
            request,
            check=[request.check[n] for n in places],
            truth=None if request.truth is None else reindexed(request.truth, places),
        )

    def _check_calibration(self) -> list[Image]:
        """Return the pictures that ranges are taken from, after every size has some."""
        calibration = self._request.calibration
        if calibration is None:
            raise ConfigError('--precision int8: expected --calibrate with it, found none')
        pictures = [p for p in calibration.pictures if self._fits(p)]
        if not pictures:
            sizes = ', '.join(f'{h}x{w}' for h, w in self._shapes)
            raise ConfigError(
                f'--calibrate: expected pictures that make a network input of {sizes}, as '
                '--shapes asks for, found none'
            )
        lacking = set(self._shapes) - {self._padded((p.height, p.width)) for p in pictures}
        if lacking:
            raise ConfigError(
                '--calibrate: expected pictures of every size of --shapes, found none that makes '
                'a network input of {}x{}'.format(*min(lacking))
            )
        return pictures

    def _gather(self, parts: Sequence[PartProgram]) -> None:
        pictures = self._check_calibration()
        # Of the best few detections however low their score, so that every picture gives some.
        settings = dataclasses.replace(
            Engine(self._config, model=self._model).settings,
            score_threshold=-1.0,
            max_instances=MASK_ROIS,
        )
        shown = self._shown('calibration')
        self._samples = gather_samples(self._model, settings, pictures, shown)
        lacking = {part.name for part in parts} - {'trunk'} - set(self._samples.pooled)
        if lacking:
            raise ConfigError(
                f'--calibrate: expected pictures in which the model finds something, found none '
                f'for {", ".join(sorted(lacking))}'
            )

    def _quantised(self, part: PartProgram, converted: Any, kept: Sequence[str]) -> Any:
        form = self._request.form
        if part.name != 'trunk':
            pooled = self._samples.pooled[part.name]
            return quantise(form, converted, pooled, lambda rows: rows, kept)
        pictures = [
            p for p in self._samples.pictures
            if part.network_hw in (None, self._padded((p.height, p.width)))
        ]  # fmt: skip
        return quantise(form, converted, pictures, self._trunk_input, kept)

    def _noisiest(self, parts: Sequence[PartProgram]) -> list[tuple[str, str]]:
        """Return part and layer, those that 8 bits disturb most first."""
        found: dict[tuple[str, str], float] = {}
        for part in parts:
            inputs = (
                map(self._trunk_input, self._samples.pictures[:_NOISE_PICTURES])
                if part.name == 'trunk'
                else iter(self._samples.pooled[part.name][:_NOISE_PICTURES])
            )
            for name, noise in noise_by_layer(part, inputs).items():
                if not ranking_layers([name]):
                    key = (part.name, name)
                    found[key] = max(noise, found.get(key, 0.0))
        return sorted(found, key=lambda key: -found[key])

    def _trunk_input(self, picture: Image) -> Any:
        return trunk_input(picture, self._model, self._resized((picture.height, picture.width)))

    def _fits(self, picture: Image) -> bool:
        return not self._shapes or self._padded((picture.height, picture.width)) in self._shapes

    def _resized(self, image_hw: tuple[int, int]) -> tuple[int, int]:
        a = self._model.architecture
        return resized_hw(image_hw, a.short_side, a.long_side, a.semantics.resize)

    def _padded(self, image_hw: tuple[int, int]) -> tuple[int, int]:
        unit = self._model.architecture.size_divisibility
        height, width = (side + -side % unit for side in self._resized(image_hw))
        return height, width

    def _shown(self, label: str) -> Callable[[Iterable[Image]], Iterator[Image]]:
        return lambda pictures: iter(self._progress(pictures, label))


def _listed(versions: Mapping[str, str]) -> str:
    return ' and '.join(f'{name} {version}' for name, version in versions.items())
