# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""OpenVINO without its telemetry, which tells its makers of each conversion unless it is stopped.

It and NNCF do without that package where it cannot be imported.
"""

from __future__ import annotations

import sys

sys.modules.setdefault('openvino_telemetry', None)  # type: ignore[arg-type]

import openvino as ov  # noqa: E402
from openvino import _pyopenvino as binding  # noqa: E402

__all__ = ['binding', 'ov']
