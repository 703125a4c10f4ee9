# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Loading models from files that nobody vouches for."""

from segnode.checkpoint.load import load_model
from segnode.checkpoint.model import ModelDescription, NativeModel, NullModel, TorchScriptModel
from segnode.checkpoint.presets import PRESETS, preset_architecture

__all__ = [
    'PRESETS',
    'ModelDescription',
    'NativeModel',
    'NullModel',
    'TorchScriptModel',
    'load_model',
    'preset_architecture',
]
