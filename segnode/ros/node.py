# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The lifecycle node: the newest frame of each camera goes through one engine and out again."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.lifecycle import LifecycleNode, LifecycleNodeMixin, State, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter

from segnode.config import Config
from segnode.engine import Engine
from segnode.engine.device import gpu_uuid
from segnode.errors import ConfigError, SegnodeError, first_line
from segnode.hardware.monitor import HardwareMonitor
from segnode.heap import give_back
from segnode.ros.camera import SAID_AGAIN_S, Camera
from segnode.ros.diagnostics import NodeState, process_memory, status_message
from segnode.ros.intake import Intake
from segnode.ros.parameters import NodeParameters, ParameterSetService
from segnode.ros.worker import Worker

WARM_UP_HW = (480, 640)
CLOSE_POLL_S = 0.1
# The middleware takes a node that was killed for alive for some 20 s.
NAMESAKE_S = 30.0
# Below it a network input shows next to nothing.
SMALLEST_SHORT_SIDE = 96


def _load(
    loaded: Future[Engine],
    config: Config,
    report: Callable[[str], None],
    warn: Callable[[str], None],
) -> None:
    """Load the model and warm it up; what is raised is raised where it is waited for."""
    try:
        engine = Engine(config, report=report, warn=warn)
        report(f'warming up on {engine.device}')
        engine.warm_up(WARM_UP_HW)
        loaded.set_result(engine)
    except BaseException as error:  # noqa: BLE001 - not swallowed
        loaded.set_exception(error)
        # An exception holds the frames that it passed, and so what was loaded half way.
        del loaded


class _Progress:
    """Logs what is being done, and keeps the last line for the diagnostics."""

    def __init__(self, log: RcutilsLogger) -> None:
        self._log = log
        self.line = ''

    def __call__(self, line: str) -> None:
        self.line = line
        self._log.info(line)


