# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The numbers that a frame is processed with: what the user set over what the model says."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from segnode.config import Config
from segnode.errors import ConfigError
from segnode.model.architecture import Architecture


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceSettings:
    """Effective settings, all set; made whole and swapped between frames.

    Attributes:
        short_side: of the network input in pixels; 0 keeps the image's size.
        long_side: upper bound of the network input's long side in pixels.
        score_threshold: a score must exceed it.
        nms_threshold: IoU between boxes of one class.
        max_instances: most instances a frame.
        proposals: boxes kept after the RPN.
        mask_threshold: probability from which a pixel belongs to a mask.
        min_mask_area: input pixels, 0 is off.
        max_mask_area: input pixels, infinity where it is off.
        classes: indices of the classes to keep.
    """

    short_side: int
    long_side: int
    score_threshold: float
    nms_threshold: float
    max_instances: int
    proposals: int
    mask_threshold: float = 0.5
    min_mask_area: int = 0
    max_mask_area: float = math.inf
    classes: frozenset[int] = frozenset()

    def scaled(self, scale: float, image_hw: tuple[int, int]) -> InferenceSettings:
        """Return these with the sides of the network's input scaled, for an image of a size."""
        if scale == 1:
            return self
        short, long = (self.short_side, self.long_side) if self.short_side else sorted(image_hw)
        return dataclasses.replace(
            self,
            short_side=max(1, round(short * scale)),
            long_side=max(1, round(long * scale)),
        )


def own_settings(architecture: Architecture) -> InferenceSettings:
    """Return the settings of a model's own config."""
    return InferenceSettings(
        short_side=architecture.short_side,
        long_side=architecture.long_side,
        score_threshold=architecture.score_threshold,
        nms_threshold=architecture.nms_threshold,
        max_instances=architecture.max_instances,
        proposals=architecture.rpn_post_nms_topk,
        mask_threshold=architecture.mask_threshold,
    )


def resolve_settings(
    config: Config, defaults: InferenceSettings, class_names: tuple[str, ...]
) -> InferenceSettings:
    """Lay what ``config`` sets over the model's own ``defaults``.

    Raises:
        ConfigError: a class in ``filter.classes`` that the model does not know.
    """
    wanted = config.filter.classes
    unknown = [name for name in wanted if name not in class_names]
    if unknown:
        known = ', '.join(class_names[:20]) + (', ...' if len(class_names) > 20 else '')
        raise ConfigError(
            f'filter.classes: expected names of the model ({known}), found {", ".join(unknown)}'
        )

    def pick(value: float, default: float, unset: float) -> float:
        return default if value == unset else value

    chosen = config.filter
    return InferenceSettings(
        short_side=config.resolution.short_side or defaults.short_side,
        long_side=config.resolution.long_side or defaults.long_side,
        score_threshold=pick(chosen.score_threshold, defaults.score_threshold, -1),
        nms_threshold=pick(chosen.nms_threshold, defaults.nms_threshold, -1),
        max_instances=chosen.max_instances or defaults.max_instances,
        proposals=config.proposals or defaults.proposals,
        mask_threshold=pick(config.mask_threshold, defaults.mask_threshold, -1),
        min_mask_area=chosen.min_mask_area,
        max_mask_area=chosen.max_mask_area or math.inf,
        classes=frozenset(
            index for index, name in enumerate(class_names) if not wanted or name in wanted
        ),
    )
