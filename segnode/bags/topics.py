# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Topics and types under the names that ROS 2 gives them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from segnode.bags.record import Topic
from segnode.errors import BagError

if TYPE_CHECKING:
    from segnode.bags.bag import Bag

_SHOWN_TOPICS = 8
_SHOWN_LETTERS = 80


def normal_type(name: str) -> str:
    """Return a ROS type with its middle part: ``sensor_msgs/Image`` is ROS 1's way, and older."""
    package, slash, rest = name.partition('/')
    return f'{package}/msg/{rest}' if slash and rest and '/' not in rest else name


def shown(name: str) -> str:
    """Return a name from a bag as it may stand in a line of text: printable and not too long."""
    text = name if name.isprintable() else ascii(name)[1:-1]
    return text if len(text) <= _SHOWN_LETTERS else f'{text[: _SHOWN_LETTERS - 3]}...'


def by_name(topics: Iterable[Topic]) -> dict[str, Topic]:
    """Return topics by name, with their messages added up.

    Where a name has several types, it is the one of images, else the first.
    """
    named: dict[str, Topic] = {}
    for topic in topics:
        known = named.setdefault(topic.name, topic)
        if known is topic:
            continue
        if (known.type_name, known.encoding) == (topic.type_name, topic.encoding):
            added = (
                None
                if known.messages is None or topic.messages is None
                else known.messages + topic.messages
            )
            named[topic.name] = Topic(topic.name, topic.type_name, topic.encoding, added)
        elif topic.is_image and not known.is_image:
            named[topic.name] = topic
    return named


def image_topics(bag: Bag, wanted: Sequence[str] = ()) -> list[Topic]:
    """Return the image topics of a bag, in order of their names.

    Args:
        bag: an open one.
        wanted: names of topics, in the order in which they are returned; empty for all.

    Raises:
        BagError: it has no images, or one that is wanted is not there or holds none.
    """
    found = sorted(filter(lambda topic: topic.is_image, bag.topics.values()), key=_name)
    if not found:
        raise BagError(
            f'{bag.path}: expected images (sensor_msgs/msg/Image or CompressedImage), found '
            f'{_listed(bag.topics.values())}; give another bag'
        )
    for name in wanted:
        topic = bag.topics.get(name)
        if topic is None or not topic.is_image:
            what = f'a topic of {shown(topic.type_name)}' if topic else 'no such topic'
            raise BagError(
                f'{bag.path}: expected images on {shown(name)}, found {what}; '
                f'the bag has images on {_listed(found)}'
            )
    return [bag.topics[name] for name in dict.fromkeys(wanted)] if wanted else found


def _name(topic: Topic) -> str:
    return topic.name


def _listed(topics: Iterable[Topic]) -> str:
    names = [f'{shown(t.name)} ({shown(t.type_name)})' for t in sorted(topics, key=_name)]
    if not names:
        return 'no topics'
    more = len(names) - _SHOWN_TOPICS
    return ', '.join(names[:_SHOWN_TOPICS]) + (f' and {more} more' if more > 0 else '')
