# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The kinds of faults, what has to come of each, and random changes of parameters."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

STAMPS = ('zero', 'repeated', 'back', 'ahead')
"""What the cameras can stamp a frame with, other than now."""

DROPPED = 'dropped as decode, never answered'
ANSWERED = 'answered, with its stamp, frame id and size'

FAULTS = {
    'wrong_step': DROPPED,
    'short_data': DROPPED,
    'absurd_size': DROPPED,
    'zero_size': DROPPED,
    'unknown_encoding': DROPPED,
    'depth_image': DROPPED,
    'broken_message': DROPPED,
    'garbage_file': DROPPED,
    'truncated_jpeg': DROPPED,
    'truncated_png': DROPPED,
    'png_bomb': DROPPED,
    'jpeg_bomb': DROPPED,
    'over_long_data': ANSWERED,
    'row_padding': ANSWERED,
    'size_change': ANSWERED,
    'tiny_image': ANSWERED,
    'encoding_change': ANSWERED,
    'stamp_zero': ANSWERED,
    'stamp_repeated': ANSWERED,
    'stamp_back': ANSWERED,
    'stamp_ahead': ANSWERED,
    'burst': 'every frame is counted; the newest wins',
    'subscriber_stopped': 'the other subscriber gets every answer',
    'subscriber_killed': 'the other subscriber gets every answer',
    'camera_killed': 'the other cameras go on; it comes back',
    'parameter_valid': 'taken, and read back so',
    'parameter_invalid': 'refused with the reason, the old value stays',
    'parameter_read_only': 'refused with the reason, the old value stays',
    'parameters_half_wrong': 'refused with the reason, none of them changes',
    'transition_not_valid': 'refused, the state stays',
    'deactivate_activate': 'goes on when it is active again',
    'cleanup_configure': 'goes on with the model loaded anew',
    'weights_removed': 'goes on; configuring fails until they are back',
    'node_interrupted': 'exit code 0 in time, no traceback',
    'node_terminated': 'exit code 0 in time, no traceback',
    'node_killed': 'starts again, all cameras go on',
}
"""Every kind, with what has to come of it."""

TRANSITIONS = {
    'configure': 1,
    'cleanup': 2,
    'activate': 3,
    'deactivate': 4,
}
"""Ids of lifecycle_msgs/Transition by label."""

Change = tuple[str, Any]


def valid_change(rng: random.Random, short_side: int) -> Change:
    """Return a parameter that may change while the node runs, and a value that it may have.

    Args:
        rng: draws.
        short_side: of the network's input as it was set up: never more, so that memory does not
            tell of a larger network.
    """
    drawn: list[Change] = [
        ('filter.score_threshold', round(rng.uniform(0.05, 0.9), 3)),
        ('filter.nms_threshold', round(rng.uniform(0.3, 0.7), 3)),
        ('filter.max_instances', rng.choice([1, 5, 50])),
        ('filter.min_mask_area', rng.choice([0, 50, 400])),
        ('filter.max_mask_area', rng.choice([0, 20_000])),
        ('mask_threshold', round(rng.uniform(0.3, 0.7), 3)),
        ('proposals', rng.choice([50, 200, 500])),
        ('class_id_format', rng.choice(['name', 'index'])),
        ('schedule.max_rate_hz', rng.choice([0.0, 30.0])),
        ('resolution.short_side', max(64, int(short_side * rng.choice([0.5, 0.75, 1.0])))),
    ]
    return rng.choice(drawn)


def invalid_change(rng: random.Random) -> Change:
    """Return a change that has to be refused for its value, type or name."""
    drawn: list[Change] = [
        ('filter.score_threshold', 1.5),
        ('filter.score_threshold', -0.5),
        ('filter.score_threshold', float('nan')),
        ('filter.score_threshold', 'high'),
        ('filter.nms_threshold', float('inf')),
        ('filter.max_instances', 2**40),
        ('filter.min_mask_area', -1),
        ('filter.classes', ['no such class']),
        ('filter.classes', [1, 2]),
        ('mask_threshold', 0.0),
        ('proposals', 1.5),
        ('resolution.short_side', -480),
        ('class_id_format', 'uuid'),
        ('schedule.max_rate_hz', -1.0),
        ('filter.min_mask_area', None),
        ('filter.scorethreshold', 0.5),
    ]
    return rng.choice(drawn)


def read_only_change(rng: random.Random, cameras: Sequence[str]) -> Change:
    """Return a change that needs a restart."""
    drawn: list[Change] = [
        ('model', 'another'),
        ('device', 'cuda:7'),
        ('image_transport', 'compressed'),
        ('image_topics', [*cameras, 'one_more']),
        ('autostart', False),
    ]
    return rng.choice(drawn)
