# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""OpenVINO for a process: one core, and no telemetry.

It tells its makers of each conversion unless it is stopped; it and NNCF do without that package
where it cannot be imported.
"""

from __future__ import annotations

import functools
import sys

sys.modules.setdefault('openvino_telemetry', None)  # type: ignore[arg-type]

import openvino as ov  # noqa: E402
from openvino import _pyopenvino as binding  # noqa: E402

__all__ = ['binding', 'core', 'ov']


@functools.cache
def core() -> ov.Core:
    """Return the core, which lasts as long as the process.

    The processor's plugin of each core gives its thread a stack for signal handlers, and when it
    ends, the one that it found (its ``SigAltStackSetup``, seen in 2026.4). Of two that do not end
    in the reverse order that is one which is gone, and the next signal, Ctrl-C too, kills the
    process.
    """
    return ov.Core()
