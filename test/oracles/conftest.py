# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Tests against MMDetection itself, by `make test-oracles`; other runs leave this folder out."""

from __future__ import annotations

from datetime import date
from types import ModuleType

import pytest
from figures import Figures
from mmdetection_oracle import import_mmdetection, versions

_table = pytest.StashKey[dict[str, Figures]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_table] = {}


@pytest.fixture(scope='session')
def mmdetection() -> ModuleType:
    """MMDetection itself, as the oracle."""
    return import_mmdetection()


@pytest.fixture
def table(pytestconfig: pytest.Config) -> dict[str, Figures]:
    """Figures a model, printed behind the last test."""
    return pytestconfig.stash[_table]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what README's table holds."""
    rows = terminalreporter.config.stash[_table]
    if not rows:
        return
    terminalreporter.section(f'against MMDetection, {date.today()}')
    terminalreporter.line(', '.join(f'{name} {text}' for name, text in versions().items()))
    terminalreporter.line(
        '| model | instances | box, px | score | lowest mask IoU | equal masks |'
    )
    terminalreporter.line('|---|---|---|---|---|---|')
    for name, row in rows.items():
        terminalreporter.line(
            f'| {name} | {row.instances} | {row.box_px:.1e} | {row.score:.1e} '
            f'| {row.mask_iou:.4f} | {row.equal_masks} |'
        )
