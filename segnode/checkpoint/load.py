# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""From what the user named to a model in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeAlias

from segnode.checkpoint import detectron2, mmdetection, torchvision
from segnode.checkpoint.class_names import category_ids, class_names, is_published_coco
from segnode.checkpoint.coco_classes import COCO_CATEGORY_IDS, COCO_CLASS_NAMES
from segnode.checkpoint.detectron2_config import Detectron2Config, read_config
from segnode.checkpoint.download import fetch
from segnode.checkpoint.exported import ExportedModel, is_exported, load_exported
from segnode.checkpoint.mmdetection_config import read_architecture
from segnode.checkpoint.mmdetection_file import (
    check_background,
    check_classes,
    config_names,
    stored_config,
    stored_names,
)
from segnode.checkpoint.model import (
    ModelDescription,
    NativeModel,
    NullModel,
    TorchScriptModel,
)
from segnode.checkpoint.null import is_null, null_model
from segnode.checkpoint.other_configs import check_language, is_mmdetection
from segnode.checkpoint.presets import (
    PRESETS,
    Preset,
    published_checksum,
    published_url,
    unknown_model,
)
from segnode.checkpoint.python_config import read_python_config
from segnode.checkpoint.torchscript import read_description
from segnode.checkpoint.web import shown
from segnode.checkpoint.weights_file import (
    WeightsFile,
    check_file,
    digest,
    read_weights,
    weights_kind,
)
from segnode.checkpoint.yaml_file import read_yaml
from segnode.config import Config, user_path
from segnode.errors import CheckpointError, ConfigError
from segnode.model.architecture import MMDETECTION, TORCHVISION, Architecture

# What a model's name can stand for.
Model: TypeAlias = NativeModel | TorchScriptModel | ExportedModel | NullModel

DEMO_MODEL: Final = Path(__file__).resolve().parents[1] / 'demo' / 'mask_rcnn_demo.yaml'
_WEIGHTS_ALONE: Final = (
    'expected a model config, or a checkpoint of MMDetection that carries its own, found weights; '
    'name their config as the model and this file with --weights'
)


def named_model(name: str) -> Preset | Path:
    """Return the preset or the file that a model's name stands for; no name is the demo's.

    Raises:
        ConfigError: neither a preset nor a file.
    """
    if name in PRESETS:
        return PRESETS[name]
    if is_null(name):
        raise ConfigError(f'model: expected one with a network for this, found {name!r}')
    path = user_path(name) if name else DEMO_MODEL
    if name and not path.exists():
        raise ConfigError(unknown_model(name))
    return path


def load_model(config: Config, report: Callable[[str], None] = lambda _: None) -> Model:
    """Load the model that ``model`` and ``weights`` name; nothing in its files is executed.

    A preset without ``weights``, and ``weights`` that are a URL, are fetched into the cache.

    Args:
        config: names them.
        report: is told in a line what was assumed, left out or found in an unusual place.

    Raises:
        CheckpointError: a file is missing, damaged, of another architecture, or not fetchable.
        ConfigError: the model is neither preset nor file, or a key, name or class list does not
            fit.
    """
    if is_null(config.model):
        return null_model(config)
    path = named_model(config.model)
    if isinstance(path, Preset):
        _check_backend(config, 'native')
        return _load_preset(config, path, report)
    if is_exported(path):
        return load_exported(config, path, report)
    check_file(path, 'a model config')
    kind = weights_kind(path)
    if kind in ('torch', 'legacy torch'):
        _check_backend(config, 'native')
        return _load_checkpoint(config, path, report)
    if kind == 'torchscript':
        raise CheckpointError(
            f'{path}: expected a model description, found a TorchScript program alone; '
            f'`segnode describe {path}` writes one'
        )
    if kind != 'unknown':
        raise CheckpointError(f'{path}: {_WEIGHTS_ALONE}')
    if is_mmdetection(path):
        _check_backend(config, 'native')
        return _load_mmdetection(config, path, report)
    check_language(path)
    if 'backend' in read_yaml(path, 'a model config'):
        _check_backend(config, 'torchscript')
        return _describe_exported(config, path, report)
    _check_backend(config, 'native')
    return _load_detectron2(config, path, report)


def file_architecture(path: Path) -> Architecture:
    """Return the network that a file describes: a config, or a checkpoint that carries its own.

    Raises:
        CheckpointError: the file is missing, damaged, or no such file.
        ConfigError: a key is unknown, has no usable value, or asks for another architecture.
    """
    check_file(path, 'a model config')
    if is_mmdetection(path):
        return read_architecture(read_python_config(path), str(path))
    if weights_kind(path) == 'unknown':
        return read_config(path).architecture
    return _own_architecture(read_weights(path), path)


