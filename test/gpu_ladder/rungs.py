# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The four ways to run the engine, from what can hardly go wrong to what is fastest."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any
from unittest import mock

SWITCHES = ('SEGNODE_TRITON', 'SEGNODE_GRAPHS')


@dataclass(frozen=True, slots=True)
class Rung:
    """A way to run the engine."""

    name: str
    triton: bool
    graphs: bool

    @property
    def environment(self) -> dict[str, str]:
        """Return the switches that take the engine there."""
        wanted = dict(zip(SWITCHES, (self.triton, self.graphs), strict=True))
        return {name: '0' for name, on in wanted.items() if not on}

    def whole_environment(self) -> dict[str, str]:
        """Return the environment of a process that runs there."""
        inherited = {name: value for name, value in os.environ.items() if name not in SWITCHES}
        return {**inherited, **self.environment}

    def switched(self) -> AbstractContextManager[Any]:
        """Set the switches, which the engine reads when it is built."""
        return mock.patch.dict(os.environ, self.whole_environment(), clear=True)


RUNGS = {
    rung.name: rung
    for rung in (
        Rung('plain', triton=False, graphs=False),
        Rung('triton', triton=True, graphs=False),
        Rung('graphs', triton=False, graphs=True),
        Rung('triton-graphs', triton=True, graphs=True),
    )
}
