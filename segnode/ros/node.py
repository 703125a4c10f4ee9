# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The lifecycle node: the newest frame of each camera goes through one engine and out again."""

from __future__ import annotations

import math
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future, wait
from functools import partial

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.lifecycle import LifecycleNode, State, TransitionCallbackReturn
from rclpy.parameter import Parameter

from segnode.config import Config
from segnode.engine import Engine
from segnode.errors import ImageError, OutOfMemoryError, SegnodeError
from segnode.live.accounting import DropReason
from segnode.live.pipeline import Frame, StaleFrame
from segnode.live.schedule import Schedule
from segnode.ros.camera import Camera
from segnode.ros.diagnostics import NodeState, process_memory, status_message
from segnode.ros.parameters import NodeParameters

WARM_UP_HW = (480, 640)
LOG_PERIOD_S = 5.0
CLOSE_POLL_S = 0.1
# Below it a network input shows next to nothing.
SMALLEST_SHORT_SIDE = 96


def _load(loaded: Future[Engine], config: Config, log: RcutilsLogger) -> None:
    """Load the model and warm it up; what is raised is raised where it is waited for."""
    try:
        engine = Engine(config, report=log.info)
        log.info(f'warming up on {engine.device}')
        engine.warm_up(WARM_UP_HW)
        loaded.set_result(engine)
    except BaseException as error:  # noqa: BLE001 - not swallowed
        loaded.set_exception(error)
        # An exception holds the frames that it passed, and so what was loaded half way.
        del loaded


