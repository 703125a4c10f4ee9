# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Loading models from files that nobody vouches for."""

from segnode.checkpoint.exported import ExportedModel
from segnode.checkpoint.load import Model, load_model
from segnode.checkpoint.model import ModelDescription, NativeModel, NullModel, TorchScriptModel
from segnode.checkpoint.presets import PRESETS, preset_architecture

__all__ = [
    'PRESETS',
    'ExportedModel',
    'Model',
    'ModelDescription',
    'NativeModel',
    'NullModel',
    'TorchScriptModel',
    'load_model',
    'preset_architecture',
]
