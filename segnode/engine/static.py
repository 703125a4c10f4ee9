# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""A native Mask R-CNN in fixed shapes that never stop the device: the path of a GPU.

For one number of images, image size and set of capacities everything that a frame needs is built
once: buffers, anchors, coefficients, and CUDA graphs where there are any.

Shapes: N images, H and W of the image.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from threading import Lock

import torch

from segnode.engine.answers import Instances, Labelled
from segnode.engine.graphs import Capture, CaptureThread, CaptureUnsupportedError
from segnode.engine.host_buffers import FrameMemory
from segnode.engine.network import NativeNetwork
from segnode.engine.path import CAPACITIES, StaticPath
from segnode.engine.program import PathKey
from segnode.engine.settings import InferenceSettings
from segnode.engine.timing import StageClock, is_asynchronous
from segnode.errors import first_line, is_out_of_memory
from segnode.image import Image, Lend
from segnode.kernels.operators import Operators, is_kernel_failure, plain_operators
from segnode.model.box_head import BoxDetections
from segnode.torch_features import missing_features


class Streams:
    """The streams of an engine on a GPU: frames run on one, captures on the other.

    On a CPU there are none.
    """

    def __init__(self, device: torch.device) -> None:
        """Make both; PyTorch hands them out from a ring, so that more would meet again."""
        self.frames: torch.cuda.Stream | None = None
        self.captures: torch.cuda.Stream | None = None
        if is_asynchronous(device):
            self.frames, self.captures = torch.cuda.Stream(device), torch.cuda.Stream(device)
            # Neither waits for the default stream by itself, on which the weights were prepared.
            for stream in (self.frames, self.captures):
                stream.wait_stream(torch.cuda.current_stream(device))


@contextmanager
def inference_on(stream: torch.cuda.Stream | None) -> Iterator[None]:
    """Launch on a stream, in inference mode."""
    with nullcontext() if stream is None else torch.cuda.stream(stream), torch.inference_mode():
        yield


