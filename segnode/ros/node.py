# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The lifecycle node: the newest frame of a camera goes through the engine and out as messages."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future, wait

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.lifecycle import LifecycleNode, State, TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_msgs.msg import Header

from segnode.config import Config
from segnode.engine import Engine, Segmentation
from segnode.errors import ImageError, OutOfMemoryError, SegnodeError
from segnode.image import Image
from segnode.live.accounting import DropReason, FrameAccounting, RollingPercentiles
from segnode.live.frame_slot import FrameSlot
from segnode.live.pipeline import Frame, Pipeline
from segnode.ros.diagnostics import NodeState, process_memory, status_message
from segnode.ros.image_input import ImageInput
from segnode.ros.messages import to_nanoseconds
from segnode.ros.outputs import Outputs
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
    """Image topic in; masks, detections and timings out.

    Callbacks run in the executor's thread and never touch an image: they leave its bytes in a
    slot, from where one worker thread takes the newest.

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
        self._outputs: Outputs | None = None
        self._input: ImageInput | None = None
        self._worker: threading.Thread | None = None
        self._closed = False
        self._slot: FrameSlot[Frame] = FrameSlot()
        self._slot.close()
        self._accounting = FrameAccounting()
        self._stages = RollingPercentiles()
        self._ages = RollingPercentiles()
        self._network_hw = (0, 0)
        self._out_of_memory = False
        self._lifecycle = 'unconfigured'
        self._config = NodeParameters(self, self._apply)
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
            self._outputs = Outputs(self, self._engine.class_names)
            self._outputs.publish_label_info(self._engine.settings.score_threshold)
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
        own = self._config.node
        if self._engine is None or self._outputs is None:
            return TransitionCallbackReturn.ERROR
        if self._closed:
            return TransitionCallbackReturn.FAILURE
        camera = ImageInput(
            self, own.image_topics[0], own.image_transport, own.image_qos, self._receive
        )
        self._slot = FrameSlot()
        self._worker = threading.Thread(
            target=self._work, args=(self._slot, camera, self._engine, self._outputs), daemon=True
        )
        self._worker.start()
        self._accounting.restart_idle()
        camera.open()
        self._input = camera
        self._lifecycle = 'active'
        self.get_logger().info(f'active, subscribed to {camera.topic}')
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
        if self._input is not None:
            self._input.close()
        if self._slot.close() is not None:
            self._accounting.drop('inactive')
        # The end of the process may come while a transition stops it as well.
        worker = self._worker
        if worker is not None:
            worker.join(timeout_s)
            if worker.is_alive():
                return False
            self._worker = None
        return True

    def _free(self) -> None:
        if self._outputs is not None:
            self._outputs.close()
        self._outputs = None
        self._engine = None

    def _apply(self, config: Config) -> None:
        if self._engine is None:
            return
        before = self._engine.settings.score_threshold
        self._engine.configure(config)
        after = self._engine.settings.score_threshold
        if self._outputs is not None and before != after:
            self._outputs.publish_label_info(after)

    # Frames

    def _receive(self, data: bytes) -> None:
        self._accounting.receive()
        frame = Frame(data, time.monotonic())
        dropped = self._slot.put(frame)
        if dropped is frame:
            self._accounting.drop('inactive')
        elif dropped is not None:
            self._accounting.drop('superseded')

    def _work(
        self, slot: FrameSlot[Frame], camera: ImageInput, engine: Engine, outputs: Outputs
    ) -> None:
        def publish(header: Header, image: Image, result: Segmentation) -> None:
            outputs.publish(header, image, result, self._config.node.class_id_format)

        pipeline = Pipeline(engine, camera.decode, publish)
        while (frame := slot.take()) is not None:
            try:
                self._process(frame, pipeline, outputs)
            except ImageError as error:
                self._drop('decode', error)
            except Exception as error:  # noqa: BLE001 - no frame stops the node
                self.get_logger().debug(traceback.format_exc())
                self._drop('error', error)

    def _process(self, frame: Frame, pipeline: Pipeline[Header], outputs: Outputs) -> None:
        done = pipeline.process(frame)
        age_s = self._age_s(done.header.stamp)
        outputs.publish_stage_times(done.header, done.stage_ms, done.result)
        self._accounting.publish()
        self._network_hw = done.result.network_hw
        self._stages.add(done.stage_ms)
        if age_s is not None:
            self._ages.add({'age': age_s})

    def _drop(self, reason: DropReason, error: Exception) -> None:
        text = ' '.join(str(error).split()) or type(error).__name__
        self._out_of_memory = isinstance(error, OutOfMemoryError)
        self._accounting.drop(reason, text)
        line = f'frame dropped ({reason}): {text}'
        if self._out_of_memory:
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
        if self.set_parameters([lower])[0].successful:
            self.get_logger().warning(f'out of memory: resolution.short_side is now {short_side}')

    def _age_s(self, stamp: Time) -> float | None:
        """Return now - stamp; None for a zero stamp, and for one that is ahead of the clock."""
        stamp_ns = to_nanoseconds(stamp)
        age_ns = self.get_clock().now().nanoseconds - stamp_ns
        return age_ns * 1e-9 if stamp_ns and age_ns >= 0 else None

    # Every second

    def _watch(self) -> None:
        if self._input is not None and self._lifecycle == 'active':
            self._input.follow_publishers()
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        name = self.get_fully_qualified_name().lstrip('/')
        hardware_id = str(self._engine.device) if self._engine else ''
        message.status = [status_message(f'{name}: segmentation', hardware_id, self._state())]
        self._diagnostics.publish(message)

    def _state(self) -> NodeState:
        engine, camera = self._engine, self._input
        memory, properties = process_memory(), {'config_hash': self._config.hash}
        if engine is not None:
            memory.update({f'device_memory_{k}': v for k, v in engine.memory().items()})
            properties.update(
                model=engine.model_name,
                weights=str(engine.weights_path),
                weights_sha256=engine.weights_sha256,
                device=str(engine.device),
                precision=engine.precision,
                network_height=str(self._network_hw[0]),
                network_width=str(self._network_hw[1]),
                **engine.execution(),
            )
        if camera is not None:
            properties['topic'] = camera.topic
        return NodeState(
            lifecycle=self._lifecycle,
            counts=self._accounting.counts(),
            messages_lost=camera.messages_lost if camera is not None else 0,
            out_of_memory=self._out_of_memory,
            silence=camera.silence() if camera is not None else '',
            age_s=self._ages.percentiles().get('age'),
            stage_ms=self._stages.percentiles(),
            memory=memory,
            properties=properties,
        )
