# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What an active node does: frames go from the cameras through the engine and out again."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from rclpy.impl.rcutils_logger import RcutilsLogger
from std_msgs.msg import Header

from segnode.engine import Engine
from segnode.errors import ImageError, OutOfMemoryError
from segnode.live.accounting import DropReason
from segnode.live.inference import Inference
from segnode.live.overlap import Overlap
from segnode.live.pipeline import Answered, Decoded, Frame, StaleFrame
from segnode.live.schedule import Schedule
from segnode.ros.camera import Camera
from segnode.ros.parameters import NodeParameters

LOG_PERIOD_S = 5.0


class Worker:
    """Takes the cameras' frames from activation to deactivation, and accounts for each.

    The intake's thread leaves bytes in the schedule; decoding, inference and publishing have
    threads of their own. What goes wrong with a frame costs that frame alone.
    """

    def __init__(
        self,
        cameras: Sequence[Camera],
        engine: Engine,
        settings: NodeParameters,
        log: RcutilsLogger,
        step_down: Callable[[], None],
    ) -> None:
        """Take what it works with; nothing is subscribed yet.

        Args:
            cameras: whose frames it takes.
            engine: answers them.
            settings: asked at every frame.
            log: is told what fails.
            step_down: called when the device is out of memory.
        """
        self._cameras = cameras
        self._settings = settings
        self._log = log
        self._step_down = step_down
        self._lend = engine.lend
        self._schedule: Schedule[Frame] = Schedule(len(cameras))
        self._inference: Inference[Header] = Inference(
            engine, lambda: settings.node.schedule, len(cameras), log.info
        )
        self._overlap = Overlap(
            self._schedule,
            self._decode,
            self._infer,
            self._deliver,
            self._inference.choose,
            self._pause_s,
        )

    def start(self) -> None:
        """Subscribe and begin."""
        for number, camera in enumerate(self._cameras):
            camera.subscribe(partial(self._receive, number), self._lend)
        self._overlap.start()

    def broken(self) -> bool:
        """Return whether it has ended by itself, which it should not."""
        return self._overlap.broken()

    def stop(self, timeout_s: float | None = None) -> bool:
        """Unsubscribe and finish what is under way; what only waits is dropped.

        Returns:
            Whether all has ended.
        """
        for camera in self._cameras:
            camera.unsubscribe()
        self._inference.close()
        for number, _ in self._schedule.close():
            self._cameras[number].accounting.drop('inactive')
        if not self._overlap.join(timeout_s):
            return False
        for camera in self._cameras:
            camera.leave()
        return True

    @property
    def budget_missed(self) -> str:
        """That frames are too old whatever is done; empty where they are not."""
        return self._inference.budget_missed

    @property
    def scale(self) -> float:
        """Part of the network's input sides that frames are run at."""
        return self._inference.scale

    def _receive(self, number: int, data: bytes) -> None:
        accounting = self._cameras[number].accounting
        accounting.receive()
        frame = Frame(data, time.monotonic())
        dropped = self._schedule.put(number, frame)
        if dropped is frame:
            accounting.drop('inactive')
        elif dropped is not None:
            accounting.drop('superseded')

    def _pause_s(self) -> float:
        rate_hz = self._settings.node.schedule.max_rate_hz
        return 1 / rate_hz if rate_hz else 0.0

    def _decode(self, number: int, frame: Frame) -> Decoded[Header] | None:
        camera = self._cameras[number]
        try:
            return camera.decode(frame)
        except ImageError as error:
            self._drop(camera, 'decode', error)
        except StaleFrame:
            camera.accounting.drop('stale')
        except Exception as error:  # noqa: BLE001 - no frame stops the node
            self._fail(number, error)
        return None

    def _infer(
        self, frames: list[tuple[int, Decoded[Header]]]
    ) -> Iterator[tuple[int, Answered[Header]]]:
        fresh = []
        for number, frame in frames:
            try:
                # Once more, as it may have waited for another camera's.
                self._cameras[number].check_age(frame.header)
                fresh.append((number, frame))
            except StaleFrame:
                self._cameras[number].accounting.drop('stale')
            except Exception as error:  # noqa: BLE001 - no frame stops the node
                self._fail(number, error)
        return self._inference.answer(
            fresh, lambda number: self._cameras[number].wants_raw_masks(), self._fail
        )

    def _deliver(self, number: int, answered: Answered[Header]) -> None:
        try:
            age_s = self._cameras[number].deliver(answered)
        except Exception as error:  # noqa: BLE001 - no frame stops the node
            self._fail(number, error)
            return
        try:
            self._inference.observe(answered, age_s * 1e3)
        except Exception:  # noqa: BLE001 - nor does what follows from it
            self._log.error(traceback.format_exc(), throttle_duration_sec=LOG_PERIOD_S)

    def _fail(self, number: int, error: Exception) -> None:
        self._log.debug(''.join(traceback.format_exception(error)))
        self._drop(self._cameras[number], 'error', error)

    def _drop(self, camera: Camera, reason: DropReason, error: Exception) -> None:
        text = ' '.join(str(error).split()) or type(error).__name__
        camera.out_of_memory = isinstance(error, OutOfMemoryError)
        camera.accounting.drop(reason, text)
        line = f'frame dropped ({reason}): {text}'
        if camera.out_of_memory:
            self._log.warning(line, throttle_duration_sec=LOG_PERIOD_S)
            self._step_down()
        else:
            self._log.error(line, throttle_duration_sec=LOG_PERIOD_S)
