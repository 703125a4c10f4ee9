# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""An exported folder: a model's dense parts as programs of another engine, and their manifest.

The manifest says everything about the model but its numbers, so that no other file is needed to
run it. The programs are data for their engine: nothing in a folder is executed as code.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

from segnode.checkpoint.class_names import category_ids, class_names
from segnode.checkpoint.message import one_line
from segnode.checkpoint.plain_data import from_plain, to_plain
from segnode.checkpoint.weights_file import check_file, digest
from segnode.config import Config
from segnode.errors import CheckpointError, ConfigError
from segnode.model.architecture import Architecture
from segnode.model.backbone.resnet import BLOCKS_PER_STAGE

MANIFEST: Final = 'manifest.json'
# Of the manifest and of what the programs take and give.
SCHEMA: Final = 2
_LARGEST_MANIFEST: Final = 16 << 20
# No config has other numbers in its architecture: none larger, none nearer to 0, no more blocks.
_LARGEST: Final = 100_000
_SMALLEST: Final = 1e-9
_MOST_BLOCKS: Final = 64

Format: TypeAlias = Literal['onnx', 'openvino']
# Who runs a format.
BACKENDS: Final[dict[Format, str]] = {'onnx': 'onnxruntime', 'openvino': 'openvino'}


# Files of a part, the one to open first.
SUFFIXES: Final[dict[Format, tuple[str, ...]]] = {'onnx': ('.onnx',), 'openvino': ('.xml', '.bin')}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedPart:
    """One dense part as a program.

    Attributes:
        name: of the part, as ``trunk``, ``box_head.0`` or ``mask_head``.
        files: of the program, the one to open first.
        network_hw: H and W of the padded input that it was made for, None for any.
    """

    name: str
    files: tuple[Path, ...]
    network_hw: tuple[int, int] | None

    @property
    def path(self) -> Path:
        """Of the file to open first."""
        return self.files[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedModel:
    """A Mask R-CNN whose dense parts another engine runs.

    Attributes:
        architecture: the network, its sides those it was exported with.
        format: of the programs.
        precision: fp32, bf16 or int8.
        parts: in the order of their names' first appearance.
        shapes: H and W of the padded inputs that it was exported for; empty for any.
        class_names: one for each foreground class.
        category_ids: COCO's category ids where the classes are COCO's, else None.
        name: of the model that was exported, for people.
        weights_path: the folder.
        weights_sha256: of the weights that were exported.
        manifest_sha256: of the manifest, which holds those of the programs.
        licence: of the weights, empty where it is not known.
    """

    architecture: Architecture
    format: Format
    precision: str
    parts: tuple[ExportedPart, ...]
    shapes: tuple[tuple[int, int], ...]
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...] | None
    name: str
    weights_path: Path
    weights_sha256: str
    manifest_sha256: str
    licence: str

    @property
    def backend(self) -> str:
        """Who runs it."""
        return BACKENDS[self.format]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What ``manifest.json`` says that a run needs; it may say more, for people.

    Attributes:
        schema: SCHEMA.
        format: onnx or openvino.
        precision: of the programs.
        model: its name.
        weights_sha256: of the file that was exported.
        licence: of the weights.
        class_names: one for each foreground class.
        architecture: the network.
        description_sha256: of both, see ``description_sha256``.
        shapes: H and W of the padded inputs, empty for any.
        parts: see ``PartEntry``.
    """

    schema: int
    format: Format
    precision: Literal['fp32', 'bf16', 'int8']
    model: str
    weights_sha256: str
    licence: str
    class_names: tuple[str, ...]
    architecture: Architecture
    description_sha256: str
    shapes: tuple[tuple[int, int], ...]
    parts: tuple[PartEntry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartEntry:
    """A part in the manifest.

    Attributes:
        name: of the part.
        files: names in the folder, the one to open first.
        sha256: of each.
        network_hw: H and W that it was made for, None for any.
    """

    name: str
    files: tuple[str, ...]
    sha256: tuple[str, ...]
    network_hw: tuple[int, int] | None


def is_exported(path: Path) -> bool:
    """Return whether a model's path is to be read as an exported folder."""
    return path.is_dir()


