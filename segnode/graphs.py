# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""CUDA graphs: a sequence of launches recorded once and launched whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from segnode.timing import StageMarks


class CapturedSequence:
    """A function over fixed buffers, captured as a CUDA graph where there are any."""

    def __init__(
        self, function: Callable[[], None], marks: StageMarks, device: torch.device, pool: Any
    ) -> None:
        """Warm the function up and capture it.

        Args:
            function: launches work on fixed buffers; no host stop, no changing shape.
            marks: where it marks its stages.
            device: where it launches.
            pool: memory pool of all graphs, None to run the function itself every time.
        """
        self._function = function
        self._marks = marks
        self._marked: tuple[str, ...] = ()
        self._graph: torch.cuda.CUDAGraph | None = None
        if pool is None:
            return
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        # The measured choice of convolutions, and the compilation of kernels, happen here.
        with torch.backends.cudnn.flags(enabled=True, benchmark=True):
            with torch.cuda.stream(stream):
                for _ in range(3):
                    function()
            stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            # Another thread may be running frames beside this capture.
            with torch.cuda.graph(
                graph, pool=pool, stream=stream, capture_error_mode='thread_local'
            ):
                marks.begin()
                function()
                self._marked = marks.made()
        self._graph = graph

    def __call__(self) -> None:
        """Launch the sequence on the current stream."""
        if self._graph is None:
            self._function()
        else:
            self._graph.replay()
            self._marks.add(self._marked)
