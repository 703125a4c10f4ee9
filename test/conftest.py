# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What every test may ask for, and the reasons for which a marked test is skipped."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from segnode.benchmark.oracle import import_detectron2
from segnode.kernels.cpu import CpuKernels, load_cpu_kernels

CHECKOUT = Path(__file__).resolve().parents[1]


def shared_folder() -> Path:
    return Path(os.environ.get('SEGNODE_SHARED') or CHECKOUT.parent / 'shared')


def reason_to_skip(marker: str) -> str | None:
    """What this machine lacks for tests with ``marker``, or None."""
    if marker == 'gpu' and not torch.cuda.is_available():
        return 'needs a CUDA or ROCm device'
    if marker == 'launch' and shutil.which('ros2') is None:
        return 'needs `ros2 launch` of an installed ROS 2'
    if marker == 'shared' and not (shared_folder() / 'data').is_dir():
        return f'needs {shared_folder()} with data/ (another place: SEGNODE_SHARED)'
    return None


def pytest_configure() -> None:
    # A process that a test starts runs the checkout, too.
    entries = [str(CHECKOUT), str(CHECKOUT / 'test'), os.environ.get('PYTHONPATH', '')]
    os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, entries))
    # A shell's background job ignores Ctrl-C, and so would all that the tests start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if 'shared' in getattr(item, 'fixturenames', ()):
            item.add_marker('shared')


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in ('gpu', 'launch', 'shared'):
        if item.get_closest_marker(marker) and (reason := reason_to_skip(marker)):
            pytest.skip(reason)


@pytest.fixture(autouse=True, scope='module')
def _threads() -> Iterator[None]:
    """Fail where a module leaves another number of threads: all after it would be timed so."""
    before = torch.get_num_threads()
    yield
    left = torch.get_num_threads()
    torch.set_num_threads(before)
    assert left == before


@pytest.fixture(scope='session')
def shared() -> Path:
    """The folder with photographs, annotations and a trained model; never part of a checkout."""
    return shared_folder()


@pytest.fixture(params=['compiled', 'plain'])
def steps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The steps around the network on a CPU, first compiled and then as libraries have them."""
    with monkeypatch.context() as patch:
        if request.param == 'plain':
            patch.setenv('SEGNODE_NATIVE', '0')
        load_cpu_kernels.cache_clear()
        # Set-up builds them wherever it can build vision_msgs.
        assert isinstance(load_cpu_kernels(), CpuKernels) == (request.param == 'compiled')
        yield request.param
    load_cpu_kernels.cache_clear()


@pytest.fixture(scope='session')
def detectron2() -> ModuleType:
    """Detectron2 itself, as the oracle."""
    return import_detectron2()