def load_exported(
    config: Config, path: Path, report: Callable[[str], None] = lambda _: None
) -> ExportedModel:
    """Read the manifest of an exported folder, and make sure that its files are those listed.

    Args:
        config: may name classes; what has no meaning for a folder must be unset.
        path: of the folder.
        report: is told in a line what was assumed.

    Raises:
        CheckpointError: no such folder, or one that is damaged, incomplete or of another version.
        ConfigError: a setting does not fit it.
    """
    manifest = read_manifest(path)
    backend = BACKENDS[manifest.format]
    expected = {
        'backend': (config.backend, ('auto', backend)),
        'weights': (config.weights, ('',)),
        'norm_eps': (config.norm_eps, (-1.0,)),
        'precision': (config.precision, ('auto', manifest.precision)),
        'device': (config.device, ('auto', 'cpu')),
    }
    for key, (found, allowed) in expected.items():
        if found not in allowed:
            wanted = ' or '.join(str(each) or 'it unset' for each in allowed)
            raise ConfigError(
                f'{key}: expected {wanted} for the export {path}, which was made so, found '
                f'{found}; export the model again for another'
            )
    names = _names(config, manifest, path, report)
    return ExportedModel(
        architecture=manifest.architecture,
        format=manifest.format,
        precision=manifest.precision,
        parts=tuple(
            ExportedPart(
                name=e.name,
                files=tuple(path / name for name in e.files),
                network_hw=e.network_hw,
            )
            for e in manifest.parts
        ),
        shapes=manifest.shapes,
        class_names=names,
        category_ids=category_ids(names),
        name=one_line(manifest.model),
        weights_path=path,
        weights_sha256=manifest.weights_sha256,
        manifest_sha256=digest(path / MANIFEST, 'sha256'),
        licence=manifest.licence,
    )


def _names(
    config: Config, manifest: Manifest, path: Path, report: Callable[[str], None]
) -> tuple[str, ...]:
    """Return the user's names, else the manifest's, which are never taken for a file's."""
    stored = {'class_names': json.dumps(manifest.class_names)}
    count = manifest.architecture.num_classes
    try:
        return class_names(config.class_names, stored, count, report, is_coco=lambda: False)
    except ConfigError as error:
        if config.class_names:
            raise
        raise CheckpointError(
            f'{path / MANIFEST}: {one_line(error)}; export the model again'
        ) from None


def read_manifest(path: Path) -> Manifest:
    """Read a folder's manifest and check its files.

    Raises:
        CheckpointError: it is no exported folder, or a damaged, incomplete or foreign one.
    """
    file = path / MANIFEST
    if not file.is_file():
        raise CheckpointError(
            f'{path}: expected a folder of `segnode export`, found no {MANIFEST} in it'
        )
    check_file(file, 'the manifest of an export')
    content = _read_json(file)
    schema = content.get('schema')
    if schema != SCHEMA:
        raise CheckpointError(
            f'{file}: expected an export of schema {SCHEMA}, found {str(schema)[:40]!r}; export '
            'the model again with this version'
        )
    known = {name: content.get(name) for name in Manifest.__slots__}
    try:
        manifest = from_plain(Manifest, {'kind': Manifest.__name__, **known}, 'manifest')
    except ValueError as error:
        raise CheckpointError(
            f'{file}: not of this version ({one_line(error)}); export the model again'
        ) from None
    found = description_sha256(content['architecture'], content['class_names'])
    if found != manifest.description_sha256:
        raise CheckpointError(
            f'{file}: expected the architecture and class names that were exported, found changed '
            'ones; set class_names of the configuration instead, or export the model again'
        )
    if problem := _problem(manifest):
        raise CheckpointError(f'{file}: expected {problem}; export the model again')
    for part in manifest.parts:
        _check_files(path, part, manifest.format)
    return manifest


def description_sha256(architecture: object, names: object) -> str:
    """Return a digest of what says how a program's numbers are read, as plain data."""
    text = json.dumps([architecture, list(names)], sort_keys=True)  # type: ignore[call-overload]
    return hashlib.sha256(text.encode()).hexdigest()


