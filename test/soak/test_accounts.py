# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The soak's accounts: stretches that are settled or cut, by hand, right and wrong."""

from __future__ import annotations

from typing import Any

import pytest

from segnode.soak.accounts import Account
from segnode.soak.checks import Sent

HW = (4, 6)


def status(**changed: int) -> dict[str, int]:
    """Return numbers for which the identity holds."""
    found = {
        'published': 0,
        'in_flight': 0,
        'message_lost': 0,
        **{f'dropped_{r}': 0 for r in ('superseded', 'stale', 'decode', 'inactive', 'error')},
        **changed,
    }
    taken = sum(count for key, count in found.items() if key != 'message_lost')
    return {'received': taken, **found}


class Peer:
    """An account with a camera and a node played by hand."""

    def __init__(self) -> None:
        self.account = Account('front_left')
        self.account.status(status(published=2))
        self.account.open()

    def send(self, *kinds: str, at_s: float = 100.0) -> None:
        for kind in kinds or ('frame',):
            number = self.account.next_number
            answer_hw = None if kind in ('wrong_step', 'png_bomb') else HW
            self.account.send(number, Sent(kind, answer_hw, 1000 + number, at_s))

    def answer(self, number: int, *parts: str, **changed: Any) -> None:
        values: dict[str, dict[str, Any]] = {
            'detections': {'count': 1, 'ids_right': True},
            'mask': {'size_hw': list(HW), 'labels': [0, 1]},
            'times': {'network_hw': [48, 64], 'total_ms': 20.0},
        }
        for part in parts or values:
            event = {'frame_id': f'front_left_{number}', 'stamp_ns': 1000 + number}
            self.account.answer(part, {**event, **values[part], **changed})


def test_everything_is_accounted_for() -> None:
    peer = Peer()
    account = peer.account
    peer.send('frame', 'wrong_step', 'frame', 'size_change')
    account.status(status(published=2, in_flight=1))
    assert not account.is_settled(replaces=False)
    peer.answer(0)
    peer.answer(3)
    account.status(status(published=4, dropped_decode=1, dropped_superseded=1))
    assert account.is_settled(replaces=False)
    account.settle(replaces=False)
    assert account.findings == []
    totals = account.totals
    assert (totals.sent, totals.received, totals.published, totals.answers) == (4, 4, 2, 2)
    assert (totals.lost, totals.detections) == (0, 2)
    assert totals.dropped['decode'] == totals.dropped['superseded'] == 1
    assert account.injected == account.confirmed == {'wrong_step': 1, 'size_change': 1}
    assert (account.network_hw, account.frame_s) == ((48, 64), 0.02)


def test_what_the_middleware_reports_is_not_lost() -> None:
    peer = Peer()
    peer.send('frame', 'frame')
    peer.answer(0)
    peer.account.status(status(published=3, message_lost=1))
    assert peer.account.is_settled(replaces=False)
    peer.account.settle(replaces=False)
    assert (peer.account.totals.lost, peer.account.totals.reported) == (0, 1)
    assert peer.account.findings == []


@pytest.mark.parametrize('replaces', [False, True])
def test_a_frame_that_never_came_is_lost_or_replaced(replaces: bool) -> None:
    peer = Peer()
    peer.send('frame', 'frame', 'wrong_step')
    peer.answer(0)
    peer.account.status(status(published=3))
    assert peer.account.is_settled(replaces) == replaces
    peer.account.settle(replaces)
    totals = peer.account.totals
    assert (totals.lost, totals.replaced) == ((0, 2) if replaces else (2, 0))
    assert peer.account.findings == ([] if replaces else ['2 of 3 frames are lost'])
    assert peer.account.confirmed == {}


@pytest.mark.parametrize('replaces', [False, True])
def test_more_frames_than_were_sent_are_told(replaces: bool) -> None:
    peer = Peer()
    peer.account.status(status(published=2, dropped_superseded=1))
    assert not peer.account.is_settled(replaces)
    peer.account.settle(replaces)
    assert peer.account.findings == ['the node received 1 frames more than were sent']


def test_an_answer_that_never_came_is_told() -> None:
    peer = Peer()
    peer.send('frame')
    peer.answer(0, 'detections', 'times')
    peer.account.status(status(published=3))
    assert not peer.account.is_settled(replaces=False)
    peer.account.settle(replaces=False)
    assert peer.account.findings == [
        '1 answers were published and never came',
        'frame 0 (frame): mask never came, the rest of its answer did',
    ]


@pytest.mark.parametrize('replaces', [False, True])
def test_answers_that_the_middleware_loses_are_told_unless_the_queue_is_short(
    replaces: bool,
) -> None:
    peer = Peer()
    peer.send('frame', 'frame')
    peer.answer(0, 'detections', 'times')
    peer.answer(1)
    peer.account.miss('instance_mask', 1)
    peer.account.status(status(published=4))
    assert peer.account.is_settled(replaces)
    peer.account.settle(replaces)
    lost = 'answers were lost between the node and the watcher: 1 of instance_mask'
    assert peer.account.findings == ([] if replaces else [lost])
    assert (peer.account.totals.missed, peer.account.totals.lost_answers) == (1, 0)


