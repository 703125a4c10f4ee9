# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Targets and losses of Mask R-CNN as Detectron2 defines them.

Sources: Detectron2's ``rpn.py``, ``roi_heads.py``, ``fast_rcnn.py`` and ``mask_head.py``; He et
al., 2017. Shapes: B images, A anchors of an image, G instances of an image, R sampled RoIs.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou
from torchvision.ops import roi_align as torchvision_roi_align

from segnode.demo.training_data import Target
from segnode.kernels.plain.nms import nms
from segnode.kernels.plain.roi_align import roi_align
from segnode.model.anchors import make_anchors
from segnode.model.architecture import Pooler
from segnode.model.mask_rcnn import MaskRCNN
from segnode.model.rpn import select_proposals

RPN_IOU = (0.3, 0.7)
RPN_SAMPLES, RPN_POSITIVE = 256, 0.5
ROI_IOU = 0.5
ROI_POSITIVE = 0.25
TRAIN_PRE_NMS_TOPK, TRAIN_POST_NMS_TOPK = 400, 256


@dataclass(frozen=True, slots=True)
class Losses:
    """Scalars with gradient, whose sum is minimised."""

    objectness: Tensor
    anchor_box: Tensor
    class_score: Tensor
    box: Tensor
    mask: Tensor

    def total(self) -> Tensor:
        """Their sum, all of weight one."""
        return self.objectness + self.anchor_box + self.class_score + self.box + self.mask


def encode_boxes(
    boxes: Tensor, origins: Tensor, weights: tuple[float, float, float, float]
) -> Tensor:
    """(..., 4) deltas that turn `origins` into `boxes`: the inverse of `decode_boxes`."""
    sizes, origin_sizes = boxes[..., 2:] - boxes[..., :2], origins[..., 2:] - origins[..., :2]
    shift = (boxes[..., :2] + boxes[..., 2:] - origins[..., :2] - origins[..., 2:]) / 2
    deltas = torch.cat((shift / origin_sizes, torch.log(sizes / origin_sizes)), -1)
    return deltas * deltas.new_tensor(weights)


def mask_rcnn_losses(
    model: MaskRCNN, images: Tensor, targets: list[Target], rois_per_image: int
) -> Losses:
    """The five losses of a batch.

    Args:
        model: in training mode.
        images: (B, 3, H, W) float32, normalised; H and W multiples of 32.
        targets: ground truth of each image, at least one instance each.
        rois_per_image: proposals sampled for the heads.
    """
    features, logits, deltas = model.parts(lambda _: None).trunk(images)
    image_hw = (images.shape[-2], images.shape[-1])
    anchors = make_anchors(
        model.architecture, model.architecture.feature_hw(image_hw), images.device
    )
    objectness, anchor_box = _rpn_losses(model, logits, deltas, anchors, targets)
    with torch.no_grad():
        proposals = select_proposals(
            [x.detach().float() for x in logits],
            [x.detach().float() for x in deltas],
            anchors,
            image_hw,
            dataclasses.replace(model.architecture, rpn_pre_nms_topk=TRAIN_PRE_NMS_TOPK),
            TRAIN_POST_NMS_TOPK,
            nms,
        )
        sampled = [
            _sample_rois(boxes[valid], target, rois_per_image)
            for boxes, valid, target in zip(proposals.boxes, proposals.valid, targets, strict=True)
        ]
    class_score, box = _box_losses(model, features, sampled, targets)
    mask = _mask_loss(model, features, sampled, targets)
    return Losses(objectness, anchor_box, class_score, box, mask)


