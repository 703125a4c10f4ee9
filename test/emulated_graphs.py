# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""CUDA streams, events and graphs emulated on a CPU, with the rules that break real captures.

A capture records the operators that its thread dispatches; a replay runs them again on the same
memory. What a real device forbids is an error here as well: a value read by the host in
mid-capture, a graph destroyed in the capturing thread, two captures at once, a capture on a stream
that another thread works on, an event that is read before it was recorded or recorded after it is
gone. Memory that nobody holds after a capture belongs to the pool again: it is overwritten after
every replay, so that an answer that rests on it is wrong here, too. As nothing runs in a real
capture, what it computed is overwritten as well.

What it cannot see: speed, copies that block, threads of the device itself, and kernels in Triton.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only

# PyTorch hands out streams from a ring of this many.
STREAMS = 32
# What the host cannot have in mid-capture.
FORBIDDEN = {
    'aten::_local_scalar_dense',
    'aten::item',
    'aten::is_nonzero',
    'aten::nonzero',
    'aten::equal',
}


class CaptureError(RuntimeError):
    """What CUDA would say."""


class EmulatedCuda:
    """One emulated device.

    Attributes:
        streams_made: how many streams were asked for.
        pools_made: how many memory pools were asked for.
        captures: how many captures ended well.
        pools: the pool of each of these captures.
        replays: how many graphs were replayed.
        failures: each is raised in a capture, after as many of its operators.
        external_events: whether graphs can record events.
        log: what was waited for, captured and replayed, and when cuBLAS's workspaces were given
            back.
        supported: whether captures are possible at all.
        threads: names of the threads that captured.
    """

    def __init__(self) -> None:
        self.streams_made = 0
        self.pools_made = 0
        self.captures = 0
        self.replays = 0
        self.failures: list[tuple[int, Exception]] = []
        self.external_events = True
        self.log: list[tuple[Any, ...]] = []
        self.supported = True
        self.threads: set[str] = set()
        self.pools: list[object] = []
        self._lock = threading.Lock()
        self._capturing: _Graph | None = None
        self._entered: list[tuple[int, int]] = []
        self._local = threading.local()

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put the emulation in place of ``torch.cuda``'s, for engines with ``static=True``."""
        cuda = self

        class Stream(_Stream):
            def __init__(self, device: object = None, priority: int = 0) -> None:
                self.number = cuda.streams_made % STREAMS
                self.log = cuda.log
                cuda.streams_made += 1

        class Graph(_Graph):
            def __init__(self, keep_graph: bool = False) -> None:
                super().__init__(cuda)

        class Event(_Event):
            def __init__(
                self,
                enable_timing: bool = False,
                blocking: bool = False,
                interprocess: bool = False,
                external: bool = False,
            ) -> None:
                if external and not cuda.external_events:
                    raise TypeError("'external' is an invalid keyword argument for Event()")
                super().__init__(cuda, enable_timing, external)

        def pool() -> tuple[int, int]:
            self.pools_made += 1
            return (0, self.pools_made)

        def current_stream(device: object = None) -> _Stream:
            return self._streams()[-1]

        # Where it is defined last, as the import of the others takes it from there.
        for module in ('static', 'path', 'timing'):
            name = f'segnode.engine.{module}.is_asynchronous'
            monkeypatch.setattr(name, lambda device: True)
        patch = {
            'Stream': Stream,
            'CUDAGraph': Graph,
            'Event': Event,
            'graph': self._graph,
            'stream': self._stream,
            'current_stream': current_stream,
            'device': _device,
            'graph_pool_handle': pool,
            'is_current_stream_capturing': lambda: self._mine() is not None,
            'synchronize': lambda device=None: None,
            'empty_cache': lambda: None,
        }
        for name, value in patch.items():
            monkeypatch.setattr(torch.cuda, name, value)
        clear = '_cuda_clearCublasWorkspaces'
        monkeypatch.setattr(torch._C, clear, lambda: cuda.log.append(('clear',)), raising=False)

    def invalidate(self) -> None:
        """Spoil the capture that this thread has under way, if any."""
        graph = self._mine()
        if graph is not None:
            graph.spoilt = True

    def _mine(self) -> _Graph | None:
        graph = self._capturing
        here = graph is not None and graph.thread == threading.get_ident()
        return graph if here else None

    def _streams(self) -> list[_Stream]:
        if not hasattr(self._local, 'streams'):
            self._local.streams = [_Stream()]
        streams: list[_Stream] = self._local.streams
        return streams

    @contextmanager
    def _stream(self, stream: _Stream | None) -> Iterator[None]:
        if stream is None:
            yield
            return
        me = (threading.get_ident(), stream.number)
        capturing = self._capturing
        if capturing is not None and capturing.stream == stream.number and self._mine() is None:
            raise CaptureError('operation not permitted: another thread captures on this stream')
        self._streams().append(stream)
        self._entered.append(me)
        try:
            yield
        finally:
            self._entered.remove(me)
            self._streams().pop()

    @contextmanager
    def _graph(
        self,
        graph: _Graph,
        pool: object = None,
        stream: _Stream | None = None,
        capture_error_mode: str = 'global',
    ) -> Iterator[None]:
        if not self.supported:
            raise CaptureError('CUDA graphs may only be used with a build that has them')
        assert stream is not None
        me = threading.get_ident()
        with self._lock:
            if self._capturing is not None:
                raise CaptureError('a capture is underway already in another thread')
            self._capturing = graph
        graph.thread, graph.stream, graph.pool = me, stream.number, pool
        graph.number = self.captures
        self.threads.add(threading.current_thread().name)
        try:
            if any(n == stream.number and who != me for who, n in self._entered):
                raise CaptureError('another thread works on the stream that is captured')
            if capture_error_mode != 'thread_local':
                raise CaptureError('operation not permitted: another thread allocates memory')
            try:
                with self._stream(stream), _Recorder(self, graph.nodes):
                    yield
            except BaseException:
                graph.spoilt = True
                raise
            finally:
                # Ending an invalid capture raises anew, as PyTorch's does.
                if graph.spoilt:
                    graph.nodes.clear()
                    raise CaptureError(
                        'CUDA error: operation failed due to a previous error during capture'
                    )
            self.captures += 1
            self.log.append(('capture', stream.number))
            self.pools.append(pool)
        finally:
            self._capturing = None
        graph.finish()