@pytest.mark.parametrize('replaces', [False, True])
def test_that_no_answer_comes_is_told_even_if_all_are_reported_as_lost(replaces: bool) -> None:
    peer = Peer()
    peer.send(*['frame'] * 20)
    for part in ('detections', 'instance_mask', 'stage_times'):
        peer.account.miss(part, 20)
    peer.account.status(status(published=22))
    peer.account.settle(replaces)
    assert any('the newest, has no answer' in text for text in peer.account.findings)
    assert any('20 of stage_times' in text for text in peer.account.findings) != replaces


def test_parts_lost_of_one_answer_do_not_excuse_another() -> None:
    peer = Peer()
    peer.send('frame', 'frame', 'frame')
    peer.answer(2)
    for part in ('detections', 'instance_mask', 'stage_times'):
        peer.account.miss(part, 1)
    peer.account.status(status(published=5))
    assert not peer.account.is_settled(replaces=True)
    peer.account.settle(replaces=True)
    assert peer.account.findings == ['1 answers were published and never came']


def test_wrong_fates_are_told() -> None:
    peer = Peer()
    peer.send('frame', 'png_bomb', 'frame')
    peer.answer(1)
    peer.account.status(status(published=3, dropped_decode=1, dropped_error=1))
    peer.account.settle(replaces=False)
    assert peer.account.findings == [
        '1 frames failed with an error',
        'frame 1 (png_bomb): expected to be dropped as decode, found an answer',
    ]
    peer.send('frame', 'frame')
    peer.answer(4)
    peer.account.status(status(published=4, dropped_decode=2, dropped_error=1))
    peer.account.settle(replaces=False)
    assert peer.account.findings[2:] == ['1 frames were dropped as decode, but only 0 were broken']


def test_answers_of_nothing_twice_and_too_late_are_told() -> None:
    peer = Peer()
    peer.send('frame')
    peer.answer(0)
    peer.answer(0, 'mask')
    peer.answer(7, 'mask')
    peer.answer(0, 'times', frame_id='')
    peer.account.status(status(published=3))
    peer.account.settle(replaces=False)
    peer.answer(0, 'times')
    assert peer.account.findings == [
        'frame 0: its mask came twice',
        "times with the frame id '' of no image",
        'frame 7 was answered, but never sent',
        'frame 0: its times came after all was settled',
    ]


def test_an_answer_may_overtake_what_the_camera_says() -> None:
    peer = Peer()
    peer.answer(0)
    peer.send('frame')
    peer.account.status(status(published=3))
    peer.account.settle(replaces=False)
    assert peer.account.findings == []
    assert peer.account.totals.answers == 1


def test_a_status_that_breaks_the_identity_is_told() -> None:
    peer = Peer()
    peer.account.status({**status(published=2), 'received': 3})
    peer.account.status(status(published=1))
    identity, *backward = peer.account.findings
    assert identity.startswith('diagnostics: received 3 is not published 2')
    assert backward == ['diagnostics: received went back from 3 to 1']


def test_what_was_under_way_at_a_death_is_unknown() -> None:
    peer = Peer()
    account = peer.account
    peer.send('frame', 'frame', 'wrong_step', at_s=100)
    peer.answer(0)
    account.status(status(published=3), 100.1)
    peer.send('frame', at_s=100.5)
    peer.answer(3, 'detections')  # Killed between the two.
    peer.send('frame', 'frame', at_s=101)
    account.cut('node_killed', 100.6)
    totals = account.totals
    # The one that was answered after the last status was received.
    assert (totals.sent, totals.received, totals.unheard) == (4, 2, 2)
    assert totals.unknown == {'node_killed': 2}
    assert (totals.lost, account.findings) == (0, [])
    assert not account.is_open
    assert account.confirmed == {}
    # What comes of it later is no news.
    peer.answer(3, 'mask')
    assert account.findings == []


def test_what_is_unknown_must_be_later_than_the_last_status() -> None:
    peer = Peer()
    peer.send('frame', 'frame', at_s=99)
    peer.account.status(status(published=2), 99.8)
    peer.send('frame', at_s=100)
    peer.account.cut('node_killed', 100.6)
    (found,) = peer.account.findings
    assert found.startswith('node_killed: 3 frames are unknown, but only 1 were sent after')
    assert peer.account.totals.unknown == {'node_killed': 3}


@pytest.mark.parametrize('cause', ['deactivated', 'camera_killed'])
@pytest.mark.parametrize('replaces', [False, True])
def test_where_the_node_lives_on_only_the_last_moment_is_unknown(
    cause: str, replaces: bool
) -> None:
    peer = Peer()
    for at_s in (99.0, 99.9, 100.4):
        peer.send('frame', at_s=at_s)
    peer.account.status(status(published=2), 102)
    peer.account.cut(cause, 100.5, replaces)
    found = [text for text in peer.account.findings if text.startswith(f'{cause}: 3 frames')]
    assert len(found) == (not replaces)
    right = Peer()
    right.send('frame', at_s=100.4)
    right.account.status(status(published=2), 102)
    right.account.cut(cause, 100.5)
    assert right.account.findings == []


