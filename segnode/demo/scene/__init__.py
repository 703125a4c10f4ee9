# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Procedural camera scenes with exact instance masks.

A camera circles a handful of objects on a textured floor. Each object is one or two analytic
solids (a truncated quadric of revolution or a cuboid), found pixel by pixel by ray casting, so the
masks are exact and shading, texture and occlusion follow from geometry. Light, motion blur and
sensor noise are then added. Every frame is a function of the seed and the frame index alone.

World frame: metres, z up, the floor at z = 0. Camera frame: x right, y down, z forward.
H, W image height and width; N instances; h, w height and width of a texture or an image window.

Read ``scene`` first. It draws from the seed: ``ground`` and ``panorama`` (both of ``textures``),
``objects`` (``classes`` of ``solids``), ``camera``, ``lighting`` and ``optics``. A frame passes
``patches`` (by ``ray_casting``), ``visibility``, ``background`` and ``optics``, and becomes a
``frame``, whose truth ``annotations`` writes as COCO.
"""

from segnode.demo.scene.annotations import coco_annotations
from segnode.demo.scene.classes import CLASS_NAMES
from segnode.demo.scene.frame import SceneFrame, mask_boxes
from segnode.demo.scene.scene import DEMO_SEEDS, TRAIN_SEEDS, VALIDATION_SEEDS, Scene
from segnode.demo.scene.visibility import MIN_VISIBLE_FRACTION, MIN_VISIBLE_PX

__all__ = [
    'CLASS_NAMES',
    'DEMO_SEEDS',
    'MIN_VISIBLE_FRACTION',
    'MIN_VISIBLE_PX',
    'TRAIN_SEEDS',
    'VALIDATION_SEEDS',
    'Scene',
    'SceneFrame',
    'coco_annotations',
    'mask_boxes',
]
