# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What the topics of a run's output bag are called: as the node would call them."""

from __future__ import annotations

from collections.abc import Sequence

from segnode.live.camera_names import names_of_topics

NODE = '/segnode'


def prefixes(topics: Sequence[str]) -> dict[str, str]:
    """Return under which name the node would publish the answers of each image topic."""
    if len(topics) == 1:
        return {topics[0]: NODE}
    return {
        topic: f'{NODE}/{name}'
        for topic, name in zip(topics, names_of_topics(topics), strict=True)
    }


def overlay_topic(prefix: str) -> str:
    """Return where the drawn pictures of a camera are."""
    return f'{prefix}/overlay/compressed'
