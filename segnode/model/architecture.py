# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What a Mask R-CNN is, apart from its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from segnode.model.backbone_specs import RESNET_50, BackboneSpec

# A rule is named after the library that made it.
Rule: TypeAlias = Literal['detectron2', 'torchvision', 'mmdetection']
# Whose paste of a mask: MMDetection's is Detectron2's. A box without area has no pixels here;
# MMDetection, which alone pastes such, sets a few on a CPU and up to thousands on a GPU.
Paste: TypeAlias = Literal['detectron2', 'torchvision']
# What follows a convolution: nothing, a batch norm, a group norm.
Norm: TypeAlias = Literal['', 'BN', 'GN']


@dataclass(frozen=True, slots=True, kw_only=True)
class Semantics:
    """What a family computes in its own way, whatever its weights and config say.

    Attributes:
        family: whose checkpoints these are.
        resize: an image's size in the network, and how its pixels get there: uint8 by Pillow's
            antialiased filter, then normalised; normalised floats without antialiasing; or uint8
            by OpenCV's filter without antialiasing, then normalised.
        anchors: Detectron2 sets them a stride apart; torchvision rounds them to whole pixels and
            spreads them over the padded image; MMDetection orders them by ratio before size.
        clamp_shrinking: a delta can shrink a side by no more than it can enlarge one.
        rank_probabilities: the RPN ranks and suppresses by float32 probabilities, of which large
            ones are equal where their logits still differ.
        inclusive_sides: a proposal may be exactly as short as the least side, not just longer.
        least_detection_side: shortest side of a detection before NMS, network pixels; 0 is off.
        clip_detections: boxes in the input image are clipped to it, and dropped where empty.
        paste: where a pixel samples a mask, and whether the threshold itself sets it.
        background_first: the background is class 0 in the family's files. In a network built
            here it is always the last one.
    """

    family: Rule
    resize: Rule
    anchors: Rule
    clamp_shrinking: bool
    rank_probabilities: bool
    inclusive_sides: bool
    least_detection_side: float
    clip_detections: bool
    paste: Paste
    background_first: bool