class StaticBackend:
    """A bounded cache of paths, and where they are built and run: the backend of a GPU.

    See ``segnode.engine.backend.Backend``.

    Frames run in one thread at a time; others may build meanwhile. All building is done one after
    the other, on a GPU in a thread of its own.
    """

    # Image sizes in use at a time; the path unused for longest goes first.
    SIZES = 4

    def __init__(
        self,
        network: NativeNetwork,
        operators: Operators,
        report: Callable[[str], None],
    ) -> None:
        """Take a network; paths are built for the frames that come."""
        self.network = network
        self.device = network.device
        self.precision = network.precision
        self.paste = network.architecture.semantics.paste
        self.gives_raw_masks = True
        self._limit = self.SIZES
        self._operators = operators
        self._report = report
        self._paths: OrderedDict[PathKey, StaticPath] = OrderedDict()
        self._lock = Lock()
        self._building = Lock()
        self._streams = Streams(network.device)
        self.lend: Lend | None = None
        self._memory: FrameMemory | None = None
        if self._streams.frames is not None:
            self._memory = FrameMemory(pinned=network.device.type == 'cuda')
            self.lend = self._memory.lend
        self._thread = None if self._streams.captures is None else CaptureThread()
        self._no_graphs = ''
        if self._streams.captures is None:
            self._no_graphs = f'none on a {network.device.type.upper()}'
        elif os.environ.get('SEGNODE_GRAPHS') == '0':
            self._no_graphs = 'SEGNODE_GRAPHS is 0'
        else:
            for feature in missing_features('graphs'):
                report(feature.line())
                if feature.for_capture:
                    self._no_graphs = f'no {feature.name} in PyTorch {torch.__version__}'

    def describe(self) -> dict[str, str]:
        """Return what runs: ``operators``, and whether there are ``graphs`` or why not.

        Once it was measured how many ``input_channels`` the network should have, these too. On a
        GPU ``label_image`` tells when the last size's label images are begun.
        """
        graphs = f'off ({self._no_graphs})' if self._no_graphs else 'captured'
        said = {'operators': self._operators.description, 'graphs': graphs}
        if choice := self.network.input_choice:
            said['input_channels'] = choice
        with self._lock:
            # No path outlives the lock here: its graphs must end where no capture is under way.
            speculations = [path.speculation for path in self._paths.values()]
        if speculations and speculations[-1] is not None:
            said['label_image'] = speculations[-1].describe()
        return said

    def defaults(self) -> InferenceSettings:
        """Return the settings of the model's own config."""
        return self.network.defaults()

    def resized_hw(
        self, image_hw: tuple[int, int], settings: InferenceSettings
    ) -> tuple[int, int]:
        """Return the network's input size for an image, before padding."""
        return self.network.resized_hw(image_hw, settings)

    def check(self, settings: InferenceSettings) -> None:
        """Every setting has a meaning for a native network."""

    def label(
        self,
        images: Sequence[Image],
        settings: InferenceSettings,
        clock: StageClock,
        *,
        raw_masks: bool,
    ) -> list[Labelled]:
        """Return detections and label image of each image; ``clock`` gets the stages."""
        path = self._path(images, settings)
        with inference_on(self._streams.frames):
            answer = path.segment(images, settings, raw_masks=raw_masks)
            clock.add(path.marks.milliseconds())
            return answer

    def run(
        self, images: Sequence[Image], settings: InferenceSettings, clock: StageClock
    ) -> list[Instances]:
        """Return the instances of each image before paste; ``clock`` gets the stages."""
        path = self._path(images, settings)
        with inference_on(self._streams.frames):
            answer = path.run(images, settings)
            clock.add(path.marks.milliseconds())
            return answer

    def replace_detections(self, replace: Callable[[BoxDetections], BoxDetections] | None) -> None:
        """Have ``replace`` answer in place of the box head; None ends it."""
        self.network.replace = replace
        self.clear()

    def prepare(self, settings: InferenceSettings) -> None:
        """Build what the sizes in use need under other settings, beside the running paths."""
        with self._lock:
            sizes = {(key.images, key.image_hw, key.order) for key in self._paths}
        for images, image_hw, order in sizes:
            self._prepared(self._key(images, image_hw, order, settings), settings)

    def reserve(self, paths: int) -> None:
        """Keep that many paths, where they are more than usual."""
        self._limit = max(self.SIZES, paths)

    def clear(self) -> None:
        """Drop all paths and their memory, and what is being built as soon as it is."""
        if self._thread is None:
            self._drop_all()
        else:
            # In line with the building, so that no path of before comes afterwards.
            self._thread.run(self._drop_all)

    def _drop_all(self) -> None:
        if self._streams.frames is not None:
            self._streams.frames.synchronize()  # A frame that failed may still be running.
        with self._building, self._lock:
            self._paths.clear()

    def _key(
        self,
        images: int,
        image_hw: tuple[int, int],
        order: str,
        settings: InferenceSettings,
    ) -> PathKey:
        return PathKey(
            images=images,
            image_hw=image_hw,
            order=order,
            network_hw=self.network.resized_hw(image_hw, settings),
            proposals=settings.proposals,
            capacity=max(settings.max_instances, CAPACITIES[-1]),
        )

    def _path(self, images: Sequence[Image], settings: InferenceSettings) -> StaticPath:
        first = images[0]
        size = (first.height, first.width)
        return self._prepared(self._key(len(images), size, first.order, settings), settings)

    def _prepared(self, key: PathKey, settings: InferenceSettings) -> StaticPath:
        path = self._built(key)
        if path is None:
            build = partial(self._build_unless_built, key, settings)
            path = build() if self._thread is None else self._thread.run(build)
        return path

    def _built(self, key: PathKey) -> StaticPath | None:
        with self._lock:
            path = self._paths.get(key)
            if path is not None:
                self._paths.move_to_end(key)
            return path

    def _build_unless_built(self, key: PathKey, settings: InferenceSettings) -> StaticPath:
        with self._building:
            path = self._built(key)
            if path is not None:
                return path
            height, width = key.network_hw
            self._report(
                f'preparing {key.images} x {key.image_hw[0]}x{key.image_hw[1]} '
                f'at network input {height}x{width}'
            )
            chosen = self.network.input_choice
            path = self._build(key, settings)
            if self.network.input_choice != chosen:
                self._report(f'network input of {self.network.input_choice}')
            with self._lock:
                self._paths[key] = path
                while len(self._paths) > self._limit:
                    self._paths.popitem(last=False)
            return path

    def _build(self, key: PathKey, settings: InferenceSettings) -> StaticPath:
        """Build with what runs here: first without what turns out not to.

        Some builds for embedded boards and ROCm cannot capture, and Triton may fail at a kernel;
        plain launches and plain operators can. Memory that ran out and mistakes are raised.
        """
        again = True
        while True:
            try:
                return self._build_once(key, settings)
            except CaptureUnsupportedError as error:
                if again:
                    # Something else in the process may have spoilt it, by waiting for the device.
                    again = False
                    continue
                self._no_graphs = first_line(error)
                self._report(f'no CUDA graphs here, launching one by one: {self._no_graphs}')
            except Exception as error:
                if is_out_of_memory(error) or not is_kernel_failure(self._operators, error):
                    raise
                self._operators = plain_operators(f'a Triton kernel failed: {first_line(error)}')
                self._report(f'running without Triton kernels: {first_line(error)}')

    def _build_once(self, key: PathKey, settings: InferenceSettings) -> StaticPath:
        stream, capture = self._streams.captures, None
        if stream is not None and not self._no_graphs:
            capture = Capture(stream, torch.cuda.graph_pool_handle())
        else:
            # Blocks are kept by stream: these serve the frames afterwards.
            stream = self._streams.frames
        with inference_on(stream):
            path = StaticPath(self.network, self._operators, key, settings, capture, self._memory)
        if stream is not None:
            stream.synchronize()
        return path
