# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The pinned packages for 64-bit Arms: which the index has, and a folder of them for a robot.

``make arm-wheels`` asks pip, installs nothing, and writes what it found with its date to
``aarch64.md``. With ``--download FOLDER`` everything that ``make setup`` installs on a board with
PyTorch and NumPy 1 of its own is put into a folder, for a robot without a network.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ENVIRONMENT = Path(__file__).resolve().parent
RECORD = ENVIRONMENT / 'aarch64.md'
PYTHONS = ('3.10', '3.12')
STEMS = ('build', 'runtime', 'test', 'numpy1')
# What a JetPack has of its own.
BOARDS_OWN = re.compile(r'(torch|torchvision|triton|nvidia-.*|cuda-.*)==')
# All of a distribution's wheels are built together, so that one of them stands for all.
ROS = ('ros-kilted', 'ros-jazzy')
# By glibc: Ubuntu 22.04 has 2.35, and runs what was built for an older one.
PLATFORMS = (
    '--platform=manylinux2014_aarch64',
    *(f'--platform=manylinux_2_{minor}_aarch64' for minor in range(17, 36)),
)


def name_of(pin: str) -> str:
    """Return a pin's package."""
    return pin.partition('==')[0]


def pins(version: str, *stems: str) -> list[str]:
    """Return the pins that hold for a Python, each once."""
    newer = tuple(map(int, version.split('.'))) >= (3, 11)
    found = []
    for stem in stems:
        text = (ENVIRONMENT / f'{stem}.txt').read_text(encoding='utf-8')
        for pin, marker in re.findall(r'(?m)^([a-z0-9-]+==[^;\s]+)(.*)$', text):
            if not marker or ('>=' in marker) == newer:
                found.append(pin)
    return list(dict.fromkeys(found))


def resolve(wanted: Sequence[str], options: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return the file that the index has for each pin, and the pins for which it has none."""
    left, missing = list(wanted), list[str]()
    while left:
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / 'report.json'
            command = [
                *(sys.executable, '-m', 'pip', 'install', '--dry-run', '--quiet', '--no-deps'),
                *('--ignore-installed', f'--target={folder}/x', f'--report={report}'),
                *(*options, *left),
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                files = {}
                for each in json.loads(report.read_text(encoding='utf-8'))['install']:
                    pin = '{name}=={version}'.format(**each['metadata'])
                    files[pin] = each['download_info']['url'].rpartition('/')[2]
                return files, missing
        found = re.search(r'satisfies the requirement (\S+)', done.stderr)
        if found is None or found[1] not in left:
            sys.exit(done.stderr)
        left.remove(found[1])
        missing.append(found[1])
    return {}, missing


def row(stem: str, version: str) -> str:
    """Return a row of the table: what is there, from source, and missing."""
    wanted = pins(version, stem)
    if stem in ROS:
        wanted = [pin for pin in wanted if name_of(pin) == 'ros-rclpy']
    only = ['--only-binary=:all:', f'--python-version={version}', *PLATFORMS]
    files, missing = resolve(wanted, only)
    compiled = sum(not name.endswith('-none-any.whl') for name in files.values())
    # What has no wheel for any machine may have its source, which set-up builds.
    here, _ = resolve(missing if stem not in ROS else [], [])
    named = {name_of(pin).lower().replace('_', '-') for pin, f in here.items() if 'whl' not in f}
    source = [pin for pin in missing if name_of(pin) in named]
    none = [pin for pin in missing if pin not in source]
    return '| {} | {} | {} | {} | {} | {} |'.format(
        f'{stem} (rclpy)' if stem in ROS else stem,
        version,
        len(wanted),
        f'{len(files)}, {compiled} of them compiled',
        ', '.join(source) or '-',
        ', '.join(none) or '-',
    )


def record() -> None:
    """Ask for everything, and write the table."""
    rows = []
    for version in PYTHONS:
        for stem in (*STEMS, *ROS):
            rows.append(row(stem, version))
            sys.stdout.write(rows[-1] + '\n')
            sys.stdout.flush()
    RECORD.write_text(
        'The pinned packages on aarch64, as pip found them in the index on '
        f'{datetime.date.today()}\n'
        '(`make arm-wheels` asks again). Where there is no wheel, `source` is built at set-up.\n\n'
        '| pins | Python | packages | wheels | source | none |\n'
        '| --- | --- | ---: | --- | --- | --- |\n' + '\n'.join(rows) + '\n',
        encoding='utf-8',
    )


def download(folder: Path, version: str) -> None:
    """Put into a folder what set-up installs on a board beside its own PyTorch."""
    older = pins(version, 'numpy1')
    names = {name_of(pin) for pin in older}
    wanted = [
        pin
        for pin in pins(version, 'build', 'runtime')
        if name_of(pin) not in names and not BOARDS_OWN.match(pin)
    ]
    only = ['--only-binary=:all:', f'--python-version={version}', *PLATFORMS]
    files, missing = resolve([*wanted, *older], only)
    ask = (sys.executable, '-m', 'pip', 'download', '--no-deps', f'--dest={folder}')
    subprocess.run([*ask, *only, *files], check=True)
    for pin in missing:
        subprocess.run([*ask, f'--no-binary={name_of(pin)}', pin], check=True)


def main() -> int:
    """Ask, or fill a folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
    parser.add_argument('--download', type=Path, metavar='FOLDER', help='fill it, ask nothing')
    parser.add_argument('--python', default='3.10', choices=('3.10', '3.12'), help="the robot's")
    options = parser.parse_args()
    if options.download is not None:
        download(options.download, options.python)
    else:
        record()
    return 0


if __name__ == '__main__':
    sys.exit(main())
