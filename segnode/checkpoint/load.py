# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""From what the user named to a model in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from segnode.checkpoint import detectron2, mmdetection, torchvision
from segnode.checkpoint.class_names import category_ids, class_names, is_published_coco
from segnode.checkpoint.coco_classes import COCO_CATEGORY_IDS, COCO_CLASS_NAMES
from segnode.checkpoint.detectron2_config import Detectron2Config, read_config
from segnode.checkpoint.download import fetch
from segnode.checkpoint.model import (
    ModelDescription,
    NativeModel,
    NullModel,
    TorchScriptModel,
)
from segnode.checkpoint.null import is_null, null_model
from segnode.checkpoint.other_configs import check_language
from segnode.checkpoint.presets import (
    PRESETS,
    Preset,
    published_checksum,
    published_url,
    unknown_model,
)
from segnode.checkpoint.torchscript import read_description
from segnode.checkpoint.web import shown
from segnode.checkpoint.weights_file import (
    check_file,
    digest,
    read_weights,
    weights_kind,
)
from segnode.checkpoint.yaml_file import read_yaml
from segnode.config import Config, user_path
from segnode.errors import CheckpointError, ConfigError
from segnode.model.architecture import MMDETECTION, TORCHVISION

DEMO_MODEL: Final = Path(__file__).resolve().parents[1] / 'demo' / 'mask_rcnn_demo.yaml'


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


def load_model(
    config: Config, report: Callable[[str], None] = lambda _: None
) -> NativeModel | TorchScriptModel | NullModel:
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
    check_file(path, 'a model config')
    kind = weights_kind(path)
    if kind == 'torchscript':
        raise CheckpointError(
            f'{path}: expected a model description, found a TorchScript program alone; '
            f'`segnode describe {path}` writes one'
        )
    if kind != 'unknown':
        raise CheckpointError(
            f'{path}: expected a model config (YAML), found weights; '
            'name their config as the model and this file with --weights'
        )
    check_language(path)
    if 'backend' in read_yaml(path, 'a model config'):
        _check_backend(config, 'torchscript')
        return _describe_exported(config, path, report)
    _check_backend(config, 'native')
    return _load_detectron2(config, path, report)


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
            state = mmdetection.fit_weights(stored.tensors, architecture, path)
        else:
            state = detectron2.fit_weights(stored.tensors, architecture, (), path)
    names = class_names(
        config.class_names,
        stored.metadata,
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
