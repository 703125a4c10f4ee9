# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The table of contents: what is done on a rung, in order, and the climb of one rung."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

from gpu_ladder import answers, edges, limits, operators, poison, precision, timing, ways
from gpu_ladder.engines import Climb, describe_machine, exact_float32
from gpu_ladder.options import Options, shape_name
from gpu_ladder.outcome import Result, SkipCheck, failed, no_time, skipped
from gpu_ladder.reference import Reference
from gpu_ladder.rungs import Rung


@dataclass(frozen=True, slots=True)
class Step:
    """A check or a timing of a rung; after ``budget_s`` seconds it is taken to hang."""

    name: str
    check: Callable[[Climb], Result]
    budget_s: float = limits.CHECK_S


def steps_of(options: Options) -> list[Step]:
    """Return what is done on a rung, in order."""
    named: dict[str, Callable[[Climb], Result]] = {
        'operators': operators.check_operators,
        'graphs': operators.check_graphs,
        'kernel preprocess': operators.check_preprocess,
        'kernel nms': operators.check_nms,
        'kernel select_proposals': operators.check_select_proposals,
        'kernel select_detections': operators.check_select_detections,
        'kernel choose': operators.check_choose,
        'kernel max_pool': operators.check_max_pool,
        'kernel add_enlarged': operators.check_add_enlarged,
        'kernel roi_align': operators.check_roi_align,
        'kernel paste': operators.check_paste,
        'fp32 stages': partial(precision.check_stages, precision='fp32'),
        'fp32 scenes': answers.check_scenes,
        'fp32 sizes': answers.check_sizes,
        'fp32 batch': answers.check_batch,
        'fp32 empty': answers.check_empty,
        'fp32 predict': answers.check_predict,
        'fp32 lent frames': edges.check_lent,
        'fp32 speculation': edges.check_speculation,
        'fp32 poison': partial(poison.check_poison, precision='fp32'),
    }
    for half in limits.HALF:
        named[f'{half} stages'] = partial(precision.check_stages, precision=half)
        named[f'{half} AP'] = partial(precision.check_answers, precision=half)
        named[f'{half} poison'] = partial(poison.check_poison, precision=half)
    named['selection times'] = timing.check_selection_times
    named['stage times'] = timing.check_stage_times
    named['memory'] = timing.check_memory
    for shape in options.shapes:
        named[f'planted {shape_name(shape)}'] = partial(answers.check_planted, shape=shape)
        named[f'ways {shape_name(shape)}'] = partial(ways.time_ways, shape=shape)
        named[f'time {shape_name(shape)}'] = partial(timing.time_shape, shape=shape)
    # What follows hangs on the first two, whatever was asked for.
    wanted = ('operators', 'graphs', *(options.checks or ['']))
    return [Step(n, check) for n, check in named.items() if any(part in n for part in wanted)]


def climb(
    rung: Rung, options: Options, reference: Reference, first: int, deadline_s: float
) -> Iterator[tuple[str, Any]]:
    """Run the steps of a rung from the ``first`` on, none begun after a monotonic deadline.

    Yields:
        ``machine``, a step's name as ``begin``, and as ``result`` what became of it. It ends early
        where the device does not survive a step, as it is of no more use to this process.
    """
    with rung.switched():
        climb = Climb(rung, options, reference)
        yield 'machine', describe_machine(climb.device)
        blocked = ''
        for step in steps_of(options)[first:]:
            left_s = deadline_s - time.monotonic()
            if blocked or left_s < 1:
                late = skipped(no_time(left_s), late=True)
                yield 'result', {'name': step.name, **(skipped(blocked) if blocked else late)}
                continue
            yield 'begin', step.name
            result = run_step(step, climb)
            yield 'result', result
            # Without what makes it a rung of its own, it is the one below.
            own = {'operators': rung.triton, 'graphs': rung.graphs}.get(step.name, False)
            wrong = result.get('error', {}).get('type') == 'WrongAnswer'
            if own and (wrong or result['status'] == 'skipped'):
                blocked = f'see {step.name}'
            if result['status'] == 'failed':
                # Out of reach of the exception, whose frames hold what it happened to.
                climb.forget()
                if not climb.alive():
                    return


def run_step(step: Step, climb: Climb) -> Result:
    """Run a step and return what became of it, whatever it raises."""
    said, start = len(climb.said), time.perf_counter()
    try:
        # Without TF32, which is on for convolutions by default.
        with exact_float32() if step.name.startswith(('kernel', 'fp32')) else nullcontext():
            found = step.check(climb)
    except SkipCheck as reason:
        found = skipped(str(reason))
    except Exception as error:  # noqa: BLE001 - what it says is the finding
        found = failed(error)
    seconds = time.perf_counter() - start
    return {'name': step.name, 'seconds': seconds, 'said': climb.said[said:], **found}