class _device:  # noqa: N801 - stands for torch.cuda.device
    def __init__(self, device: object) -> None:
        pass

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


class _Stream:
    """Work here is done when its call returns; who would have waited for whom is written down."""

    number = -1

    def __init__(self) -> None:
        self.log: list[tuple[Any, ...]] = []

    def wait_stream(self, other: _Stream) -> None:
        self.log.append(('wait', self.number, other.number))

    def synchronize(self) -> None:
        self.log.append(('synchronise', self.number))


class _Event:
    def __init__(self, cuda: EmulatedCuda, enable_timing: bool, external: bool) -> None:
        self._cuda = cuda
        self._timing = enable_timing
        self._external = external
        self.seconds: float | None = None

    def record(self, stream: object = None) -> None:
        graph = self._cuda._mine()
        if graph is None:
            self.seconds = time.perf_counter()
        elif self._external:
            # A node of a graph has the bare handle.
            graph.nodes.append(weakref.ref(self))
        else:
            # It orders the graph's own branches, and has no time from then on.
            self.seconds, self._timing = None, False

    def synchronize(self) -> None:
        assert self.seconds is not None, 'what was not recorded is not waited for'
        self._cuda.log.append(('event',))

    def elapsed_time(self, end: _Event) -> float:
        if self.seconds is None or end.seconds is None or not (self._timing and end._timing):
            raise RuntimeError('CUDA error: invalid resource handle')
        return (end.seconds - self.seconds) * 1e3


@dataclass(frozen=True, slots=True)
class _Call:
    """An operator with aliases of its tensors, so that it does not keep a caller's alive."""

    function: Any
    args: Any
    kwargs: Any
    out: Any


