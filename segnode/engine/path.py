# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""One key's sequences, captured where graphs are, with the host's side of them.

The host waits twice a frame: for the packet, by which it picks a capacity, and for the answer. The
capacity may be guessed, and launched before the packet is there: see ``Speculation``. Then the
packet's time is that of its copy, else it has the host's way to the next launch, too, and what a
wrong guess cost.

Shapes: N images, D detections, M side of a mask, H and W of the image.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segnode.engine.answers import Instances, Labelled, as_raw_masks
from segnode.engine.graphs import Capture, CapturedSequence
from segnode.engine.host_buffers import FrameMemory, LabelBuffers
from segnode.engine.input_channels import choose_input
from segnode.engine.network import NativeNetwork
from segnode.engine.packet import Packet, read_packet
from segnode.engine.program import Chosen, Masks, PathKey, Program
from segnode.engine.settings import InferenceSettings
from segnode.engine.speculation import Speculation
from segnode.engine.timing import is_asynchronous
from segnode.image import Image
from segnode.kernels.operators import Operators

# Instances that a mask head is run for at once; padded to 100 it costs more than the backbone.
CAPACITIES = (8, 16, 32, 64, 100)


class StaticPath:
    """The sequences of one key, captured where graphs are, and its buffers on the host."""

    def __init__(
        self,
        network: NativeNetwork,
        operators: Operators,
        key: PathKey,
        settings: InferenceSettings,
        capture: Capture | None,
        memory: FrameMemory | None = None,
    ) -> None:
        """Make the buffers, and capture both sequences unless ``capture`` is None.

        Frames that lie in ``memory`` are uploaded from there.

        Raises:
            CaptureUnsupportedError: they run, and cannot be captured here.
        """
        self.key = key
        self._mask_side = network.architecture.mask_side
        self._program = program = Program(network, operators, key, settings)
        self.marks = program.marks
        choose_input(network, program.preprocess, captured=capture is not None)
        self._detect = CapturedSequence(program.detect, (), program.marks, capture)
        chosen = self._detect()
        # Fewer than asked for where there are fewer candidates.
        slots = chosen.keep.shape[1]
        self._most = most = min(slots, CAPACITIES[-1])

        def captured(
            label: Callable[[int, Chosen], Masks], capacity: int
        ) -> CapturedSequence[Masks]:
            return CapturedSequence(partial(label, capacity), (chosen,), program.marks, capture)

        self._label = {
            capacity: captured(program.label, capacity)
            for capacity in [c for c in CAPACITIES if c < most] + [most]
        }
        self._label_next: CapturedSequence[Masks] | None = None
        if slots > most:
            program.restart()
            self._label_next = captured(program.label_next, most)

        if capture is None and is_asynchronous(network.device):
            # What cannot run here must show now, as in a capture's warm-up.
            for sequence in self._label.values():
                sequence(chosen)
            if self._label_next is not None:
                self._label_next(chosen)

        def on_host(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
            return torch.zeros(shape, dtype=dtype, pin_memory=program.frames.is_cuda)

        self._host_frames = on_host(tuple(program.frames.shape), torch.uint8)
        self._host_packet = on_host(tuple(chosen.packet.shape), torch.float32)
        self._labels = LabelBuffers((key.images, *key.image_hw), pinned=program.frames.is_cuda)
        self._host_areas = on_host((-(-slots // most), key.images * most), torch.int64)
        self._memory = memory
        # Every capacity can be launched by now, so that a guess waits for nothing to be built.
        self.speculation: Speculation | None = None
        self._arrived: torch.cuda.Event | None = None
        if is_asynchronous(network.device):
            self.speculation, self._arrived = Speculation(), torch.cuda.Event()

    def segment(
        self, images: Sequence[Image], settings: InferenceSettings, *, raw_masks: bool
    ) -> list[Labelled]:
        """Run N images to their label images; two stops: the packet's and the answer's.

        Raw masks add a stop for each part.
        """
        guess = self.speculation.guess() if self.speculation else 0
        chosen, kept, ahead = self._find(images, settings, guess)
        parts = [torch.zeros((len(images), 0), dtype=torch.int64)]
        side = self._mask_side
        raw = [torch.zeros((len(images), 0, side, side), dtype=torch.uint8)]
        painted: Tensor | None = None
        parts_of_masks = self._mask(chosen, kept, ahead)
        for masks, host in zip(parts_of_masks, self._host_areas, strict=False):
            # As one stretch: a copy between other layouts blocks.
            areas = host[: masks.areas.numel()].view_as(masks.areas)
            parts.append(areas.copy_(masks.areas, non_blocking=True))
            painted = masks.labels
            if raw_masks:
                raw.append(as_raw_masks(masks.probabilities).to('cpu'))
        if painted is None:
            labels = np.zeros((len(images), *self.key.image_hw), dtype=np.uint16)
        else:
            buffer = self._labels.take()
            buffer.target.copy_(painted, non_blocking=True)
            labels = buffer.labels
        self.marks.mark('download')
        self._synchronise()
        if self.speculation:
            capacity = self._capacity(kept)
            self.speculation.note(capacity, lambda: sum(self.marks.milliseconds().values()))
        each = torch.cat(parts, 1)
        own = torch.cat(raw, 1) if raw_masks else None
        return [
            self._labelled(n, count, each[n], labels[n], None if own is None else own[n])
            for n, count in enumerate(kept)
        ]

    def run(self, images: Sequence[Image], settings: InferenceSettings) -> list[Instances]:
        """Run N images to their mask probabilities."""
        chosen, kept, _ = self._find(images, settings)
        parts = [torch.zeros((len(images), 0, self._mask_side, self._mask_side))]
        # A copy on a CPU, too: the next part, and the next frame, have the same buffers.
        parts += [m.probabilities.to('cpu', copy=True) for m in self._mask(chosen, kept)]
        probabilities = torch.cat(parts, 1)
        self.marks.mark('download')
        self._synchronise()
        return [
            Instances(
                torch.from_numpy(packet.boxes),
                torch.from_numpy(packet.scores),
                torch.from_numpy(packet.class_ids),
                probabilities[n, :count],
                packet.counts,
            )
            for n, count in enumerate(kept)
            for packet in [self._packet(n, count)]
        ]

    def _find(
        self, images: Sequence[Image], settings: InferenceSettings, guess: int = 0
    ) -> tuple[Chosen, list[int], Masks | None]:
        """Launch ``detect``, wait for the packet; return how many masks each image needs, too.

        Behind ``detect`` goes ``label`` in the capacity of a ``guess``, if any. What it gives is
        the third thing that is returned, where that is the capacity that the frame needs. Where
        it is not, nothing has been copied of it, and what is launched next overwrites it.
        """
        self.marks.begin()
        self.marks.mark('start')
        self._program.limits.set(settings)
        self._upload(images)
        chosen = self._detect()
        self._host_packet.copy_(chosen.packet, non_blocking=True)
        found = self.marks.made()
        if self._arrived is not None:
            self._arrived.record()
        ahead: Masks | None = None
        if guess:
            self.marks.mark('packet')
            ahead = self._label[guess](chosen)
        if self._arrived is not None:
            # The packet alone: the device goes on with what was launched behind it.
            self._arrived.synchronize()
        kept = [int(count) for count in self._host_packet[:, 0].tolist()]
        if ahead is None or guess != self._capacity(kept):
            ahead = None
            self.marks.rewind(found)
            self.marks.mark('packet')
        return chosen, kept, ahead

    def _upload(self, images: Sequence[Image]) -> None:
        """Launch the copies of N images, from where they are if a device can fetch them there."""
        for n, image in enumerate(images):
            source, same = None, image.order == self.key.order
            if same and self._memory is not None:
                source = self._memory.source(image.pixels)
            if source is None:
                source = self._host_frames[n]
                np.copyto(source.numpy(), image.pixels if same else image.pixels[..., ::-1])
            self._program.frames[n].copy_(source, non_blocking=True)

    def _capacity(self, kept: list[int]) -> int:
        """Return the smallest capacity that holds all; 0 where they are none, or too many."""
        wanted = max(kept)
        return next((c for c in self._label if c >= wanted), 0) if wanted else 0

    def _mask(
        self, chosen: Chosen, kept: list[int], ahead: Masks | None = None
    ) -> Iterator[Masks]:
        """Launch ``label`` in the smallest capacity that holds all, else as often as it takes.

        Each launch may overwrite what the one before gave; the last one's label images hold all.
        What was launched ``ahead`` in that capacity is not launched again.
        """
        wanted = max(kept)
        if wanted > self._most:
            assert self._label_next is not None
            self._program.restart()
            for _ in range(0, wanted, self._most):
                yield self._label_next(chosen)
            self.marks.mark('paste')
        elif ahead is not None:
            yield ahead
        elif wanted:
            yield self._label[self._capacity(kept)](chosen)

    def _synchronise(self) -> None:
        device = self._program.frames.device
        if device.type == 'cuda':
            torch.cuda.current_stream(device).synchronize()

    def _packet(self, n: int, count: int) -> Packet:
        return read_packet(self._host_packet[n].numpy(), count)

    def _labelled(
        self,
        n: int,
        count: int,
        slots: Tensor,
        labels: npt.NDArray[np.uint16],
        raw: Tensor | None,
    ) -> Labelled:
        packet, areas = self._packet(n, count), slots[:count].numpy()
        stay = areas >= 0
        counts = dataclasses.replace(
            packet.counts,
            kept=int(stay.sum()),
            filtered_area=packet.counts.filtered_area + int((~stay).sum()),
        )
        return Labelled(
            packet.boxes[stay],
            packet.scores[stay],
            packet.class_ids[stay],
            areas[stay],
            labels,
            counts,
            None if raw is None else raw[:count].numpy()[stay],
        )
