# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""How many kernels a frame may launch, counted without a GPU.

Small kernels cost their launch, whatever they compute. What is counted are the operators that
write a tensor, and every launch of a Triton kernel. Some operators are several kernels each:
these are named, with how often they come.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable

import pytest
from fake_gpu import needs_fake_gpu
from fake_program import SETTINGS, Watch, fake_cudnn, fake_program
from triton_launches import Launch, record_launches

from segnode.engine import program as program_module
from segnode.kernels.operators import Operators, plain_operators, triton_operators
from segnode.model.architecture import SEMANTICS, Rule

pytestmark = needs_fake_gpu

# A ResNet-50 at 800 x 1344, resized along both axes.
LARGE = dataclasses.replace(SETTINGS, short_side=800, long_side=1333)
IMAGE_HW = (1080, 1800)
# Operators of several kernels.
COMPOSED = ('aten::topk', 'aten::sort', 'aten::cumsum')
# Suppression in plain PyTorch is a kernel a box, see ``nms_static``.
EACH_BOX = 'aten::addcdiv_'


class Stages:
    """Marks that count what each stage launched."""

    def __init__(self, launched: Callable[[], int]) -> None:
        self._launched = launched
        self._before = 0
        self.counts: Counter[str] = Counter()

    def mark(self, name: str) -> None:
        total = self._launched()
        self.counts[name] += total - self._before
        self._before = total


def count(
    monkeypatch: pytest.MonkeyPatch, family: Rule, operators: Operators, launches: list[Launch]
) -> tuple[dict[str, int], dict[str, int], int]:
    """Return the launches of ``detect`` by stage, its composed operators, and ``label``'s."""
    fused, watch = fake_cudnn(monkeypatch), Watch()

    def launched() -> int:
        return watch.calls.total() - watch.calls[EACH_BOX] + fused.total() + len(launches)

    stages = Stages(launched)
    monkeypatch.setattr(program_module, 'StageMarks', lambda *_: stages)
    with fake_program(monkeypatch, family, 1, operators, IMAGE_HW, LARGE) as program:
        with watch:
            stages.mark('start')
            chosen = program.detect()
            detect = dict(stages.counts)
            composed = {name: watch.calls[name] for name in COMPOSED if watch.calls[name]}
            program.label(32, chosen)
        label = stages.counts.total() - sum(detect.values())
    del detect['start'], detect['upload']
    return detect, composed, label


def launches_in_plain_operators(
    monkeypatch: pytest.MonkeyPatch, family: Rule
) -> tuple[dict[str, int], dict[str, int], int]:
    return count(monkeypatch, family, plain_operators('for a test'), [])


def launches_with_triton(
    monkeypatch: pytest.MonkeyPatch, family: Rule
) -> tuple[dict[str, int], dict[str, int], int]:
    pytest.importorskip('triton')
    launches = record_launches(monkeypatch)
    return count(monkeypatch, family, triton_operators(), launches)


# Resizing and pooling take more operators in plain PyTorch, and by family not the same.
PLAIN = {'preprocess': 32, 'backbone': 70, 'rpn': 108, 'box_head': 133, 'filter': 48}
TRITON = {'preprocess': 8, 'backbone': 70, 'rpn': 31, 'box_head': 17, 'filter': 1}


@pytest.mark.parametrize('family', SEMANTICS)
@pytest.mark.parametrize(
    ('ways', 'stages', 'most', 'most_in_label'),
    [(launches_in_plain_operators, PLAIN, 378, 409), (launches_with_triton, TRITON, 120, 13)],
)
def test_a_frame_launches_no_more_than(
    monkeypatch: pytest.MonkeyPatch,
    family: Rule,
    ways: Callable[..., tuple[dict[str, int], dict[str, int], int]],
    stages: dict[str, int],
    most: int,
    most_in_label: int,
) -> None:
    detect, composed, label = ways(monkeypatch, family)
    assert detect.keys() == stages.keys()
    assert not {name: n for name, n in detect.items() if n > stages[name]}, detect
    assert sum(detect.values()) <= most, detect
    assert label <= most_in_label
    # Five levels of the RPN, its proposals, the box head's candidates and its detections.
    plain = ways is launches_in_plain_operators
    assert composed == ({'aten::topk': 8, 'aten::sort': 1} if plain else {})
