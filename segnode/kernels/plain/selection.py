# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The selection of proposals and of detections in plain PyTorch: one shape, no host stop."""

from __future__ import annotations

from functools import partial

from segnode.kernels.plain.nms import nms_static
from segnode.model.box_head import select_detections
from segnode.model.rpn import select_proposals

select_proposals_static = partial(select_proposals, nms=nms_static)
select_detections_static = partial(select_detections, nms=nms_static)