def test_an_answer_before_the_last_status_hides_no_lost_frame() -> None:
    peer = Peer()
    peer.send('frame', 'frame', at_s=99)
    peer.answer(1)
    peer.account.status(status(published=3), 102)
    peer.account.cut('deactivated', 100.5)
    (found,) = peer.account.findings
    assert found.startswith('deactivated: 1 frames are unknown, but only 0 ')


@pytest.mark.parametrize('quiet', [False, True])
def test_in_quiet_every_broken_frame_has_to_be_refused(quiet: bool) -> None:
    peer = Peer()
    peer.send('wrong_step', 'png_bomb', 'frame')
    peer.answer(2)
    peer.account.status(status(published=3, dropped_stale=1, dropped_decode=1))
    peer.account.settle(replaces=False, quiet=quiet)
    told = '2 broken frames came in quiet, but only 1 were dropped as decode, superseded or lost'
    assert peer.account.findings == ([told] if quiet else [])
    assert peer.account.confirmed == {}


def test_a_busy_machine_may_supersede_a_broken_frame_and_confirms_none() -> None:
    peer = Peer()
    peer.send('wrong_step', 'png_bomb', 'frame')
    peer.answer(2)
    peer.account.status(status(published=3, dropped_superseded=1, dropped_decode=1))
    peer.account.settle(replaces=False, quiet=True)
    assert peer.account.findings == []
    assert peer.account.confirmed == {}


def test_the_results_of_the_frame_before_are_found_out() -> None:
    peer = Peer()
    for number, picture in enumerate((0, 1, 1)):
        peer.account.send(number, Sent('frame', HW, 1000 + number, 100.0, picture))
        peer.answer(number, 'detections', count=2 if number == 1 else 1, ids_right=True)
        peer.answer(number, 'mask', 'times')
    peer.account.status(status(published=5))
    peer.account.settle(replaces=False, quiet=True)
    assert peer.account.findings == ['frame 2 has 1 detections, frame 1 of the same picture had 2']


def test_an_error_in_the_diagnostics_needs_a_broken_frame() -> None:
    peer = Peer()
    account = peer.account
    peer.send('wrong_step', at_s=100)
    account.status(status(published=2, dropped_decode=1), 101, 'a frame failed')
    peer.send('frame', at_s=101)
    peer.answer(1)
    account.status(status(published=3, dropped_decode=1), 105, 'a frame failed')
    assert account.findings == []
    account.status(status(published=3, dropped_decode=1), 106)
    account.status(status(published=3, dropped_decode=1), 120, 'the device is gone')
    account.status(status(published=3, dropped_decode=1), 121, 'the device is gone')
    assert account.findings == ['diagnostics: ERROR, but nothing was broken: the device is gone']


def test_probes_and_what_nobody_heard_are_not_in_a_stretch() -> None:
    peer = Peer()
    account = peer.account
    account.cut('node_interrupted', 100.0)
    account.new_life()
    peer.send('frame', 'frame')
    account.probe()
    peer.send('frame')
    assert not account.has_last_answer()
    peer.answer(2)
    assert account.has_last_answer()
    # Of the two before it took one.
    account.status(status(published=1, dropped_superseded=1))
    account.open()
    peer.send('frame')
    peer.answer(3)
    account.status(status(published=2, dropped_superseded=1))
    assert account.is_settled(replaces=False)
    account.settle(replaces=False)
    totals = account.totals
    assert (totals.unheard, totals.probes, totals.sent, totals.answers) == (2, 1, 1, 1)
    assert account.findings == []


def test_what_was_reported_outlasts_the_subscription() -> None:
    peer = Peer()
    peer.send('frame', 'frame')
    peer.answer(0)
    peer.account.status(status(published=3, message_lost=1))
    peer.account.status(status(published=3))
    peer.account.cut('deactivated', 101.0)
    assert peer.account.totals.unknown == {'deactivated': 0}
    assert peer.account.totals.reported == 1


@pytest.mark.parametrize('replaces', [False, True])
def test_the_newest_frame_has_to_be_answered(replaces: bool) -> None:
    peer = Peer()
    peer.send('frame', 'frame')
    peer.answer(0)
    peer.account.status(status(published=3, dropped_superseded=1))
    peer.account.settle(replaces)
    assert peer.account.findings == ['frame 1 (frame), the newest, has no answer']
    # One that has to be dropped leaves no answer.
    peer.send('frame', 'wrong_step')
    peer.account.status(status(published=3, dropped_superseded=2, dropped_decode=1))
    peer.account.settle(replaces)
    assert len(peer.account.findings) == 1