class SegmentationNode(LifecycleNode):
    """Image topics in; masks, detections and timings out.

    Callbacks run one at a time, but for transitions: an executor of three threads lets the node
    answer while one lasts. What cameras send is taken by a thread of its own, which never touches
    an image: it leaves the bytes to the worker.

    Args:
        fail: called when the node cannot start by itself.

    Attributes:
        fault: why the last transition failed, None where it did not.

    Raises:
        ConfigError: a parameter's initial value does not fit.
    """

    def __init__(self, fail: Callable[[], None]) -> None:
        # As LifecycleNode's own, which takes no group: with one for transitions, and questions
        # about them, an executor of several threads answers while one lasts. All else is served
        # one after the other.
        transitions = ReentrantCallbackGroup()
        Node.__init__(self, 'segnode', start_parameter_services=False)
        LifecycleNodeMixin.__init__(self, callback_group=transitions)
        self._fail = fail
        self.fault: Exception | None = None
        self._engine: Engine | None = None
        self._worker: Worker | None = None
        self._closed = False
        self._progress = _Progress(self.get_logger())
        self._lifecycle = 'unconfigured'
        self._intake = Intake(self)
        self._cameras: list[Camera] = []
        self._config = NodeParameters(self, self._apply)
        self._parameter_service = ParameterSetService(self)
        self._cameras = [
            Camera(self, self._intake, camera, self._config) for camera in self._config.cameras
        ]
        self._hardware = HardwareMonitor()
        self._alone_s = time.monotonic()
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        # A steady clock: simulated time may stand still or jump back.
        self.create_timer(1.0, self._watch, clock=Clock(clock_type=ClockType.STEADY_TIME))
        if self._config.node.autostart:
            self._start_timer = self.create_timer(
                0.0,
                self._start,
                callback_group=MutuallyExclusiveCallbackGroup(),
                clock=Clock(clock_type=ClockType.STEADY_TIME),
            )

    @property
    def cameras(self) -> Sequence[Camera]:
        """Its cameras."""
        return self._cameras

    # Lifecycle

    def on_configure(self, state: State) -> TransitionCallbackReturn:
        """Load the model, warm it up, offer the topics."""
        return self._transition('configuring', 'inactive', self._configure)

    def on_activate(self, state: State) -> TransitionCallbackReturn:
        """Subscribe and work."""
        return self._transition('activating', 'active', self._activate)

    def on_deactivate(self, state: State) -> TransitionCallbackReturn:
        """Unsubscribe and finish the frames that are being worked on."""
        return self._transition('deactivating', 'inactive', self._stop)

    def on_cleanup(self, state: State) -> TransitionCallbackReturn:
        """Free the model and its device."""
        return self._transition('cleaningup', 'unconfigured', self._free)

    def on_shutdown(self, state: State) -> TransitionCallbackReturn:
        """Stop and free everything."""
        return self._transition(
            'shuttingdown', 'finalized', self._stop, self._free, failed='finalized'
        )

    def on_error(self, state: State) -> TransitionCallbackReturn:
        """Go back to unconfigured, so that the node can be configured again."""
        return self._transition(
            'errorprocessing', 'unconfigured', self._stop, self._free, failed='finalized'
        )

    def _transition(
        self, doing: str, reached: str, *steps: Callable[[], object], failed: str = ''
    ) -> TransitionCallbackReturn:
        """Take the steps of a transition; rclpy would pass over what they raise in silence.

        Args:
            doing: rcl's name of the state that lasts as long.
            reached: state if all goes well.
            steps: what to do; each is done, also where one before it failed.
            failed: state where one of them fails; the one before where it is empty.
        """
        log, left = self.get_logger(), self._lifecycle
        self.fault, self._lifecycle = None, doing
        say = log.info if self._closed else log.error
        for step in steps:
            try:
                step()
            except SegnodeError as error:
                self.fault = self.fault or error
                say(str(error))
            except Exception as error:  # noqa: BLE001 - see above
                self.fault = self.fault or error
                say(f'failed while {doing}:\n{traceback.format_exc()}')
        self._lifecycle = (failed or left) if self.fault else reached
        success = TransitionCallbackReturn.SUCCESS
        return TransitionCallbackReturn.FAILURE if self.fault else success

    def _configure(self) -> None:
        start_s = time.monotonic()
        try:
            self._engine = engine = self._load()
            for camera in self._cameras:
                camera.offer(engine)
        except BaseException:
            self._free()
            raise
        self.get_logger().info(f'configured in {time.monotonic() - start_s:.1f} s')

    def _activate(self) -> None:
        engine = self._engine
        if engine is None:
            raise SegnodeError('expected a configured node, found one without a model')
        if self._closed:
            raise SegnodeError('closed before it was active')
        self._worker = Worker(
            self._cameras, engine, self._config, self.get_logger(), self._step_down
        )
        try:
            self._worker.start()
        except BaseException:
            self._stop()
            raise
        topics = ', '.join(camera.input.topic for camera in self._cameras if camera.input)
        self.get_logger().info(f'active, subscribed to {topics}')

    def close(self, timeout_s: float) -> bool:
        """Stop for the end of the process, in any state; return whether its threads have ended."""
        end_s = time.monotonic() + timeout_s
        self._closed = True
        self._hardware.close()
        stopped = self._stop(timeout_s)
        return self._intake.close(max(0.0, end_s - time.monotonic())) and stopped

    def _LifecycleNodeMixin__change_state(  # noqa: N802 - rclpy's name for what its service calls
        self, transition_id: int
    ) -> TransitionCallbackReturn:
        # Up to Jazzy's, rclpy lets a transition that the state does not have end the node, and
        # its caller go without an answer.
        try:
            return super()._LifecycleNodeMixin__change_state(transition_id)
        except rclpy_implementation.RCLError:
            state = self._state_machine.current_state[1]
            self.get_logger().error(f'there is no transition {transition_id} from {state}')
            return TransitionCallbackReturn.ERROR

    def _start(self) -> None:
        if self._start_timer.is_canceled():
            return
        self._start_timer.cancel()
        for transition in (self.trigger_configure, self.trigger_activate):
            if transition() != TransitionCallbackReturn.SUCCESS:
                # Without a fault somebody else has asked for a transition in between.
                if self.fault is not None and not self._closed:
                    self._fail()
                return

    def _load(self) -> Engine:
        """Load in a thread that is left behind when the node is closed.

        Loading cannot be interrupted, and may take minutes, in which the node answers. The thread
        has no reference to the node, so that the middleware can let go of it meanwhile.

        Raises:
            SegnodeError: the node was closed before the end.
            Exception: whatever loading raises.
        """
        loaded: Future[Engine] = Future()
        arguments = (loaded, self._config.engine, self._progress, self.get_logger().warning)
        threading.Thread(target=_load, args=arguments, name='load', daemon=True).start()
        del arguments
        while not loaded.done():
            if self._closed:
                raise SegnodeError('closed before the model was loaded')
            wait([loaded], CLOSE_POLL_S)
        try:
            return loaded.result()
        finally:
            del loaded  # Held by an exception's frames, as in the thread.

    def _stop(self, timeout_s: float | None = None) -> bool:
        # The end of the process may come while a transition stops it as well.
        worker = self._worker
        if worker is not None:
            if not worker.stop(timeout_s):
                return False
            self._worker = None
            give_back()
        return True

    def _free(self) -> None:
        for camera in self._cameras:
            camera.withdraw()
        self._engine = None
        give_back()

    def _apply(self, config: Config) -> None:
        engine = self._engine
        if self._lifecycle == 'configuring':
            # It could not be told yet whether they fit the model.
            raise ConfigError('the model is being loaded; set it again when the node is inactive')
        if engine is None:
            return
        before = engine.settings.score_threshold
        engine.configure(config)
        after = engine.settings.score_threshold
        if before != after:
            for camera in self._cameras:
                camera.publish_label_info(after)

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
            broken = self._intake.broken() or (worker is not None and worker.broken())
            if broken and not self._closed:
                self.get_logger().fatal('a thread of the node has ended; see the log above')
                self._fail()
            for camera in self._cameras:
                camera.follow_publishers()
                camera.say_silence()
                camera.say_grey()
        # A transition in another thread may take it away.
        engine = self._engine
        self._hardware.gpu_uuid = '' if engine is None else gpu_uuid(engine.device)
        hardware = self._hardware.latest()
        remarks = [remark for remark in (self._namesake(), hardware.warning()) if remark]
        for remark in remarks:
            self.get_logger().warning(remark, throttle_duration_sec=SAID_AGAIN_S)
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        name = self.get_fully_qualified_name().lstrip('/')
        hardware_id = '' if engine is None else str(engine.device)
        shared = self._properties() | hardware.texts()
        memory = process_memory()
        if engine is not None:
            memory |= {f'device_memory_{k}': v for k, v in engine.memory().items()}
        for camera in self._cameras:
            task = camera.name if len(self._cameras) > 1 else 'segmentation'
            state = self._state(camera, memory, shared, remarks)
            message.status.append(status_message(f'{name}: {task}', hardware_id, state))
        self._diagnostics.publish(message)

    def _namesake(self) -> str:
        """Return that another node has this one's name, unless it may be a dead one's."""
        own = self.get_name(), self.get_namespace()
        if self.get_node_names_and_namespaces().count(own) < 2:
            self._alone_s = time.monotonic()
        if time.monotonic() - self._alone_s < NAMESAKE_S:
            return ''
        return (
            f'another node is called {self.get_fully_qualified_name()}, too: parameters and '
            'transitions reach one of them, and both publish the same topics; give one of them '
            'another name (-r __node:=NAME) or namespace'
        )

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

    def _state(
        self, camera: Camera, memory: dict[str, int], shared: dict[str, str], remarks: list[str]
    ) -> NodeState:
        sizes = {}
        if self._engine is not None:
            height, width = camera.network_hw
            sizes = {'network_height': str(height), 'network_width': str(width)}
        source, worker = camera.input, self._worker
        if worker is not None:
            sizes['resolution_scale'] = f'{worker.scale:g}'
        return NodeState(
            lifecycle=self._lifecycle,
            counts=camera.accounting.counts(),
            messages_lost=camera.messages_lost,
            out_of_memory=camera.out_of_memory,
            fault='' if self.fault is None else first_line(self.fault),
            progress=self._progress.line,
            silence=source.silence() if source is not None else '',
            remarks=[
                remark
                for remark in (
                    *(camera.clock, camera.stale),
                    '' if worker is None else worker.budget_missed,
                    *(camera.grey.remark(), *remarks),
                )
                if remark
            ],
            age_s=camera.ages.percentiles().get('age'),
            stage_ms=camera.stages.percentiles(),
            memory=memory,
            properties=shared | sizes | camera.properties(),
        )
