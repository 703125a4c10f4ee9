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

from gpu_ladder import answers, limits, operators, poison, precision, timing
from gpu_ladder.engines import Climb, describe_machine, exact_float32
from gpu_ladder.options import Options, shape_name
from gpu_ladder.outcome import Outcome, SkipCheck, failed, failure, no_time, skipped
from gpu_ladder.reference import Reference
from gpu_ladder.rungs import Rung


@dataclass(frozen=True, slots=True)
class Step:
    """A check or a timing of a rung; after ``budget_s`` seconds it is taken to hang."""

    name: str
    check: Callable[[Climb], Outcome]
    budget_s: float = limits.CHECK_S


def steps_of(options: Options) -> list[Step]:
    """Return what is done on a rung, in order."""
    steps = [
        Step('operators', operators.check_operators),
        Step('graphs', operators.check_graphs),
        Step('kernel preprocess', operators.check_preprocess),
        Step('kernel nms', operators.check_nms),
        Step('kernel roi_align', operators.check_roi_align),
        Step('kernel paste', operators.check_paste),
        Step('fp32 stages', partial(precision.check_stages, precision='fp32')),
        Step('fp32 scenes', answers.check_scenes),
        Step('fp32 sizes', answers.check_sizes),
        Step('fp32 batch', answers.check_batch),
        Step('fp32 empty', answers.check_empty),
        Step('fp32 predict', answers.check_predict),
        Step('fp32 poison', partial(poison.check_poison, precision='fp32')),
    ]
    for half in limits.HALF:
        steps += [
            Step(f'{half} stages', partial(precision.check_stages, precision=half)),
            Step(f'{half} AP', partial(precision.check_answers, precision=half)),
            Step(f'{half} poison', partial(poison.check_poison, precision=half)),
        ]
    steps.append(Step('stage times', timing.check_stage_times))
    steps.append(Step('memory', timing.check_memory))
    for shape in options.shapes:
        name = shape_name(shape)
        steps.append(Step(f'planted {name}', partial(answers.check_planted, shape=shape)))
        steps.append(Step(f'time {name}', partial(timing.time_shape, shape=shape)))
    # What follows hangs on the first two, whatever was asked for.
    wanted = ('operators', 'graphs', *(options.checks or ['']))
    return [step for step in steps if any(part in step.name for part in wanted)]


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
            if blocked:
                yield 'result', {'name': step.name, **skipped(blocked)}
                continue
            if left_s < 1:
                yield 'result', {'name': step.name, **skipped(no_time(left_s), late=True)}
                continue
            yield 'begin', step.name
            result = run_step(step, climb)
            yield 'result', result
            # Without what makes it a rung of its own, it is the one below.
            own = {'operators': rung.triton, 'graphs': rung.graphs}.get(step.name, False)
            if own and (result['status'] == 'skipped' or is_wrong_answer(result)):
                blocked = f'see {step.name}'
            if result['status'] == 'failed':
                # Out of reach of the exception, whose frames hold what it happened to.
                climb.forget()
                if not climb.alive():
                    return


def run_step(step: Step, climb: Climb) -> dict[str, Any]:
    """Run a step and return what became of it, whatever it raises."""
    said, start = len(climb.said), time.perf_counter()
    try:
        # Without TF32, which is on for convolutions by default.
        with exact_float32() if step.name.startswith(('kernel', 'fp32')) else nullcontext():
            outcome = step.check(climb)
        found = (
            failure('WrongAnswer', outcome.problem, [])
            if outcome.problem
            else {'status': 'passed'}
        )
        found |= {'figures': outcome.figures, 'limit': outcome.limits}
    except SkipCheck as reason:
        found = skipped(str(reason))
    except Exception as error:  # noqa: BLE001 - what it says is the finding
        found = failed(error)
    seconds = time.perf_counter() - start
    return {'name': step.name, 'seconds': seconds, 'said': climb.said[said:], **found}


def is_wrong_answer(result: dict[str, Any]) -> bool:
    """Return whether the check ran to its end, but did not find what it should."""
    return result['status'] == 'failed' and result['error']['type'] == 'WrongAnswer'