def _problem(manifest: Manifest) -> str | None:
    """Return which numbers no network has, None where all are sound."""
    a = manifest.architecture
    if manifest.format == 'onnx' and manifest.precision == 'bf16':
        return 'fp32 or int8 of onnx, found bf16'
    positive: dict[str, tuple[float, ...]] = {
        # 0 keeps an image's size.
        'short_side': (a.short_side or 1,),
        'long_side': (a.long_side,),
        'size_divisibility': (a.size_divisibility,),
        'strides': a.strides,
        'num_classes': (a.num_classes,),
        'fpn_channels': (a.fpn_channels,),
        'rpn_pre_nms_topk': (a.rpn_pre_nms_topk,),
        'rpn_post_nms_topk': (a.rpn_post_nms_topk,),
        'max_instances': (a.max_instances,),
        'pooler resolution': (a.box_pooler.resolution, a.mask_pooler.resolution),
        'pixel_std': a.pixel_std,
        'anchor_sizes': tuple(size for level in a.anchor_sizes for size in level),
        'anchor_ratios': tuple(ratio for level in a.anchor_ratios for ratio in level),
        'rpn_bbox_weights': a.rpn_bbox_weights,
        'box_bbox_weights': a.box_bbox_weights,
        'shapes': tuple(side for hw in manifest.shapes for side in hw),
        'network_hw': tuple(side for part in manifest.parts for side in part.network_hw or ()),
    }
    for name, values in positive.items():
        if any(value <= 0 for value in values):
            return f'{name} above 0, found {min(values):g}'
    for number in _numbers(to_plain(a)):
        if number and not _SMALLEST <= abs(number) <= _LARGEST:
            return f'numbers from {_SMALLEST:g} to {_LARGEST}, found {number:g}'
    depth = getattr(a.backbone, 'depth', 50)
    if depth not in BLOCKS_PER_STAGE:
        return f'a backbone of {", ".join(map(str, BLOCKS_PER_STAGE))} layers, found {depth}'
    if (most := max(getattr(a.backbone, 'depths', (1,)))) > _MOST_BLOCKS:
        return f'{_MOST_BLOCKS} blocks a stage at most, found {most}'
    for hw in manifest.shapes:
        if any(side % a.size_divisibility for side in hw):
            return f'shapes of multiples of {a.size_divisibility}, found {hw[0]}x{hw[1]}'
    for name in ('score_threshold', 'nms_threshold', 'rpn_nms_threshold', 'mask_threshold'):
        if not 0 <= getattr(a, name) <= 1:
            return f'{name} of 0 to 1, found {getattr(a, name):g}'
    if not len(a.strides) == len(a.anchor_sizes) == len(a.anchor_ratios):
        return f'anchors of {len(a.strides)} levels, found {len(a.anchor_sizes)}'
    if not re.fullmatch('([0-9a-f]{64})?', manifest.weights_sha256):
        return f'a sha256 of the weights, found {manifest.weights_sha256[:70]!r}'
    return None


def _numbers(value: object) -> Iterator[float]:
    """Yield all numbers in plain data."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _numbers(each)
    elif isinstance(value, int | float):
        yield value


def _read_json(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > _LARGEST_MANIFEST:
            raise ValueError('it is far too large')
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f'{file}: expected the manifest of an export, found a damaged file '
            f'({one_line(error)}); copy the folder again, whole'
        ) from None
    if not isinstance(content, Mapping):
        raise CheckpointError(f'{file}: expected the manifest of an export, found another JSON')
    return dict(content)


def _check_files(folder: Path, part: PartEntry, form: Format) -> None:
    # A file that an engine reads unasked, as OpenVINO does a .bin, would be one unchecked.
    suffixes = tuple(Path(name).suffix for name in part.files)
    if suffixes != SUFFIXES[form] or len(part.files) != len(part.sha256):
        raise CheckpointError(
            f'{folder / MANIFEST}: expected {" and ".join(SUFFIXES[form])} of part '
            f'{one_line(part.name)}, each with its sha256, found {len(part.files)} files; export '
            'the model again'
        )
    for name, expected in zip(part.files, part.sha256, strict=True):
        if Path(name).name != name:
            raise CheckpointError(
                f'{folder / MANIFEST}: expected files of its own folder, found {name!r}'
            )
        check_file(folder / name, f'a file of part {part.name}')
        found = digest(folder / name, 'sha256')
        if found != expected:
            raise CheckpointError(
                f'{folder / name}: expected the file that was exported (sha256 '
                f'{expected[:12]}...), found another or a damaged one ({found[:12]}...); copy the '
                'folder again, whole'
            )


def formats() -> tuple[Format, ...]:
    """Return the formats of programs."""
    found: tuple[Format, ...] = get_args(Format)
    return found