def _own_architecture(stored: WeightsFile, path: Path) -> Architecture:
    """Return the network that a checkpoint's own config describes."""
    return read_architecture(_own_config(stored, path), f'{path}: its config')


def _own_config(stored: WeightsFile, path: Path) -> dict[str, Any]:
    config = stored_config(stored.meta, path)
    if config is None:
        raise CheckpointError(f'{path}: {_WEIGHTS_ALONE}')
    return config


def _check_backend(config: Config, backend: str) -> None:
    if config.backend not in ('auto', backend):
        raise ConfigError(
            f'backend: expected auto or {backend} for model {config.model!r}, '
            f'found {config.backend}'
        )


def _load_preset(config: Config, preset: Preset, report: Callable[[str], None]) -> NativeModel:
    path = _weights_path(config.weights or preset.url, config, report)
    published = digest(path, preset.checksum.algorithm).startswith(preset.checksum.prefix)
    stored = read_weights(path, report)
    if preset.architecture.semantics == TORCHVISION:
        architecture, state = torchvision.fit_weights(
            stored.tensors,
            path,
            architecture=preset.architecture,
            published=published,
            norm_eps=config.norm_eps,
            report=report,
        )
    else:
        architecture = detectron2.with_norm_eps(preset.architecture, config.norm_eps)
        if architecture.semantics == MMDETECTION:
            if not published:
                _check_own(stored, preset.architecture, config.model, path, report)
            state = mmdetection.fit_weights(stored.tensors, architecture, path)
        else:
            state = detectron2.fit_weights(stored.tensors, architecture, (), path)
    names = class_names(
        config.class_names,
        stored.metadata or stored_names(stored.meta),
        architecture.num_classes,
        report,
        is_coco=lambda: published or is_published_coco(path),
    )
    return NativeModel(
        architecture=architecture,
        state_dict=state,
        class_names=names,
        category_ids=category_ids(names),
        name=config.model,
        weights_path=path,
        weights_sha256=digest(path, 'sha256'),
        licence=preset.licence if published else '',
    )


def _check_own(
    stored: WeightsFile,
    architecture: Architecture,
    name: str,
    path: Path,
    report: Callable[[str], None],
) -> None:
    """Refuse a checkpoint that carries another config than the preset it is named with."""
    check_background(stored.meta, stored.tensors, architecture.num_classes, path)
    if other := _other_fields(stored, architecture, name, path, report):
        raise CheckpointError(
            f'{path}: expected weights of {name}, found a config in it of another {other}; '
            'name the file itself as the model'
        )
    check_classes(stored.tensors, architecture.num_classes, path)


def _other_fields(
    stored: WeightsFile,
    architecture: Architecture,
    name: str,
    path: Path,
    report: Callable[[str], None],
) -> str:
    """Return in what the config that a checkpoint carries differs from the one in force."""
    try:
        own = _own_architecture(stored, path) if stored_config(stored.meta, path) else architecture
    except (CheckpointError, ConfigError) as error:
        report(f'{path}: taken as {name}, as its own config cannot be read: {error}')
        return ''
    fields = (field.name for field in dataclasses.fields(Architecture))
    return ', '.join(each for each in fields if getattr(own, each) != getattr(architecture, each))


def _load_checkpoint(config: Config, path: Path, report: Callable[[str], None]) -> NativeModel:
    """Load a checkpoint of MMDetection by the config that it carries."""
    if config.weights:
        raise ConfigError(
            f'weights: expected none beside {path}, which has its own, found '
            f'{shown(config.weights)}'
        )
    stored = read_weights(path, report)
    values = _own_config(stored, path)
    architecture = read_architecture(values, f'{path}: its config')
    return _native_mmdetection(config, architecture, values, stored, path, path, report)


def _load_mmdetection(config: Config, path: Path, report: Callable[[str], None]) -> NativeModel:
    """Load a config of MMDetection and the weights that the user names."""
    values = read_python_config(path)
    architecture = read_architecture(values, str(path))
    if not config.weights:
        raise CheckpointError(
            f'{path}: expected weights with it, as a config of MMDetection names none of its own, '
            'found none; name the checkpoint with --weights'
        )
    weights = _weights_path(config.weights, config, report)
    stored = read_weights(weights, report)
    if other := _other_fields(stored, architecture, str(path), weights, report):
        report(f'{weights}: taken as {path} says, though its own config has another {other}')
    return _native_mmdetection(config, architecture, values, stored, path, weights, report)


