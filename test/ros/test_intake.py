# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The thread that takes what cameras send: all of it, apart from the executor, to its end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')

import rclpy
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.context import Context
from rclpy.duration import Duration
from rclpy.exceptions import InvalidHandle
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.waitable import NumberOfEntities, Waitable
from ros_harness import DOMAIN_ID, TIMEOUT_S, Peer, wait_until
from std_msgs.msg import Header

from segnode.ros.intake import Intake

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

pytestmark = [pytest.mark.ros, pytest.mark.smoke]

MESSAGES = 200
QOS = QoSProfile(depth=MESSAGES)


class _Rounds(Waitable):  # type: ignore[type-arg] - generic from Kilted on
    """Counts how often an executor gathers what it waits for; never ready itself."""

    def __init__(self) -> None:
        super().__init__(ReentrantCallbackGroup())
        self.count = 0

    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...

    def add_to_wait_set(self, _wait_set: Any) -> None:
        self.count += 1

    def get_num_entities(self) -> NumberOfEntities:
        return NumberOfEntities()

    def is_ready(self, _wait_set: Any) -> bool:
        return False


@pytest.fixture(scope='module')
def peer() -> Iterator[Peer]:
    with Peer('intake_peer') as peer:
        yield peer


@pytest.fixture
def node() -> Iterator[Node]:
    """A node whose executor spins in a thread."""
    context = Context()
    rclpy.init(context=context, domain_id=DOMAIN_ID)
    node = rclpy.create_node('intake', context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    spinning = threading.Thread(target=executor.spin)
    spinning.start()
    yield node
    executor.shutdown()
    spinning.join(TIMEOUT_S)
    context.try_shutdown()


@pytest.fixture
def intake(node: Node) -> Iterator[Intake]:
    intake = Intake(node)
    yield intake
    assert intake.close(TIMEOUT_S)


def publish(peer: Peer, topic: str, texts: list[str]) -> None:
    publisher = peer.node.create_publisher(Header, topic, QOS)
    wait_until(lambda: publisher.get_subscription_count() > 0, 'subscription')
    for text in texts:
        publisher.publish(Header(frame_id=text))
    assert publisher.wait_for_all_acked(Duration(seconds=TIMEOUT_S))
    peer.node.destroy_publisher(publisher)


def test_all_messages_come_in_order_and_the_executor_sleeps(
    node: Node, intake: Intake, peer: Peer
) -> None:
    taken: list[str] = []
    threads = set()

    def take(message: Header) -> None:
        taken.append(message.frame_id)
        threads.add(threading.current_thread().name)

    # With an event, as images have: whoever waits for it is woken by every message.
    events = SubscriptionEventCallbacks(message_lost=lambda _: None)
    intake.subscribe(Header, '/intake/all', take, QOS, event_callbacks=events)
    rounds = _Rounds()
    node.add_waitable(rounds)
    wait_until(lambda: rounds.count > 0, 'executor')
    before, texts = rounds.count, [str(number) for number in range(MESSAGES)]
    publish(peer, '/intake/all', texts)
    wait_until(lambda: len(taken) == MESSAGES, 'messages')
    assert taken == texts
    assert threads == {'intake'}
    assert rounds.count - before < MESSAGES / 10


@pytest.mark.parametrize('what', ['add_to_wait_set', 'take_data'])
def test_an_event_may_be_destroyed_at_any_moment(
    node: Node, intake: Intake, peer: Peer, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """As another thread does between two lines of the intake's."""
    said: list[str] = []
    monkeypatch.setattr(intake, '_say', said.append)
    failed = threading.Event()
    events = SubscriptionEventCallbacks(incompatible_qos=lambda _: None)
    subscription = intake.subscribe(
        Header, '/intake/destroyed', lambda _: None, QOS, event_callbacks=events
    )
    (event, *_) = subscription.event_handlers

    def fail(*_: object) -> None:
        failed.set()
        raise InvalidHandle('of a test')

    monkeypatch.setattr(event, what, fail)
    offered = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    publisher = peer.node.create_publisher(Header, '/intake/destroyed', offered)
    wait_until(failed.is_set, 'the moment')
    peer.node.destroy_publisher(publisher)
    intake.unsubscribe(subscription)
    taken: list[str] = []
    intake.subscribe(Header, '/intake/goes_on', lambda m: taken.append(m.frame_id), QOS)
    publish(peer, '/intake/goes_on', ['still'])
    wait_until(lambda: taken == ['still'], 'message')
    assert not intake.broken()
    assert not said


def test_a_callback_may_subscribe_anew(node: Node, intake: Intake, peer: Peer) -> None:
    """As an image's event does where the publisher's reliability has changed."""
    taken: list[str] = []

    def take(message: Header) -> None:
        nonlocal subscription
        taken.append(message.frame_id)
        intake.unsubscribe(subscription)
        subscription = intake.subscribe(Header, '/intake/anew', take, QOS)

    subscription = intake.subscribe(Header, '/intake/anew', take, QOS)
    seen: set[tuple[int, ...]] = set()

    def is_new() -> bool:
        """Whether it has subscribed anew and is known to have."""
        infos = peer.node.get_subscriptions_info_by_topic('/intake/anew')
        found = {tuple(info.endpoint_gid) for info in infos}
        if len(found) != 1 or found <= seen:
            return False
        seen.update(found)
        return True

    for text in ('first', 'second', 'third'):
        wait_until(is_new, 'a new subscription')
        publish(peer, '/intake/anew', [text])
        wait_until(lambda text=text: taken[-1:] == [text], 'message')


def test_what_a_callback_raises_costs_its_message_alone(
    node: Node, intake: Intake, peer: Peer
) -> None:
    taken: list[str] = []

    def take(message: Header) -> None:
        if message.frame_id == '1':
            raise ValueError('of a test')
        taken.append(message.frame_id)

    intake.subscribe(Header, '/intake/raising', take, QOS)
    publish(peer, '/intake/raising', ['0', '1', '2'])
    wait_until(lambda: len(taken) == 2, 'the others')
    assert taken == ['0', '2']
    assert not intake.broken()


def test_subscriptions_come_and_go_while_messages_flow(
    node: Node, intake: Intake, peer: Peer
) -> None:
    steady: list[str] = []
    intake.subscribe(Header, '/intake/flow', lambda m: steady.append(m.frame_id), QOS)
    texts = [str(number) for number in range(MESSAGES)]
    sender = threading.Thread(target=publish, args=(peer, '/intake/flow', texts))
    sender.start()
    for _ in range(20):
        other = intake.subscribe(Header, '/intake/flow', lambda _: None, QOS)
        intake.unsubscribe(other)
    sender.join(TIMEOUT_S)
    wait_until(lambda: len(steady) == MESSAGES, 'messages')
    assert steady == texts


def test_nothing_comes_after_its_end(node: Node, peer: Peer) -> None:
    intake, taken = Intake(node), []
    one = intake.subscribe(Header, '/intake/end', lambda m: taken.append(m.frame_id), QOS)
    publish(peer, '/intake/end', ['before'])
    wait_until(lambda: taken == ['before'], 'message')
    assert intake.close(TIMEOUT_S)
    assert not intake.broken()
    publish(peer, '/intake/end', ['after'])
    assert taken == ['before']
    intake.unsubscribe(one)
    infos = peer.node.get_subscriptions_info_by_topic
    wait_until(lambda: not infos('/intake/end'), 'end of the subscription')
    # Without any subscription there is no thread to end.
    assert Intake(node).close(0.0)


def test_events_of_its_subscriptions_are_told(node: Node, intake: Intake, peer: Peer) -> None:
    told: list[tuple[int, str]] = []
    offered = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    publisher = peer.node.create_publisher(Header, '/intake/events', offered)

    def tell(event: Any) -> None:
        told.append((event.total_count, threading.current_thread().name))

    intake.subscribe(
        Header,
        '/intake/events',
        lambda _: None,
        QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE),
        event_callbacks=SubscriptionEventCallbacks(incompatible_qos=tell),
    )
    wait_until(lambda: told == [(1, 'intake')], 'event')
    peer.node.destroy_publisher(publisher)


def test_a_thread_that_ends_by_itself_is_told(
    node: Node, intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_subscriptions: object) -> None:
        raise RuntimeError('of a test')

    monkeypatch.setattr(threading, 'excepthook', lambda _: None)
    assert not intake.broken()
    monkeypatch.setattr(intake, '_take', fail)
    intake.subscribe(Header, '/intake/broken', lambda _: None, QOS)
    wait_until(intake.broken, 'end of the thread')
