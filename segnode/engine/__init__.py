# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""A model on a device, from images to masks."""

from segnode.engine.answers import Detections, Prediction, Segmentation
from segnode.engine.engine import Engine

__all__ = ['Detections', 'Engine', 'Prediction', 'Segmentation']
