# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What a frame costs on this machine: each network in a process of its own.

So no network's memory hides another's, and one that the machine cannot hold ends nothing but its
own process, as does any other failure.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from segnode.config import Config
from segnode.errors import SegnodeError, first_line
from segnode.model.architecture import Architecture

WARM_UP: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """What was measured.

    Attributes:
        ms_p50, ms_p95: of a frame, host to host, without decoding and publishing.
        frames: that were timed.
        instances: median of what was found.
        peak_bytes: on a GPU the most memory that PyTorch held there; on a CPU the most that the
            process had resident above what it had before the network was built, None where the
            system does not tell.
        device, precision: where and in which format it ran.
        threads: of PyTorch on the host.
        error: why nothing was measured, empty where it was.
    """

    ms_p50: float | None = None
    ms_p95: float | None = None
    frames: int = 0
    instances: float | None = None
    peak_bytes: int | None = None
    device: str = ''
    precision: str = ''
    threads: int = 0
    error: str = ''

    def json(self) -> dict[str, Any]:
        """Return it as ``--json`` writes it."""
        return {
            'ms_p50': self.ms_p50,
            'ms_p95': self.ms_p95,
            'frames': self.frames,
            'instances_p50': self.instances,
            'peak_mib': None if self.peak_bytes is None else round(self.peak_bytes / 2**20, 1),
            'device': self.device,
            'precision': self.precision,
            'threads': self.threads,
            'error': self.error,
        }


def time_architecture(
    architecture: Architecture, size: tuple[int, int], config: Config, frames: int
) -> Timing:
    """Plant weights and time some frames in a new process, which is ended whatever happens.

    Args:
        architecture: of the network.
        size: height and width of frames.
        config: device, precision and the size of the network's input.
        frames: to be timed, after ``WARM_UP`` others.
    """
    try:
        return _plant_and_time(architecture, size, config, frames)
    except Exception as error:  # noqa: BLE001 - no network stops the others
        return _failed(error)


def _plant_and_time(
    architecture: Architecture, size: tuple[int, int], config: Config, frames: int
) -> Timing:
    from safetensors.torch import save_file

    from segnode.benchmark.planted import plant_architecture

    with TemporaryDirectory(prefix='segnode-models-') as folder:
        # Planting takes memory that no user of a trained model needs: it is done out here.
        path = Path(folder) / 'planted.safetensors'
        save_file(plant_architecture(architecture), path)
        spawn = get_context('spawn')
        answer, sender = spawn.Pipe(duplex=False)
        child = spawn.Process(
            target=_answer, args=(sender, _measure, architecture, path, size, config, frames)
        )
        try:
            with _ctrl_c_held():
                child.start()
            sender.close()
            timing: Timing = answer.recv()
        except EOFError:
            return Timing(error='its process was killed, as the system does without memory')
        finally:
            if child.pid is not None:
                child.kill()
                child.join()
        return timing


@contextmanager
def _ctrl_c_held() -> Iterator[None]:
    """Hold back SIGINT, and from processes started meanwhile for good: others end those."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _answer(sender: Connection, measure: Callable[..., Timing], *args: object) -> None:
    """Send what was measured, or why nothing was."""
    try:
        timing = measure(*args)
    except Exception as error:  # noqa: BLE001 - it is said out there
        timing = _failed(error)
    sender.send(timing)


def _failed(error: Exception) -> Timing:
    if isinstance(error, SegnodeError):
        return Timing(error=str(error))
    return Timing(error=f'{type(error).__name__}: {first_line(error)}')


def _measure(
    architecture: Architecture, weights: Path, size: tuple[int, int], config: Config, frames: int
) -> Timing:
    """Time frames in this process, which does nothing else."""
    import numpy as np
    import torch
    from safetensors.torch import load_file

    from segnode.benchmark.planted import as_model, render_frames
    from segnode.engine import Engine
    from segnode.percentiles import percentiles

    images = render_frames(size)
    before = _resident('VmRSS')
    engine = Engine(config, model=as_model(architecture, load_file(weights), 'planted'))
    for number in range(WARM_UP):
        engine.segment([images[number % len(images)]])
    times, found = [], []
    for number in range(frames):
        start = time.perf_counter()
        (answer,) = engine.segment([images[number % len(images)]])
        times.append((time.perf_counter() - start) * 1e3)
        found.append(len(answer.detections))
    p50, p95 = percentiles(times, 50, 95)
    most = _resident('VmHWM')
    peak = None if before is None or most is None else most - before
    if engine.device.type == 'cuda':
        peak = engine.memory()['peak']
    return Timing(
        ms_p50=p50,
        ms_p95=p95,
        frames=frames,
        instances=float(np.median(found)),
        peak_bytes=peak,
        device=str(engine.device),
        precision=engine.precision,
        threads=torch.get_num_threads(),
    )


def _resident(field: str) -> int | None:
    """Return a figure of this process's memory in bytes, None where the system has none."""
    try:
        text = Path(f'/proc/{os.getpid()}/status').read_text(encoding='utf-8')
    except OSError:
        return None
    found = re.search(rf'^{field}:\s+(\d+) kB$', text, re.MULTILINE)
    return int(found[1]) * 1024 if found else None
