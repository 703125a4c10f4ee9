# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Tests on an emulated 64-bit Arm: ``make arm``.

``cpu.c`` is cross-compiled, and Debian's Python for arm64 runs the tests of its kernels under
qemu-user with PyTorch's own wheel for aarch64. Nothing of it is installed: Debian's packages and
the wheels are unpacked below ``build/arm``, which later runs use again.

It needs ``apt install qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross``, apt's archives and
the package index. Emulated processors: neoverse-n1, which like an Orin's cores has FP16 and no
bfloat16, and one with all that qemu knows.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT / 'resource' / 'environment'))

from aarch64 import PLATFORMS, name_of, pins  # noqa: E402 - there since the line above

BUILD = CHECKOUT / 'build' / 'arm'
ROOT, SITE = BUILD / 'root', BUILD / 'site'
TOOLS = {
    'qemu-aarch64': 'qemu-user',
    'aarch64-linux-gnu-gcc': 'gcc-aarch64-linux-gnu libc6-dev-arm64-cross',
    'apt-get': 'apt',
    'dpkg-deb': 'dpkg',
}
DEBS = ('python3', 'python3-minimal', 'libpython3-stdlib', 'libgomp1', 'libstdc++6')
# The last release whose wheel for aarch64 is for CPUs; later ones bring all of CUDA.
WHEELS = ('torch==2.9.1', 'torchvision==0.24.1', 'setuptools==79.0.1')
PROCESSORS = {'neoverse-n1': 'fp32', 'max': 'bf16'}
TESTS = ('test/kernels/test_cpu_kernels.py',)
# These compile, or run the whole engine, which takes an hour here.
LEFT_OUT = 'package_is_built or engine_finds'


def main(arguments: list[str]) -> int:
    """Prepare what is missing, and run the tests; further arguments are pytest's."""
    missing = [packages for tool, packages in TOOLS.items() if shutil.which(tool) is None]
    if missing:
        sys.stderr.write(f'arm: apt install {" ".join(missing)}\n')
        return 2
    if not (BUILD / 'root.done').exists():
        unpack_system()
    version = next((ROOT / 'usr/lib').glob('python3.*')).name.removeprefix('python')
    if not (BUILD / 'site.done').exists():
        unpack_wheels(version)
    compile_kernels(version)
    for processor, precision in PROCESSORS.items():
        sys.stdout.write(f'arm: {processor} has to choose {precision}\n')
        code = (
            'import platform, torch; from segnode.model.precision import choose_precision; '
            f'assert platform.machine() == "aarch64"; '
            f'assert choose_precision("auto", torch.device("cpu")) == {precision!r}'
        )
        emulated(version, processor, '-c', code)
    tests = arguments or [*TESTS, '-k', f'not ({LEFT_OUT})']
    emulated(version, 'neoverse-n1', '-m', 'pytest', '-p', 'no:cacheprovider', '-v', *tests)
    if not arguments:
        # OpenCV shrinks otherwise on an Arm: what it gives here is what is asked for there.
        recorded = str(BUILD / 'opencv.npz')
        call(sys.executable, 'test/arm/opencv.py', 'record', recorded)
        emulated(version, 'neoverse-n1', 'test/arm/opencv.py', 'compare', recorded)
    return 0


def unpack_system() -> None:
    """Unpack Debian's Python for arm64, by lists of our own: this system's stay as they are."""
    state = BUILD / 'apt'
    shutil.rmtree(ROOT, ignore_errors=True)
    for folder in ('lists/partial', 'cache/archives/partial'):
        (state / folder).mkdir(parents=True, exist_ok=True)
    (state / 'status').touch()
    options = [
        'APT::Architecture=arm64',
        'APT::Architectures=arm64',
        f'Dir::State={state}',
        f'Dir::State::status={state / "status"}',
        f'Dir::State::lists={state / "lists"}',
        f'Dir::Cache={state / "cache"}',
    ]
    apt = ['apt-get', *(f'-o{option}' for option in options)]
    call(*apt, 'update')
    call(*apt, 'install', '--yes', '--no-install-recommends', '--download-only', *DEBS)
    for package in sorted((state / 'cache/archives').glob('*.deb')):
        call('dpkg-deb', '-x', str(package), str(ROOT))
    (BUILD / 'root.done').touch()


def unpack_wheels(version: str) -> None:
    """Unpack the wheels that the tests need, as pinned but for PyTorch."""
    shutil.rmtree(SITE, ignore_errors=True)
    wanted = {'numpy', 'pillow', 'opencv-python-headless', 'pyyaml', 'safetensors', 'tqdm'}
    wanted |= {'pycocotools', 'typing-extensions', 'sympy', 'mpmath', 'filelock', 'networkx'}
    wanted |= {'jinja2', 'markupsafe', 'fsspec', 'pytest', 'iniconfig', 'pluggy', 'packaging'}
    wanted |= {'pygments'}
    chosen = [pin for pin in pins(version, 'runtime', 'test', 'build') if name_of(pin) in wanted]
    call(
        *(sys.executable, '-m', 'pip', 'install', '--no-deps', '--only-binary=:all:'),
        *(f'--target={SITE}', f'--python-version={version}'),
        *PLATFORMS,
        *(*WHEELS, *chosen),
    )
    (BUILD / 'site.done').touch()


def compile_kernels(version: str) -> None:
    """Cross-compile ``cpu.c`` to where the emulated Python looks for it, warnings as errors."""
    suffix = f'cpython-{version.replace(".", "")}-aarch64-linux-gnu.so'
    call(
        *('aarch64-linux-gnu-gcc', '-O3', '-std=gnu11', '-fopenmp', '-Wall', '-Wextra'),
        *('-Werror', '-Wno-psabi', '-shared', '-fPIC', 'segnode/kernels/cpu.c', '-lm'),
        *('-o', f'segnode/kernels/_cpu.{suffix}'),
    )


def emulated(version: str, processor: str, *arguments: str) -> None:
    """Run Python on an emulated processor."""
    variables = {
        'QEMU_CPU': processor,
        'QEMU_LD_PREFIX': str(ROOT),
        'PYTHONHOME': str(ROOT / 'usr'),
        'PYTHONPATH': os.pathsep.join(map(str, (SITE, CHECKOUT, CHECKOUT / 'test'))),
        'PYTHONDONTWRITEBYTECODE': '1',
        'PYTHONUNBUFFERED': '1',
    }
    python = ROOT / 'usr/bin' / f'python{version}'
    call('qemu-aarch64', str(python), *arguments, **variables)


def call(*command: str, **variables: str) -> None:
    """Run a command in the checkout; what fails ends all."""
    done = subprocess.run(command, cwd=CHECKOUT, env={**os.environ, **variables}, check=False)
    if done.returncode:
        sys.exit(f'arm: {" ".join(command[:4])} ... ended with {done.returncode}')


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
