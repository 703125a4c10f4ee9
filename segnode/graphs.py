# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""CUDA graphs: a sequence of launches recorded once and launched whole."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import torch

from segnode.timing import StageMarks

Outputs = TypeVar('Outputs')


class CapturedSequence(Generic[Outputs]):
    """A function over fixed buffers, captured as a CUDA graph where there are any."""

    def __init__(
        self,
        function: Callable[..., Outputs],
        inputs: tuple[Any, ...],
        marks: StageMarks,
        device: torch.device,
        pool: Any,
    ) -> None:
        """Warm the function up and capture it.

        Args:
            function: launches work on fixed buffers and returns what it made; no host stop, no
                changing shape.
            inputs: what it is called with.
            marks: where it marks its stages.
            device: where it launches.
            pool: memory pool of all graphs, None to run the function itself every time.
        """
        self._function = function
        self._marks = marks
        self._marked: tuple[str, ...] = ()
        self._graph: torch.cuda.CUDAGraph | None = None
        self._outputs: Outputs
        if pool is None:
            return
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        # The measured choice of convolutions, and the compilation of kernels, happen here.
        with torch.backends.cudnn.flags(enabled=True, benchmark=True):
            with torch.cuda.stream(stream):
                for _ in range(3):
                    function(*inputs)
            stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            # Another thread may be running frames beside this capture.
            with (
                without_garbage_collection(),
                torch.cuda.graph(
                    graph, pool=pool, stream=stream, capture_error_mode='thread_local'
                ),
            ):
                marks.begin()
                self._outputs = function(*inputs)
                self._marked = marks.made()
        self._graph = graph

    def __call__(self, *inputs: Any) -> Outputs:
        """Launch the sequence on the current stream; return what it makes.

        A graph has recorded its ``inputs``: they must be those that it was captured with.
        """
        if self._graph is None:
            return self._function(*inputs)
        self._graph.replay()
        self._marks.add(self._marked)
        return self._outputs


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Keep the collector from destroying an old graph, which would spoil a capture."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
