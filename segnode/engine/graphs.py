# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""CUDA graphs: a sequence of launches recorded once and launched whole.

What PyTorch and CUDA ask of a capture:

- one at a time in a process;
- no collection of garbage, as a graph that is destroyed in mid-capture spoils it;
- one stream for all captures, as freed blocks are kept by stream;
- for graphs that run beside each other, pools of their own;
- the thread that captures must outlive its graphs: cuDNN's plans, with the kernels that they
  compiled, belong to it;
- a workspace of cuBLAS in each path's own pool: it is kept by stream, recorded by address, and
  given back with the first graph of the stream that is destroyed.
"""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import torch

from segnode.engine.timing import StageMarks
from segnode.errors import is_out_of_memory
from segnode.model.fusion import measured_convolutions, whole_sums

Result = TypeVar('Result')

# Runs of a sequence before its capture: kernels are compiled and convolutions chosen in them.
WARM_UP = 3
# What errors say where a build cannot capture: CUDA's codes 900 to 908, and PyTorch's own.
_CANNOT_CAPTURE = ('captur', 'cuda graph', 'not supported', 'not permitted')
_ONE_CAPTURE = threading.Lock()
# Captures that went wrong. Some releases leave the allocator with a pointer to such a graph.
_SPOILT: list[torch.cuda.CUDAGraph] = []


class CaptureUnsupportedError(Exception):
    """This build of PyTorch, or this device, cannot capture what runs when launched plainly."""


@dataclass(frozen=True, slots=True)
class Capture:
    """Where the graphs of one path are captured.

    Attributes:
        stream: of all captures of an engine.
        pool: of the path's graphs alone, which never run beside each other.
    """

    stream: torch.cuda.Stream
    pool: Any


class CapturedSequence(Generic[Result]):
    """A function over fixed buffers, captured as a CUDA graph where there are any."""

    def __init__(
        self,
        function: Callable[..., Result],
        inputs: tuple[Any, ...],
        marks: StageMarks,
        capture: Capture | None,
    ) -> None:
        """Warm the function up and capture it, on the current stream.

        Args:
            function: launches work on fixed buffers and returns what it made; no host stop, no
                changing shape.
            inputs: what it is called with.
            marks: where it marks its stages.
            capture: None to run the function itself every time; its stream is the current one.

        Raises:
            CaptureUnsupportedError: it runs, and cannot be captured here.
        """
        self._function = function
        self._marks = marks
        self._marked: tuple[str, ...] = ()
        self._graph: torch.cuda.CUDAGraph | None = None
        self._outputs: Result
        if capture is not None:
            with as_for_a_capture():
                for _ in range(WARM_UP):
                    function(*inputs)
                capture.stream.synchronize()
                self._graph = self._record(inputs, capture)

    def __call__(self, *inputs: Any) -> Result:
        """Launch the sequence on the current stream; return what it makes.

        A graph has recorded its ``inputs``: they must be those that it was captured with.
        """
        if self._graph is None:
            with whole_sums():
                return self._function(*inputs)
        self._graph.replay()
        self._marks.add(self._marked)
        return self._outputs

    def _record(self, inputs: tuple[Any, ...], capture: Capture) -> torch.cuda.CUDAGraph:
        # Ending a capture that went wrong raises anew: what came first is what counts.
        first: Exception | None = None
        cause: Exception | None
        graph = torch.cuda.CUDAGraph()
        try:
            with (
                without_garbage_collection(),
                workspaces_of_its_own(),
                # Another thread may be running frames beside this capture.
                torch.cuda.graph(
                    graph,
                    pool=capture.pool,
                    stream=capture.stream,
                    capture_error_mode='thread_local',
                ),
            ):
                self._marks.begin()
                try:
                    self._outputs = self._function(*inputs)
                except Exception as error:
                    first = error
                    raise
                self._marked = self._marks.made()
        except (RuntimeError, TypeError, AttributeError) as error:
            _SPOILT.append(graph)
            cause = first or error
            if is_out_of_memory(cause):
                # Its name without "cuda" is of 2.4.
                raise torch.cuda.OutOfMemoryError(str(cause)) from None
            too_old = first is None and not isinstance(error, RuntimeError)
            if too_old or any(word in str(cause).lower() for word in _CANNOT_CAPTURE):
                raise CaptureUnsupportedError(str(cause)) from None
            raise cause from None
        finally:
            first = cause = None  # Their tracebacks hold this frame.
        return graph


@contextmanager
def as_for_a_capture() -> Iterator[None]:
    """Have libraries choose their kernels as for a capture, and keep those of others away."""
    with _ONE_CAPTURE, measured_convolutions(), whole_sums():
        yield


class CaptureThread:
    """The one thread in which an engine's paths are built, as long as the engine lives."""

    def __init__(self) -> None:
        """Start it; it ends when this object is dropped, and no end of a process waits for it."""
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        threading.Thread(
            target=_work, args=(self._jobs,), name='segnode capture', daemon=True
        ).start()
        # At the end of the process nobody would wait for what the thread then gives back.
        weakref.finalize(self, self._jobs.put, None).atexit = False

    def run(self, job: Callable[[], Result]) -> Result:
        """Run a job behind those that wait, and return or raise what it does."""
        future: Future[Result] = Future()
        self._jobs.put((future, job))
        try:
            return future.result()
        finally:
            del future  # An exception's frames hold it, and it the exception.


def _work(jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]) -> None:
    while (item := jobs.get()) is not None:
        future, job = item
        try:
            future.set_result(job())
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            future.set_exception(error)
        # Nothing of a path may be kept until the next one comes.
        del item, future, job


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


@contextmanager
def workspaces_of_its_own() -> Iterator[None]:
    """Have a capture take new workspaces for cuBLAS, from its pool, and leave none behind.

    As ``torch._inductor.cudagraph_trees`` does.
    """
    torch._C._cuda_clearCublasWorkspaces()
    try:
        yield
    finally:
        torch._C._cuda_clearCublasWorkspaces()
