# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Seeds for tests on fresh random inputs; a test's name shows the one that it ran with."""

from __future__ import annotations

import os
import random

# The same in all processes of one run: they must agree on the tests that there are.
_chance = random.Random(os.environ.get('PYTEST_XDIST_TESTRUNUID'))


def fresh_seeds(count: int) -> list[int]:
    """Return new seeds at every run, or the one in ``SEGNODE_TEST_SEED`` to repeat a failure."""
    if 'SEGNODE_TEST_SEED' in os.environ:
        return [int(os.environ['SEGNODE_TEST_SEED'])]
    return [_chance.randrange(2**31) for _ in range(count)]