DETECTRON2: Final = Semantics(
    family='detectron2',
    resize='detectron2',
    anchors='detectron2',
    clamp_shrinking=False,
    rank_probabilities=False,
    inclusive_sides=False,
    least_detection_side=0.0,
    clip_detections=True,
    paste='detectron2',
    background_first=False,
)
TORCHVISION: Final = Semantics(
    family='torchvision',
    resize='torchvision',
    anchors='torchvision',
    clamp_shrinking=False,
    rank_probabilities=False,
    inclusive_sides=True,
    least_detection_side=1e-2,
    clip_detections=False,
    paste='torchvision',
    background_first=True,
)
MMDETECTION: Final = Semantics(
    family='mmdetection',
    resize='mmdetection',
    anchors='mmdetection',
    clamp_shrinking=True,
    rank_probabilities=True,
    inclusive_sides=False,
    least_detection_side=0.0,
    clip_detections=False,
    paste='detectron2',
    background_first=False,
)
SEMANTICS: Final = {each.family: each for each in (DETECTRON2, TORCHVISION, MMDETECTION)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooler:
    """RoIAlign over some levels of the maps.

    Attributes:
        resolution: side of what is pooled [POOLER_RESOLUTION].
        sampling_ratio: samples a bin and side; 0 takes as many as pixels fit
            [POOLER_SAMPLING_RATIO].
        aligned: half-pixel correction, ROIAlignV2 [POOLER_TYPE].
        levels: by whose rule an RoI's size picks its level.
        strides: of the maps that are pooled from, the finest first.
    """

    resolution: int
    sampling_ratio: int = 0
    aligned: bool = True
    levels: Rule = 'detectron2'
    strides: tuple[int, ...] = (4, 8, 16, 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """Every property of a Mask R-CNN + FPN that changes its answer.

    The defaults are those of Detectron2's ``Base-RCNN-FPN.yaml`` with a ResNet-50; names in
    brackets are the config keys they come from. Weights are always named and ordered as
    Detectron2 does (background is the last class); a backbone that Detectron2 has not is named as
    in MMDetection, below ``backbone.bottom_up``.

    Attributes:
        semantics: what its family computes in its own way.
        backbone: the bottom-up path.
        norm_eps: epsilon of batch and group norms; 0 for torchvision's published COCO weights,
            1e-5 otherwise.
        fpn_channels: channels of p2 to p6 [FPN.OUT_CHANNELS].
        fpn_norm: behind its convolutions; batch norms there and in the heads are folded on loading
            and count as none [FPN.NORM].
        fpn_fuse: how lateral and top-down maps join [FPN.FUSE_TYPE].
        strides: of the maps that the RPN sees, the finest first.
        anchor_sizes: side in pixels of the anchors of p2 to p6 [ANCHOR_GENERATOR.SIZES].
        anchor_ratios: height / width [ANCHOR_GENERATOR.ASPECT_RATIOS].
        anchor_offset: centre of the first anchor in strides [ANCHOR_GENERATOR.OFFSET].
        rpn_conv_dims: channels of the RPN's hidden convolutions, -1 keeps [RPN.CONV_DIMS].
        rpn_bbox_weights: scale of the anchor deltas [RPN.BBOX_REG_WEIGHTS].
        rpn_pre_nms_topk: candidates a level before NMS [RPN.PRE_NMS_TOPK_TEST].
        rpn_post_nms_topk: proposals after NMS [RPN.POST_NMS_TOPK_TEST].
        rpn_nms_threshold: IoU [RPN.NMS_THRESH].
        rpn_min_size: shortest side of a proposal, network pixels [PROPOSAL_GENERATOR.MIN_SIZE].
        box_pooler: RoIAlign [ROI_BOX_HEAD.POOLER_*].
        box_conv_dims: channels of the box head's 3x3 convolutions [ROI_BOX_HEAD.NUM_CONV].
        box_norm: behind each of them [ROI_BOX_HEAD.NORM].
        box_fc_dims: width of each hidden layer [ROI_BOX_HEAD.NUM_FC, FC_DIM].
        box_cls_agnostic: one box for all classes [ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG].
        box_bbox_weights: scale of the box deltas [ROI_BOX_HEAD.BBOX_REG_WEIGHTS].
        mask_pooler: RoIAlign [ROI_MASK_HEAD.POOLER_*].
        mask_conv_dims: channels of the mask head's convolutions; the last one is the
            deconvolution's too [ROI_MASK_HEAD.NUM_CONV, CONV_DIM].
        mask_norm: behind each of them [ROI_MASK_HEAD.NORM].
        mask_cls_agnostic: one mask for all classes [ROI_MASK_HEAD.CLS_AGNOSTIC_MASK].
        num_classes: foreground classes [ROI_HEADS.NUM_CLASSES].
        score_threshold: default [ROI_HEADS.SCORE_THRESH_TEST].
        nms_threshold: default [ROI_HEADS.NMS_THRESH_TEST].
        max_instances: default [TEST.DETECTIONS_PER_IMAGE].
        mask_threshold: default; a constant in Detectron2.
        color: channel order of the network's input [INPUT.FORMAT].
        pixel_mean, pixel_std: in 0..255 and in the order of ``color`` [MODEL.PIXEL_*].
        short_side, long_side: default network input [INPUT.MIN_SIZE_TEST, MAX_SIZE_TEST].
        size_divisibility: the input is padded to multiples of it (at least 32)
            [FPN backbone: 32].
    """

    semantics: Semantics = DETECTRON2
    backbone: BackboneSpec = RESNET_50
    norm_eps: float = 1e-5
    fpn_channels: int = 256
    fpn_norm: Literal['', 'GN'] = ''
    fpn_fuse: Literal['sum', 'avg'] = 'sum'
    strides: tuple[int, ...] = (4, 8, 16, 32, 64)
    anchor_sizes: tuple[tuple[float, ...], ...] = ((32,), (64,), (128,), (256,), (512,))
    anchor_ratios: tuple[tuple[float, ...], ...] = ((0.5, 1.0, 2.0),) * 5
    anchor_offset: float = 0.0
    rpn_conv_dims: tuple[int, ...] = (-1,)
    rpn_bbox_weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    rpn_pre_nms_topk: int = 1000
    rpn_post_nms_topk: int = 1000
    rpn_nms_threshold: float = 0.7
    rpn_min_size: float = 0.0
    box_pooler: Pooler = Pooler(resolution=7)
    box_conv_dims: tuple[int, ...] = ()
    box_norm: Literal['', 'GN'] = ''
    box_fc_dims: tuple[int, ...] = (1024, 1024)
    box_cls_agnostic: bool = False
    box_bbox_weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    mask_pooler: Pooler = Pooler(resolution=14)
    mask_conv_dims: tuple[int, ...] = (256, 256, 256, 256)
    mask_norm: Literal['', 'GN'] = ''
    mask_cls_agnostic: bool = False
    num_classes: int = 80
    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    max_instances: int = 100
    mask_threshold: float = 0.5
    color: Literal['BGR', 'RGB'] = 'BGR'
    pixel_mean: tuple[float, float, float] = (103.53, 116.28, 123.675)
    pixel_std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    short_side: int = 800
    long_side: int = 1333
    size_divisibility: int = 32

    def __post_init__(self) -> None:
        # Maps are handed to RoIAlign by their place.
        for pooler in (self.box_pooler, self.mask_pooler):
            if pooler.strides != self.pooled_strides or not pooler.strides:
                raise ValueError(
                    f'expected both poolers to read the finest of the strides {self.strides}, '
                    f'found {pooler.strides}'
                )

    @property
    def pooled_strides(self) -> tuple[int, ...]:
        """Strides of the maps that both heads are pooled from, the finest first."""
        return self.strides[: len(self.box_pooler.strides)]

    @property
    def mask_side(self) -> int:
        """M, the side of a mask: the head doubles what is pooled."""
        return 2 * self.mask_pooler.resolution

    def feature_hw(self, padded_hw: tuple[int, int]) -> list[tuple[int, int]]:
        """Return height and width of every map that the RPN sees, for a padded input."""
        return [
            (-(-padded_hw[0] // stride), -(-padded_hw[1] // stride)) for stride in self.strides
        ]