def _alias(value: Any) -> Any:
    def alias(tensor: Tensor) -> Tensor:
        # oneDNN's own layouts have no storage; they are constants of the model.
        return tensor.detach() if tensor.layout == torch.strided else tensor

    return tree_map_only(Tensor, alias, value)


class _Recorder(TorchDispatchMode):
    def __init__(self, cuda: EmulatedCuda, nodes: list[Any]) -> None:
        super().__init__()
        self._cuda = cuda
        self._nodes = nodes

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        kwargs = kwargs or {}
        if self._cuda.failures and len(self._nodes) >= self._cuda.failures[0][0]:
            failure = self._cuda.failures.pop(0)[1]
            # A new one: what is raised holds all frames that it passed.
            raise type(failure)(*failure.args)
        if func._schema.name in FORBIDDEN:
            raise CaptureError(f'operation not permitted when stream is capturing: {func}')
        # Before the call: one in place could change what the arguments are.
        call_args, call_kwargs = _alias(args), _alias(kwargs)
        out = func(*args, **kwargs)
        self._nodes.append(_Call(func, call_args, call_kwargs, _alias(out)))
        return out


@dataclass(eq=False)
class _Graph:
    cuda: EmulatedCuda
    nodes: list[Any] = field(default_factory=list)
    spoilt: bool = False
    thread: int = 0
    stream: int = -1
    pool: object = None
    number: int = -1
    _given_back: list[Tensor] = field(default_factory=list)

    def finish(self) -> None:
        """Find what nobody holds, and undo what a real capture would not have computed."""
        calls = [node for node in self.nodes if isinstance(node, _Call)]
        inputs: set[int] = set()
        made: dict[int, Tensor] = {}
        ours: dict[int, int] = {}
        for call in calls:
            for tensor in _strided((call.args, call.kwargs)):
                ours[_memory(tensor)] = ours.get(_memory(tensor), 0) + 1
                if _memory(tensor) not in made:
                    inputs.add(_memory(tensor))
            for tensor in _strided(call.out):
                ours[_memory(tensor)] = ours.get(_memory(tensor), 0) + 1
                if _memory(tensor) not in inputs and tensor.numel():
                    made.setdefault(_memory(tensor), tensor)
        for memory, tensor in made.items():
            _overwrite(tensor)
            if _references(tensor) == ours[memory]:
                self._given_back.append(tensor)

    def replay(self) -> None:
        """Run everything again, on the same memory."""
        assert not self.spoilt
        assert self.cuda._mine() is None, 'a graph is launched in mid-capture'
        self.cuda.replays += 1
        self.cuda.log.append(('replay', self.number))
        for node in self.nodes:
            if isinstance(node, weakref.ref):
                event = node()
                if event is None:
                    raise RuntimeError(
                        'CUDA error: invalid resource handle, as the event that a graph records '
                        'is gone'
                    )
                event.seconds = time.perf_counter()
                continue
            fresh = node.function(*node.args, **node.kwargs)
            for old, new in zip(_strided(node.out), _strided(fresh), strict=True):
                if _memory(old) != _memory(new):
                    old.copy_(new)
        for tensor in self._given_back:
            _overwrite(tensor)

    def __del__(self) -> None:
        self.cuda.invalidate()


def _strided(tree: Any) -> Iterator[Tensor]:
    for leaf in tree_iter(tree):
        if isinstance(leaf, Tensor) and leaf.layout == torch.strided:
            yield leaf


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _references(tensor: Tensor) -> int:
    """How many tensors share a tensor's memory."""
    # The storage's own Python object counts as well.
    return torch._C._storage_Use_Count(_memory(tensor)) - _OF_AN_OBJECT


def _overwrite(tensor: Tensor) -> None:
    with torch.inference_mode():
        everything = torch.empty(0, dtype=torch.uint8)
        everything.set_(tensor.untyped_storage()).fill_(0xFF)  # NaN, and -1


_OF_AN_OBJECT = 0
_OF_AN_OBJECT = _references(torch.zeros(1)) - 1
