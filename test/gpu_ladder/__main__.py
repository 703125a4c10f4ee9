# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""A run of the ladder: the command line, the deadline, and the order of the steps."""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

if __name__ == '__main__':
    # In the place of this folder. The checkout that it lies in comes before an installed segnode.
    test = Path(__file__).resolve().parents[1]
    sys.path[:1] = [str(test.parent), str(test)]

try:
    from gpu_ladder.afterwards import Afterwards
    from gpu_ladder.options import check_machine, parse
    from gpu_ladder.outcome import failed
    from gpu_ladder.processes import CHILD, child, climb_all
    from gpu_ladder.record import Record
    from gpu_ladder.report import print_report, summarise
    from segnode.cli import note, say
    from segnode.errors import ConfigError, SegnodeError
except ImportError as missing:
    if __name__ != '__main__':
        raise
    sys.stderr.write(
        f'gpu_ladder: error: {missing.name or "a module"} cannot be imported ({missing}) by '
        f'{sys.executable}; install it, or name another Python: make gpu GPU_PYTHON=...\n'
    )
    raise SystemExit(1) from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything; return 0, 1 where something failed, 2 on wrong use, 130 after Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == [CHILD]:
        return child(*given[1:])
    try:
        options = parse(given)
        check_machine(options)
        record = Record(options)
    except SystemExit as stop:  # argparse leaves this way
        return stop.code if isinstance(stop.code, int) else 1
    except (SegnodeError, OSError) as error:
        sys.stderr.write(f'gpu_ladder: error: {" ".join(str(error).split())}\n')
        return 2 if isinstance(error, ConfigError) else 1
    note(f'writing {record.path} after every check')
    end_s = time.monotonic() + options.minutes * 60
    with ExitStack() as stack:
        # A request to end does what Ctrl-C does.
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        stack.callback(signal.signal, signal.SIGTERM, before)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix='segnode-gpu-')))
        climb = partial(climb_all, options, record, folder, end_s)
        after = Afterwards(options, record, folder, end_s)
        steps = {'ladder': climb, 'tests': after.test, 'benchmark': after.benchmark}
        try:
            for name in options.steps:
                try:
                    steps[name]()
                except Exception as error:  # noqa: BLE001 - what it says is the finding
                    record.data['error'] = failed(error)['error']
        except KeyboardInterrupt:
            record.data['interrupted'] = True
    summary = record.data['summary'] = summarise(record.data)
    record.data['complete'] = not record.data.keys() & {'interrupted', 'error'}
    record.write()
    print_report(record.data)
    counts = ' '.join(f'{name}={summary[name]}' for name in ('passed', 'failed', 'skipped'))
    say(f'gpu: {counts} rung={summary["highest_rung_passed"]} json={record.path}')
    return int(summary['exit_code'])


if __name__ == '__main__':
    sys.exit(main())
