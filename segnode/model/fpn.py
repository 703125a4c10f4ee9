# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Feature Pyramid Network (Lin et al., 2017) as in Detectron2's ``modeling/backbone/fpn.py``."""

from __future__ import annotations

from torch import Tensor, nn

from segnode.model.architecture import Architecture
from segnode.model.backbone import build_backbone
from segnode.model.conv import Conv
from segnode.model.maps import PLAIN, MapSteps


class FPN(nn.Module):
    """Backbone with top-down path and a max-pooled p6; H and W are multiples of 32."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.bottom_up = build_backbone(architecture.backbone)
        self.average = architecture.fpn_fuse == 'avg'
        out_channels, norm = architecture.fpn_channels, architecture.fpn_norm
        for level, channels in enumerate(self.bottom_up.out_channels, start=2):
            self.add_module(f'fpn_lateral{level}', Conv(channels, out_channels, 1, norm=norm))
            self.add_module(f'fpn_output{level}', Conv(out_channels, out_channels, 3, norm=norm))

    def forward(self, images: Tensor, steps: MapSteps = PLAIN) -> list[Tensor]:
        """Map (N, 3, H, W) to [p2, p3, p4, p5, p6], each (N, C, H / 2^l, W / 2^l)."""
        maps: list[Tensor] = []
        above: Tensor | None = None
        for level, x in reversed(list(enumerate(self.bottom_up(images, steps), start=2))):
            lateral = self.get_submodule(f'fpn_lateral{level}')(x)
            if above is not None:
                lateral = steps.add_enlarged(lateral, above)
                if self.average:
                    lateral = lateral / 2
            above = lateral
            maps.insert(0, self.get_submodule(f'fpn_output{level}')(above))
        maps.append(steps.max_pool(maps[-1], kernel=1, stride=2, padding=0))
        return maps
