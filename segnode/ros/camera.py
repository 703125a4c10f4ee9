# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""One camera of the node: what it takes in, what it gives out, and what became of its frames."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from builtin_interfaces.msg import Time
from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import Header

from segnode.engine import Engine, Segmentation
from segnode.image import Image, Lend
from segnode.live import pipeline
from segnode.live.accounting import FrameAccounting, RollingPercentiles
from segnode.live.grey_values import GreyValues
from segnode.live.pipeline import Answered, Decoded, Frame, StaleFrame
from segnode.ros.camera_info import CameraInfoRelay
from segnode.ros.diagnostics import IDLE_WARNING_S
from segnode.ros.image_input import ImageInput
from segnode.ros.intake import Intake
from segnode.ros.messages import to_nanoseconds
from segnode.ros.outputs import Outputs
from segnode.ros.parameters import CameraConfig, NodeParameters

SAID_AGAIN_S = 60.0
STALE_IN_ROW = 10
# What clocks of two machines differ by where nothing is wrong.
CLOCK_SLACK_S = 0.05
# No frame waits for so long: such a stamp is of a simulation, a bag or a clock that was not set.
OTHER_CLOCK_S = 86_400.0


class Camera:
    """A camera's subscription, publishers and numbers; its numbers live as long as the node.

    Attributes:
        name: in topics and diagnostics.
        accounting: of its frames.
        stages: milliseconds by stage.
        ages: seconds between stamp and publication.
        stale: that its last frames all were too old, empty where they were not.
        clock: how its last stamp and the node's clock disagree, empty where they do not.
        stamps_ahead: frames whose stamp was ahead of the node's clock.
        network_hw: the network's input for its last frame.
        out_of_memory: its last failure was for want of device memory.
        grey: scales its values of 16 bits, and says whether their number of bits is right.
        input: its subscription, None while there is none.
    """

    def __init__(
        self,
        node: LifecycleNode,
        intake: Intake,
        config: CameraConfig,
        settings: NodeParameters,
    ) -> None:
        """Take a camera of the parameters; nothing is offered or subscribed yet."""
        self.name = config.name
        self.accounting = FrameAccounting()
        self.stages = RollingPercentiles()
        self.ages = RollingPercentiles()
        self.stale = ''
        self.clock = ''
        self.stamps_ahead = 0
        self.network_hw = (0, 0)
        self.out_of_memory = False
        self.grey = GreyValues(lambda: settings.node.mono16_bits)
        self.input: ImageInput | None = None
        self._messages_lost = 0
        self._stale_in_row = 0
        self._silence = ''
        self._silence_said_s = -math.inf
        self._grey_said_s = -math.inf
        self._node = node
        self._intake = intake
        self._config = config
        self._settings = settings
        self._info: CameraInfoRelay | None = None
        self._outputs: Outputs | None = None

    def offer(self, engine: Engine) -> None:
        """Offer the topics of its results."""
        self._outputs = Outputs(
            self._node,
            self._config.prefix,
            engine.class_names,
            raw_masks=engine.gives_raw_masks,
        )
        self._outputs.publish_label_info(engine.settings.score_threshold)

    def withdraw(self) -> None:
        """Take its topics back."""
        outputs, self._outputs = self._outputs, None
        if outputs is not None:
            outputs.close()

    def publish_label_info(self, score_threshold: float) -> None:
        """Publish the class map with another threshold."""
        outputs = self._outputs
        if outputs is not None:
            outputs.publish_label_info(score_threshold)

    def subscribe(self, receive: Callable[[bytes], None], lend: Lend | None = None) -> None:
        """Subscribe to its images; their bytes go to ``receive``.

        ``lend`` is the engine's, where it has one: images are decoded into what it lends.
        """
        own = self._settings.node
        camera = ImageInput(
            self._node,
            self._intake,
            self._config.topic,
            own.image_transport,
            own.image_qos,
            receive,
            self.grey,
            lend,
        )
        info = CameraInfoRelay(
            self._node, self._intake, camera.base_topic, f'{self._config.prefix}camera_info'
        )
        self.accounting.restart_idle()
        # First, so that what fails half way is closed again.
        self.input, self._info = camera, info
        camera.open()
        info.follow()

    def unsubscribe(self) -> None:
        """Take no more images; the one that is being worked on may still be published."""
        if self.input is not None:
            self.input.close()

    def leave(self) -> None:
        """Forget the subscription, once nothing of it is being worked on."""
        # The end of the process may come while a transition does the same.
        source, self.input = self.input, None
        if source is not None:
            self._messages_lost += source.messages_lost or 0
        info, self._info = self._info, None
        if info is not None:
            info.close()

    def follow_publishers(self) -> None:
        """Adapt to who publishes its topics; called now and then."""
        # The end of the process may take them away meanwhile.
        source, info = self.input, self._info
        if source is not None:
            source.follow_publishers()
        if info is not None:
            info.follow()

    def say_silence(self) -> None:
        """Log why no image comes: when it begins or has another reason, and now and then."""
        idle_s = self.accounting.counts().idle_s
        source = self.input
        silence = '' if source is None or idle_s < IDLE_WARNING_S else source.silence()
        now_s = time.monotonic()
        if silence and (silence != self._silence or now_s > self._silence_said_s + SAID_AGAIN_S):
            self._node.get_logger().warning(f'no image for {idle_s:.0f} s: {silence}')
            self._silence_said_s = now_s
        self._silence = silence

    def say_grey(self) -> None:
        """Log now and then that its 16-bit values do not have the bits that they are said to."""
        remark, now_s = self.grey.remark(), time.monotonic()
        if remark and now_s > self._grey_said_s + SAID_AGAIN_S:
            self._node.get_logger().warning(f'{self.name}: {remark}')
            self._grey_said_s = now_s

    def decode(self, frame: Frame) -> Decoded[Header]:
        """Make a frame ready for the engine.

        Raises:
            ImageError: it cannot be decoded.
            StaleFrame: it is too old to be worth the device's time.
        """
        source = self.input
        assert source is not None
        return pipeline.decode(frame, source.decode, self._admit)

    def wants_raw_masks(self) -> bool:
        """Return whether somebody subscribes to the network's own masks."""
        outputs = self._outputs
        return outputs is not None and outputs.wants_raw_masks()

    def deliver(self, answered: Answered[Header]) -> float:
        """Publish an answer and count its frame.

        Returns:
            The age at publication in seconds: since the stamp, or since the image came where the
            stamp does not tell.
        """
        outputs = self._outputs
        assert outputs is not None
        stage_ms = pipeline.deliver(answered, self._publish)
        age_s = self._age_s(answered.header.stamp)
        outputs.publish_stage_times(answered.header, stage_ms, answered.result)
        self.accounting.publish()
        self._stale_in_row, self.stale = 0, ''
        self.network_hw = answered.result.network_hw
        self.stages.add(stage_ms)
        if age_s is None:
            return time.monotonic() - answered.received_s
        self.ages.add({'age': age_s})
        return age_s

    @property
    def messages_lost(self) -> int | None:
        """Losses that the middleware reported, None where it cannot."""
        source = self.input
        if source is None:
            return self._messages_lost
        lost = source.messages_lost
        return None if lost is None else self._messages_lost + lost

    def properties(self) -> dict[str, str]:
        """Return for the diagnostics what it is connected to."""
        found = {'stamps_ahead': str(self.stamps_ahead)}
        source, info = self.input, self._info
        if source is not None:
            found['topic'] = source.topic
        if info is not None:
            found['camera_info'] = info.state()
        return found

    def _publish(self, header: Header, image: Image, result: Segmentation) -> None:
        assert self._outputs is not None
        self._outputs.publish(header, image, result, self._settings.node.class_id_format)
        if self._info is not None:
            self._info.publish(header)

    def _admit(self, header: Header) -> None:
        self._compare_clocks(header.stamp)
        self.check_age(header)

    def check_age(self, header: Header) -> None:
        """Refuse a frame that is older than ``schedule.max_age_ms``, if it has a stamp.

        Raises:
            StaleFrame: it is.
        """
        limit_ms = self._settings.node.schedule.max_age_ms
        late_ms = self._late_s(header.stamp) * 1e3
        if limit_ms and to_nanoseconds(header.stamp) and late_ms > limit_ms:
            self._stale_in_row += 1
            if self._stale_in_row >= STALE_IN_ROW:
                self.stale = (
                    f'the last {self._stale_in_row} frames were older than schedule.max_age_ms '
                    f'({limit_ms:g} ms), the last one by {late_ms - limit_ms:.0f} ms'
                )
            raise StaleFrame(f'{late_ms:.0f} ms old')

    def _compare_clocks(self, stamp: Time) -> None:
        """Note where the stamps are of another clock; ages mean nothing then."""
        late_s, clock = self._late_s(stamp), ''
        if not to_nanoseconds(stamp):
            clock = 'the images have no stamp, so their age is not known'
        elif late_s < -CLOCK_SLACK_S:
            self.stamps_ahead += 1
            clock = f"stamps are {-late_s:.1f} s ahead of the node's clock: {self._clock_remedy()}"
        elif late_s > OTHER_CLOCK_S:
            days = late_s / 86_400
            clock = f"stamps are {days:.0f} days behind the node's clock: {self._clock_remedy()}"
        self.clock = clock
        if clock:
            self.ages = RollingPercentiles()

    def _clock_remedy(self) -> str:
        if self._node.get_parameter('use_sim_time').value:
            return 'is /clock published, and of the same run?'
        return 'set use_sim_time for simulated or replayed images, else synchronise the clocks'

    def _age_s(self, stamp: Time) -> float | None:
        """Return now - stamp; None without a stamp, and for one of another clock."""
        age_s = self._late_s(stamp)
        return age_s if to_nanoseconds(stamp) and 0 <= age_s <= OTHER_CLOCK_S else None

    def _late_s(self, stamp: Time) -> float:
        """Return now - stamp in seconds, whatever it is."""
        return (self._node.get_clock().now().nanoseconds - to_nanoseconds(stamp)) * 1e-9