class SegmentationNode(LifecycleNode):
    """Image topics in; masks, detections and timings out.

    Callbacks run in the executor's thread and never touch an image: they leave its bytes in the
    schedule, from where one worker thread takes the newest of each camera in turn.

    Args:
        fail: called when the node cannot start by itself.

    Attributes:
        fault: why it could last not be configured, None where it was not tried or is a bug.

    Raises:
        ConfigError: a parameter's initial value does not fit.
    """

    def __init__(self, fail: Callable[[], None]) -> None:
        super().__init__('segnode')
        self._fail = fail
        self.fault: SegnodeError | None = None
        self._engine: Engine | None = None
        self._worker: threading.Thread | None = None
        self._closed = False
        self._schedule: Schedule[Frame] = Schedule(0)
        self._lifecycle = 'unconfigured'
        self._cameras: list[Camera] = []
        self._config = NodeParameters(self, self._apply)
        self._cameras = [Camera(self, camera, self._config) for camera in self._config.cameras]
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        # A steady clock: simulated time may stand still or jump back.
        self.create_timer(1.0, self._watch, clock=Clock(clock_type=ClockType.STEADY_TIME))
        if self._config.node.autostart:
            self._start_timer = self.create_timer(
                0.0, self._start, clock=Clock(clock_type=ClockType.STEADY_TIME)
            )

    # Lifecycle

    def on_configure(self, state: State) -> TransitionCallbackReturn:
        """Load the model, warm it up, offer the topics."""
        start_s = time.monotonic()
        log = self.get_logger()
        try:
            self._engine = self._load()
            for camera in self._cameras:
                camera.offer(self._engine)
        except SegnodeError as error:
            self.fault = error
            (log.info if self._closed else log.error)(str(error))
        except Exception:  # noqa: BLE001 - rclpy would pass over it in silence
            log.error(f'cannot configure:\n{traceback.format_exc()}')
        else:
            self._lifecycle = 'inactive'
            log.info(f'configured in {time.monotonic() - start_s:.1f} s')
            return TransitionCallbackReturn.SUCCESS
        self._free()
        return TransitionCallbackReturn.FAILURE

    def on_activate(self, state: State) -> TransitionCallbackReturn:
        """Start the worker and subscribe."""
        engine = self._engine
        if engine is None:
            return TransitionCallbackReturn.ERROR
        if self._closed:
            return TransitionCallbackReturn.FAILURE
        self._schedule = Schedule(len(self._cameras))
        try:
            for number, camera in enumerate(self._cameras):
                camera.subscribe(engine, partial(self._receive, number))
        except Exception:  # noqa: BLE001 - rclpy would pass over it in silence
            self.get_logger().error(f'cannot activate:\n{traceback.format_exc()}')
            self._stop()
            return TransitionCallbackReturn.FAILURE
        self._worker = threading.Thread(target=self._work, args=(self._schedule,), daemon=True)
        self._worker.start()
        self._lifecycle = 'active'
        topics = ', '.join(camera.input.topic for camera in self._cameras if camera.input)
        self.get_logger().info(f'active, subscribed to {topics}')
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: State) -> TransitionCallbackReturn:
        """Unsubscribe and finish the frame that is being worked on."""
        self._stop()
        self._lifecycle = 'inactive'
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: State) -> TransitionCallbackReturn:
        """Free the model and its device."""
        self._free()
        self._lifecycle = 'unconfigured'
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: State) -> TransitionCallbackReturn:
        """Stop and free everything."""
        self._stop()
        self._free()
        self._lifecycle = 'finalized'
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: State) -> TransitionCallbackReturn:
        """Go back to unconfigured, so that the node can be configured again."""
        self._stop()
        self._free()
        self._lifecycle = 'unconfigured'
        return TransitionCallbackReturn.SUCCESS

    def close(self, timeout_s: float) -> bool:
        """Stop for the end of the process, in any state; return whether the worker has ended."""
        self._closed = True
        return self._stop(timeout_s)

    def _start(self) -> None:
        self._start_timer.cancel()
        for transition in (self.trigger_configure, self.trigger_activate):
            if transition() != TransitionCallbackReturn.SUCCESS:
                if not self._closed:
                    self._fail()
                return

    def _load(self) -> Engine:
        """Load in a thread that is left behind when the node is closed.

        Loading cannot be interrupted. The thread has no reference to the node, so that the
        middleware can let go of it meanwhile.

        Raises:
            SegnodeError: the node was closed before the end.
            Exception: whatever loading raises.
        """
        loaded: Future[Engine] = Future()
        arguments = (loaded, self._config.engine, self.get_logger())
        threading.Thread(target=_load, args=arguments, name='load', daemon=True).start()
        del arguments
        while not wait([loaded], CLOSE_POLL_S).done:
            if self._closed:
                raise SegnodeError('closed before the model was loaded')
        try:
            return loaded.result()
        finally:
            del loaded  # Held by an exception's frames, as in the thread.

    def _stop(self, timeout_s: float | None = None) -> bool:
        for camera in self._cameras:
            camera.unsubscribe()
        for number, _ in self._schedule.close():
            self._cameras[number].accounting.drop('inactive')
        # The end of the process may come while a transition stops it as well.
        worker = self._worker
        if worker is not None:
            worker.join(timeout_s)
            if worker.is_alive():
                return False
            self._worker = None
        for camera in self._cameras:
            camera.leave()
        return True

    def _free(self) -> None:
        for camera in self._cameras:
            camera.withdraw()
        self._engine = None

    def _apply(self, config: Config) -> None:
        if self._engine is None:
            return
        before = self._engine.settings.score_threshold
        self._engine.configure(config)
        after = self._engine.settings.score_threshold
        if before != after:
            for camera in self._cameras:
                camera.publish_label_info(after)

    # Frames

    def _receive(self, number: int, data: bytes) -> None:
        accounting = self._cameras[number].accounting
        accounting.receive()
        frame = Frame(data, time.monotonic())
        dropped = self._schedule.put(number, frame)
        if dropped is frame:
            accounting.drop('inactive')
        elif dropped is not None:
            accounting.drop('superseded')

    def _work(self, schedule: Schedule[Frame]) -> None:
        started_s = -math.inf

        def not_before_s() -> float:
            rate_hz = self._config.node.schedule.max_rate_hz
            return started_s + 1 / rate_hz if rate_hz else 0.0

        while (taken := schedule.take(not_before_s)) is not None:
            now_s = time.monotonic()
            if self._answer(self._cameras[taken[0]], taken[1]):
                started_s = now_s

    def _answer(self, camera: Camera, frame: Frame) -> bool:
        """Work on a frame; return whether it got as far as the device."""
        try:
            camera.process(frame)
        except ImageError as error:
            self._drop(camera, 'decode', error)
            return False
        except StaleFrame:
            camera.accounting.drop('stale')
            return False
        except Exception as error:  # noqa: BLE001 - no frame stops the node
            self.get_logger().debug(traceback.format_exc())
            self._drop(camera, 'error', error)
        return True

    def _drop(self, camera: Camera, reason: DropReason, error: Exception) -> None:
        text = ' '.join(str(error).split()) or type(error).__name__
        camera.out_of_memory = isinstance(error, OutOfMemoryError)
        camera.accounting.drop(reason, text)
        line = f'frame dropped ({reason}): {text}'
        if camera.out_of_memory:
            self.get_logger().warning(line, throttle_duration_sec=LOG_PERIOD_S)
            self._step_down()
        else:
            self.get_logger().error(line, throttle_duration_sec=LOG_PERIOD_S)

    def _step_down(self) -> None:
        """Go on at a lower resolution; the parameter shows it, and raises it again."""
        engine = self._engine
        if engine is None:
            return
        short_side = engine.settings.short_side * 4 // 5
        if short_side < SMALLEST_SHORT_SIDE:
            return
        lower = Parameter('resolution.short_side', value=short_side)
        try:
            done = self.set_parameters([lower])[0].successful
        except Exception:  # noqa: BLE001 - the device may fail here, too
            self.get_logger().error(f'cannot lower the resolution:\n{traceback.format_exc()}')
            return
        if done:
            self.get_logger().warning(f'out of memory: resolution.short_side is now {short_side}')

    # Every second

    def _watch(self) -> None:
        if self._lifecycle == 'active':
            worker = self._worker
            if worker is not None and not worker.is_alive() and not self._closed:
                self.get_logger().fatal('the worker has ended; see the log above')
                self._fail()
            for camera in self._cameras:
                camera.follow_publishers()
                camera.say_silence()
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        name = self.get_fully_qualified_name().lstrip('/')
        hardware_id = str(self._engine.device) if self._engine else ''
        shared = self._properties()
        memory = process_memory()
        if self._engine is not None:
            memory |= {f'device_memory_{k}': v for k, v in self._engine.memory().items()}
        for camera in self._cameras:
            task = camera.name if len(self._cameras) > 1 else 'segmentation'
            state = self._state(camera, memory, shared)
            message.status.append(status_message(f'{name}: {task}', hardware_id, state))
        self._diagnostics.publish(message)

    def _properties(self) -> dict[str, str]:
        """Return what is the same for all cameras."""
        engine, properties = self._engine, {'config_hash': self._config.hash}
        if engine is not None:
            properties.update(
                model=engine.model_name,
                weights=str(engine.weights_path),
                weights_sha256=engine.weights_sha256,
                device=str(engine.device),
                precision=engine.precision,
                **engine.execution(),
            )
        return properties

    def _state(self, camera: Camera, memory: dict[str, int], shared: dict[str, str]) -> NodeState:
        sizes = {}
        if self._engine is not None:
            height, width = camera.network_hw
            sizes = {'network_height': str(height), 'network_width': str(width)}
        source = camera.input
        return NodeState(
            lifecycle=self._lifecycle,
            counts=camera.accounting.counts(),
            messages_lost=source.messages_lost if source is not None else 0,
            out_of_memory=camera.out_of_memory,
            silence=source.silence() if source is not None else '',
            clock=camera.clock,
            stale=camera.stale,
            age_s=camera.ages.percentiles().get('age'),
            stage_ms=camera.stages.percentiles(),
            memory=memory,
            properties=shared | sizes | camera.properties(),
        )
