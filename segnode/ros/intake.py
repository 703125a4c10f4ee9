# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What cameras send is taken by a thread of its own, apart from the node's other callbacks.

rclpy's executors gather everything that a node has, some fifty entities with the events of its
publishers, into a new wait set for every message. On a small CPU that takes longer than all that
is done with a frame beside the network, and a newer image meanwhile replaces one in the
middleware's queue, where nobody counts it. Here a wait set holds the cameras' subscriptions alone,
and lasts until one comes or goes.
"""

from __future__ import annotations

import contextlib
import threading
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.exceptions import InvalidHandle
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription

LOG_PERIOD_S = 5.0
PAUSE_S = 0.1
FOREVER_NS = -1


class _Apart(MutuallyExclusiveCallbackGroup):
    """Keeps what is in it from the executor."""

    def can_execute(self, _entity: Any) -> bool:
        return False


class Intake:
    """Subscriptions whose messages and events go to their callbacks in one thread.

    Events as well, since the middleware wakes whoever waits for one with every message, too.
    """

    def __init__(self, node: Node) -> None:
        """Prepare it; its thread begins with the first subscription."""
        self._node = node
        self._group = _Apart()
        self._changing = threading.Lock()
        self._subscriptions: list[Subscription] = []
        self._changed = threading.Event()
        self._closed = False
        self._wake = node.create_guard_condition(lambda: None, callback_group=self._group)
        self._thread: threading.Thread | None = None

    def subscribe(
        self,
        message_type: type[Any],
        topic: str,
        receive: Callable[[Any], None],
        qos: QoSProfile,
        **options: Any,
    ) -> Subscription:
        """Subscribe, and give each message to ``receive``.

        Args:
            message_type: of the topic.
            topic: as ``Node.create_subscription`` takes it.
            receive: called in the intake's thread, which takes nothing else meanwhile.
            qos: of the subscription.
            options: others of ``Node.create_subscription``.
        """
        subscription = self._node.create_subscription(
            message_type, topic, receive, qos, callback_group=self._group, **options
        )
        with self._changing:
            self._subscriptions.append(subscription)
            self._change()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name='intake', daemon=True)
                self._thread.start()
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Remove a subscription; one message of it may still be on its way to its callback."""
        with self._changing:
            self._subscriptions.remove(subscription)
            self._change()
        # Its handle goes with the thread's use of it.
        self._node.destroy_subscription(subscription)

    def broken(self) -> bool:
        """Return whether its thread has ended by itself, which it should not."""
        thread = self._thread
        return thread is not None and not thread.is_alive() and not self._closed

    def close(self, timeout_s: float) -> bool:
        """End the thread, for good; return whether it has ended."""
        with self._changing:
            self._closed = True
            self._change()
        thread = self._thread
        if thread is None:
            return True
        thread.join(timeout_s)
        return not thread.is_alive()

    def _change(self) -> None:
        self._changed.set()
        with contextlib.suppress(InvalidHandle):  # Gone with the node, as all it would wait for.
            self._wake.trigger()

    def _run(self) -> None:
        try:
            while True:
                with self._changing:
                    self._changed.clear()
                    if self._closed:
                        return
                    subscriptions = list(self._subscriptions)
                try:
                    self._take(subscriptions)
                except InvalidHandle:
                    # One was taken away just now: the list changes, or the node is gone.
                    self._changed.wait(PAUSE_S)
        except Exception:
            self._node.get_logger().error(f'the intake has failed:\n{traceback.format_exc()}')
            raise

    def _take(self, subscriptions: list[Subscription]) -> None:
        """Take what comes for these subscriptions, until there are others.

        Raises:
            InvalidHandle: one of them was destroyed meanwhile.
        """
        context = self._node.context.handle
        events = [event for each in subscriptions for event in each.event_handlers]
        with ExitStack() as in_use:
            for handle in (context, self._wake.handle, *(each.handle for each in subscriptions)):
                in_use.enter_context(handle)
            for event in events:
                in_use.enter_context(event)
            count = len(subscriptions)
            ready = rclpy_implementation.WaitSet(count, 1, 0, 0, 0, len(events), context)
            while not self._changed.is_set():
                ready.clear_entities()
                indices = [ready.add_subscription(each.handle) for each in subscriptions]
                ready.add_guard_condition(self._wake.handle)
                for event in events:
                    event.add_to_wait_set(ready)
                ready.wait(FOREVER_NS)
                for index, each in zip(indices, subscriptions, strict=True):
                    if ready.is_ready('subscription', index):
                        self._pass_on(each.topic, partial(_message, each), each.callback)
                for event in events:
                    if event.is_ready(ready):
                        self._pass_on('an event', event.take_data, event.callback)

    def _pass_on(
        self, what: str, take: Callable[[], Any], receive: Callable[[Any], object]
    ) -> None:
        try:
            taken = take()
        except InvalidHandle:
            return  # Its subscription was closed just now.
        except Exception:  # noqa: BLE001 - the others still come
            self._say(f'{what} cannot be taken')
            # It would fail again at once.
            self._changed.wait(PAUSE_S)
            return
        if taken is None:
            return
        try:
            receive(taken)
        except Exception:  # noqa: BLE001 - the others still come
            self._say(f'{what} was taken in vain')

    def _say(self, what: str) -> None:
        self._node.get_logger().error(
            f'{what}:\n{traceback.format_exc()}', throttle_duration_sec=LOG_PERIOD_S
        )


def _message(subscription: Subscription) -> Any:
    """Return what has come, as the subscription wants it; None where nothing has."""
    taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
    return None if taken is None else taken[0]
