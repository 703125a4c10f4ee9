# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What MMDetection's configs say of the network's input: size, colours, normalisation, padding.

In 3.x a part of the model normalises and pads; in 2.x the test pipeline does all of it.
"""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple

from segnode.checkpoint.config_part import REQUIRED, ConfigPart

# The network's coarsest map has one pixel for so many; MMDetection's own configs have no other.
_DIVISOR: Final = 32
# The short side makes the image; the long one often stands for no bound.
_LONGEST_SHORT_SIDE: Final = 16_384
_LARGEST_SIDE: Final = 65_536
_LARGEST_DIVISOR: Final = 1024
_NOT_TESTED: Final = 'every image is looked at once, in one size and as it is'
# Steps that an image goes through in this order, those that change it once each.
_ORDER: Final = {
    **dict.fromkeys(('LoadImageFromFile', 'LoadImageFromNDArray', 'LoadImageFromWebcam'), 0),
    'MultiScaleFlipAug': 1,
    'Resize': 2,
    'Normalize': 3,
    'Pad': 4,
    **dict.fromkeys(('ImageToTensor', 'DefaultFormatBundle', 'Collect', 'PackDetInputs'), 5),
}
_LAST_ONCE: Final = 4
_ELSEWHERE: Final = ('RandomFlip', 'LoadAnnotations', 'WrapFieldsToLists')


class InputRule(NamedTuple):
    """How an image gets into the network; see ``Architecture``."""

    color: Literal['BGR', 'RGB']
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    short_side: int
    long_side: int
    size_divisibility: int


def read_input(config: ConfigPart, model: ConfigPart) -> InputRule:
    """Return what the config of either version says.

    Args:
        config: the whole.
        model: its ``model``.

    Raises:
        ConfigError: a key is missing, not known, or asks for what is not done.
    """
    for owner in (model, config):
        if owner.has('data_preprocessor'):
            return _third(config, owner.part('data_preprocessor'))
    model.ignore('data_preprocessor')
    return _second(config)


def _third(config: ConfigPart, preprocessor: ConfigPart) -> InputRule:
    preprocessor.kind("'DetDataPreprocessor'", 'DetDataPreprocessor')
    preprocessor.ignore('pad_mask', 'mask_pad_value', 'pad_seg', 'seg_pad_value')
    preprocessor.ignore('boxtype2tensor', 'non_blocking', 'batch_augments')
    preprocessor.only('pad_value', 0, 0.0)
    # Either of them turns the channels of what is read, which is BGR.
    turned = [preprocessor.flag(key, False) for key in ('bgr_to_rgb', 'rgb_to_bgr')]
    color: Literal['BGR', 'RGB'] = 'RGB' if any(turned) else 'BGR'
    mean = preprocessor.numbers('mean', REQUIRED, 3)
    std = preprocessor.numbers('std', REQUIRED, 3, positive=True)
    divisor = _divisor(preprocessor, 'pad_size_divisor', 1)
    preprocessor.end()
    size: tuple[int, int] | None = None
    steps, where = _test_pipeline(config, 'test_dataloader')
    for step, kind, _ in _ordered(steps):
        if kind == 'Resize':
            step.ignore('clip_object_border')
            step.only('scale_factor', None)
            step.only('keep_ratio', REQUIRED, True)
            size = _resize(step, 'scale', size)
        else:
            _other_step(step, kind)
    if size is None:
        raise config.error(where, 'a pipeline with Resize')
    return InputRule(color, _three(mean), _three(std), *size, divisor)


def _second(config: ConfigPart) -> InputRule:
    steps, where = _test_pipeline(config, 'data')
    size: tuple[int, int] | None = None
    normalisation: tuple[Literal['BGR', 'RGB'], Any, Any] | None = None
    divisor = 0
    resized = False
    for step, kind, inside in _ordered(steps):
        if kind == 'MultiScaleFlipAug':
            step.only('flip', False, hint=_NOT_TESTED)
            step.only('scale_factor', None)
            step.ignore('flip_direction', 'transforms')
            size = _sides(step, 'img_scale', size)
            step.end()
        elif kind == 'Resize':
            step.ignore('bbox_clip_border', 'multiscale_mode', 'override')
            step.only('ratio_range', None)
            step.only('keep_ratio', True)
            if step.has('img_scale'):
                size = _sides(step, 'img_scale', size)
            resized = True
            _resampling(step)
        elif kind == 'Normalize':
            mean = step.numbers('mean', REQUIRED, 3)
            std = step.numbers('std', REQUIRED, 3, positive=True)
            normalisation = 'RGB' if step.flag('to_rgb', True) else 'BGR', mean, std
            step.end()
        elif kind == 'Pad':
            step.only('size', None)
            step.only('pad_to_square', False)
            step.only('pad_val', 0, {'img': 0, 'masks': 0, 'seg': 255})
            divisor = _divisor(step, 'size_divisor', None)
            step.end()
        elif kind != 'RandomFlip' or not inside:
            # Inside of MultiScaleFlipAug that one says whether to flip.
            _other_step(step, kind)
    if size is None or not resized or normalisation is None or not divisor:
        lacking = 'Pad' if normalisation else 'Normalize'
        lacking = 'MultiScaleFlipAug' if size is None else lacking if resized else 'Resize'
        raise config.error(where, f'data_preprocessor in the model, or a pipeline with {lacking}')
    color, mean, std = normalisation
    return InputRule(color, _three(mean), _three(std), *size, divisor)


def _test_pipeline(config: ConfigPart, loader: str) -> tuple[list[ConfigPart], str]:
    """Return the steps of the test pipeline, and the key of the config that has them."""
    if config.has(loader):
        owner = config.part(loader)
        owner = owner.part('test') if loader == 'data' else owner.part('dataset')
        while owner.has('dataset') and not owner.has('pipeline'):
            owner = owner.part('dataset')
        if owner.has('pipeline'):
            return owner.parts('pipeline'), loader
    return config.parts('test_pipeline', 'the test pipeline'), 'test_pipeline'


def _ordered(steps: list[ConfigPart]) -> list[tuple[ConfigPart, str, bool]]:
    """Return steps with their kinds, and whether they stand inside of a MultiScaleFlipAug.

    Raises:
        ConfigError: a step is not known, stands in an unknown place, or changes the image again.
    """
    unfolded: list[tuple[ConfigPart, str, bool]] = []
    for step in steps:
        kind = _kind(step)
        unfolded.append((step, kind, False))
        if kind == 'MultiScaleFlipAug':
            inner = step.parts('transforms')
            unfolded += [(each, _kind(each), True) for each in inner]
    before, flips = -1, False
    for step, kind, inside in unfolded:
        rank = _ORDER.get(kind, before)
        again = kind in _ORDER and rank == before <= _LAST_ONCE
        # What that one gives is a list, which no other step takes.
        behind = flips and not inside and rank <= _LAST_ONCE
        if rank < before or again or behind:
            raise step.error('type', 'steps that load, Resize, Normalize, Pad, once in this order')
        before, flips = rank, flips or kind == 'MultiScaleFlipAug'
    return unfolded


def _kind(step: ConfigPart) -> str:
    expected = 'a step of which it is known what it does to an image'
    return step.kind(expected, *_ORDER, *_ELSEWHERE)


def _other_step(step: ConfigPart, kind: str) -> None:
    """Refuse a step that changes the image in another way than by size and padding."""
    if kind.startswith('LoadImage'):
        step.only('to_float32', False, hint='pixels are resized as 8 bits')
        step.only('color_type', 'color', 'unchanged')
        step.only('channel_order', 'bgr')
        step.ignore('file_client_args', 'backend_args', 'imdecode_backend', 'ignore_empty')
        step.end()
    elif kind == 'RandomFlip' and (step.has('prob') or step.has('flip_ratio')):
        for key in ('prob', 'flip_ratio'):
            step.only(key, 0, None, 0.0, hint=_NOT_TESTED)
    elif kind in ('Pad', 'Normalize', 'MultiScaleFlipAug'):
        raise step.error('type', "no such step beside the model's data_preprocessor")


def _resize(step: ConfigPart, key: str, before: tuple[int, int] | None) -> tuple[int, int]:
    _resampling(step, key)
    return _sides(step, key, before)


def _resampling(step: ConfigPart, *keys: str) -> None:
    step.only('backend', 'cv2')
    step.only('interpolation', 'bilinear')
    step.ignore(*keys)
    step.end()


def _sides(step: ConfigPart, key: str, before: tuple[int, int] | None) -> tuple[int, int]:
    """Return short and long side; their order in the config does not count."""
    expected = f'one size, of two sides up to {_LONGEST_SHORT_SIDE} and {_LARGEST_SIDE}'
    value = step.value(key, expected=expected)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if (
        not isinstance(value, list | tuple)
        or len(value) != 2
        or not all(type(side) is int and 0 < side <= _LARGEST_SIDE for side in value)
        or min(value) > _LONGEST_SHORT_SIDE
        or before is not None
    ):
        raise step.error(key, expected, _NOT_TESTED)
    return min(value), max(value)


def _divisor(part: ConfigPart, key: str, default: int | None) -> int:
    expected = f'a multiple of {_DIVISOR} up to {_LARGEST_DIVISOR}'
    value = part.value(key, default, expected)
    if type(value) is not int or value % _DIVISOR or not 0 < value <= _LARGEST_DIVISOR:
        raise part.error(key, expected)
    return value


def _three(numbers: tuple[float, ...]) -> tuple[float, float, float]:
    return numbers[0], numbers[1], numbers[2]