def _rpn_losses(
    model: MaskRCNN,
    logits: list[Tensor],
    deltas: list[Tensor],
    anchors: Tensor,
    targets: list[Target],
) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy and L1 over sampled anchors, both per sampled anchor."""
    scores, moves = torch.cat(logits, 1).float(), torch.cat(deltas, 1).float()
    objectness, anchor_box = [], []
    for score, move, target in zip(scores, moves, targets, strict=True):
        iou = box_iou(target.boxes, anchors)
        best, match = iou.max(0)
        # The best anchors of an instance count as well, however little they overlap it.
        forced = ((iou == iou.max(1, keepdim=True).values) & (iou > 0)).any(0)
        positive = (best >= RPN_IOU[1]) | forced
        negative = (best < RPN_IOU[0]) & ~forced
        chosen = _choose(positive, int(RPN_SAMPLES * RPN_POSITIVE))
        rest = _choose(negative, RPN_SAMPLES - len(chosen))
        wanted = torch.cat((torch.ones(len(chosen)), torch.zeros(len(rest))))
        objectness.append(
            F.binary_cross_entropy_with_logits(
                score[torch.cat((chosen, rest))], wanted, reduction='sum'
            )
        )
        goal = encode_boxes(
            target.boxes[match[chosen]], anchors[chosen], model.architecture.rpn_bbox_weights
        )
        anchor_box.append(F.l1_loss(move[chosen], goal, reduction='sum'))
    count = RPN_SAMPLES * len(targets)
    return torch.stack(objectness).sum() / count, torch.stack(anchor_box).sum() / count


def _choose(allowed: Tensor, count: int) -> Tensor:
    """At most `count` random positions of True."""
    places = allowed.nonzero().squeeze(1)
    return places[torch.randperm(len(places))[:count]]


@dataclass(frozen=True, slots=True)
class _Rois:
    boxes: Tensor  # (R, 4)
    match: Tensor  # (R,) the instance each overlaps most
    class_ids: Tensor  # (R,) background is the last class


def _sample_rois(proposals: Tensor, target: Target, count: int) -> _Rois:
    """A quarter of positives at most, the instances themselves among the proposals."""
    boxes = torch.cat((proposals, target.boxes))
    best, match = box_iou(boxes, target.boxes).max(1)
    positive = _choose(best >= ROI_IOU, int(count * ROI_POSITIVE))
    negative = _choose(best < ROI_IOU, count - len(positive))
    class_ids = target.class_ids[match[positive]]
    background = torch.full((len(negative),), -1)
    rows = torch.cat((positive, negative))
    return _Rois(boxes[rows], match[rows], torch.cat((class_ids, background)))


def _pool(features: list[Tensor], boxes: list[Tensor], pooler: Pooler) -> Tensor:
    image_index = torch.cat([torch.full((len(b),), k) for k, b in enumerate(boxes)])
    return roi_align(features, torch.cat(boxes), image_index, pooler)


def _box_losses(
    model: MaskRCNN, features: list[Tensor], sampled: list[_Rois], targets: list[Target]
) -> tuple[Tensor, Tensor]:
    """Cross-entropy over classes, and L1 of the true class's deltas per RoI."""
    architecture, heads = model.architecture, model.roi_heads
    pooled = _pool(features, [rois.boxes for rois in sampled], architecture.box_pooler)
    scores, deltas = heads.box_predictor(heads.box_head(pooled))
    class_ids = torch.cat([rois.class_ids for rois in sampled])
    wanted = torch.where(class_ids < 0, architecture.num_classes, class_ids)
    class_score = F.cross_entropy(scores.float(), wanted)
    boxes = torch.cat([rois.boxes for rois in sampled])
    truth = torch.cat([t.boxes[r.match] for r, t in zip(sampled, targets, strict=True)])
    rows = (class_ids >= 0).nonzero().squeeze(1)
    moves = deltas.float().unflatten(1, (-1, 4))[rows, class_ids[rows]]
    goal = encode_boxes(truth[rows], boxes[rows], architecture.box_bbox_weights)
    return class_score, F.l1_loss(moves, goal, reduction='sum') / len(class_ids)


def _mask_loss(
    model: MaskRCNN, features: list[Tensor], sampled: list[_Rois], targets: list[Target]
) -> Tensor:
    """Binary cross-entropy of the true class's mask over the positive RoIs."""
    positive = [rois.class_ids >= 0 for rois in sampled]
    boxes = [rois.boxes[rows] for rois, rows in zip(sampled, positive, strict=True)]
    class_ids = torch.cat([r.class_ids[rows] for r, rows in zip(sampled, positive, strict=True)])
    pooled = _pool(features, boxes, model.architecture.mask_pooler)
    logits = model.roi_heads.mask_head(pooled).float()
    logits = logits[torch.arange(len(class_ids)), class_ids]
    with torch.no_grad():
        goal = torch.cat(
            [
                _mask_targets(target.masks, roi_boxes, rois.match[rows], logits.shape[-1])
                for target, roi_boxes, rois, rows in zip(
                    targets, boxes, sampled, positive, strict=True
                )
            ]
        )
    return F.binary_cross_entropy_with_logits(logits, goal)


def _mask_targets(masks: Tensor, boxes: Tensor, match: Tensor, side: int) -> Tensor:
    """(R, side, side) float32 zeros and ones: each box's instance, cut out and resized."""
    rois = torch.cat((match[:, None].float(), boxes), 1)
    cut = torchvision_roi_align(masks[:, None].float(), rois, side, 1.0, 0, aligned=True)
    return torch.ge(cut[:, 0], 0.5).float()