def _native_mmdetection(
    config: Config,
    architecture: Architecture,
    values: dict[str, Any],
    stored: WeightsFile,
    path: Path,
    weights: Path,
    report: Callable[[str], None],
) -> NativeModel:
    check_background(stored.meta, stored.tensors, architecture.num_classes, weights)
    check_classes(stored.tensors, architecture.num_classes, weights)
    architecture = detectron2.with_norm_eps(architecture, config.norm_eps)
    names = class_names(
        config.class_names,
        stored.metadata
        or stored_names(stored.meta)
        or config_names(values, architecture.num_classes),
        architecture.num_classes,
        report,
        is_coco=lambda: is_published_coco(weights),
    )
    return NativeModel(
        architecture=architecture,
        state_dict=mmdetection.fit_weights(stored.tensors, architecture, weights),
        class_names=names,
        category_ids=category_ids(names),
        name=path.stem,
        weights_path=weights,
        weights_sha256=digest(weights, 'sha256'),
        licence=stored.metadata.get('license', ''),
    )


def _load_detectron2(config: Config, path: Path, report: Callable[[str], None]) -> NativeModel:
    model = read_config(path, report)
    architecture = detectron2.with_norm_eps(model.architecture, config.norm_eps)
    weights = (
        _weights_path(config.weights, config, report)
        if config.weights
        else _config_weights(path, model)
    )
    stored = read_weights(weights, report)
    names = class_names(
        config.class_names,
        stored.metadata,
        architecture.num_classes,
        report,
        is_coco=lambda: is_published_coco(weights),
    )
    return NativeModel(
        architecture=architecture,
        state_dict=detectron2.fit_weights(stored.tensors, architecture, model.normed, weights),
        class_names=names,
        category_ids=category_ids(names),
        name=path.stem,
        weights_path=weights,
        weights_sha256=digest(weights, 'sha256'),
        licence=stored.metadata.get('license', ''),
    )


def _describe_exported(
    config: Config, path: Path, report: Callable[[str], None]
) -> TorchScriptModel:
    if config.norm_eps >= 0:
        raise ConfigError(
            'norm_eps: expected it unset, as an exported model has its own inside, '
            f'found {config.norm_eps}'
        )
    description = read_description(path)
    weights = (
        _weights_path(config.weights, config, report)
        if config.weights
        else path.parent / user_path(description.weights)
    )
    check_file(weights, 'a TorchScript program')
    if weights_kind(weights) != 'torchscript':
        raise CheckpointError(f'{weights}: expected a TorchScript program, found another file')
    sparse = description.labels == 'coco_category_id'
    names = _exported_names(config, path, description, report)
    return TorchScriptModel(
        description=description,
        class_names=names,
        category_ids=COCO_CATEGORY_IDS if sparse else category_ids(names),
        name=weights.stem,
        weights_path=weights,
        weights_sha256=digest(weights, 'sha256'),
    )


def _exported_names(
    config: Config, path: Path, description: ModelDescription, report: Callable[[str], None]
) -> tuple[str, ...]:
    """Return the names that the user or the description gives, or that the labels imply."""
    if description.class_names and not config.class_names:
        return description.class_names
    sparse = description.labels == 'coco_category_id'
    count = len(description.class_names) or description.classes
    if not (config.class_names or sparse or count):
        raise ConfigError(
            f'{path}: expected the names or the number of the classes that labels: '
            f'{description.labels} counts, found neither; give class_names or classes there, or '
            '--class-names'
        )
    return class_names(
        config.class_names,
        {},
        len(COCO_CLASS_NAMES) if sparse else count or None,
        report,
        is_coco=lambda: sparse,
    )


def _weights_path(location: str, config: Config, report: Callable[[str], None]) -> Path:
    """Return the file that ``weights`` names, fetched where it is a URL."""
    url = published_url(location)
    if url.startswith(('http://', 'https://')):
        return fetch(url, published_checksum(url), report, refresh=config.refresh)
    if '://' in url:
        raise ConfigError(f'weights: expected a file or an http(s) URL, found {shown(url)}')
    path = user_path(location)
    check_file(path, 'weights')
    return path


def _config_weights(path: Path, model: Detectron2Config) -> Path:
    """Return the file that MODEL.WEIGHTS names; a config never has anything fetched."""
    expected = f'{path}: MODEL.WEIGHTS: expected a file, found'
    if not model.weights:
        raise CheckpointError(f'{expected} none; name the weights with --weights')
    if '://' in model.weights:
        raise CheckpointError(
            f'{expected} {shown(model.weights)}; '
            'name the trained weights, file or URL, with --weights'
        )
    # Detectron2 takes it from the working directory; a config that is handed on, from its own.
    beside = model.weights_folder / user_path(model.weights)
    here = user_path(model.weights)
    return here if here.is_file() and not beside.exists() else beside
