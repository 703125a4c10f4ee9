#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Makes ``.venv`` in the checkout: ROS 2, torch and segnode itself, in one prefix.

Without a ROS 2 sourced, rclpy and the message packages come from wheels and vision_msgs is built
from vision_msgs.json, so that ``.venv/bin/python -m segnode`` needs nothing sourced. With one
sourced, the virtual environment sees its packages and only torch and the like are added.

``--old`` makes ``.venv-old``, without ROS, with the NumPy and PyTorch of JetPack 6 (old.txt).

``--ros jazzy`` makes ``.venv-jazzy`` beside it, a prefix with the wheels of that distribution, and
borrows from ``.venv`` everything that is not of ROS.

Each step leaves a stamp with the hash of what went into it and is skipped while that holds.
Standard library only: this runs before anything is installed.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent.parent
NEEDED_PYTHON = (3, 10)
NEEDED_BYTES = 9 * 10**9
BORROWERS_BYTES = 10**9
# The distributions with wheels; the first one's environment is whole, another borrows from it.
DISTRIBUTIONS = ('kilted', 'jazzy')
# The steps, and the requirements, that an environment lends: all but ROS and segnode.
LENT_STEPS = ('venv', 'build', 'runtime', 'test')
LENT_REQUIREMENTS = LENT_STEPS[1:]
NETWORK_REMEDY = 'check the network and run the same command again; what is done is kept'
# What a shell may carry over from another ROS or virtual environment.
FOREIGN_VARIABLES = (
    'AMENT_PREFIX_PATH',
    'CMAKE_PREFIX_PATH',
    'COLCON_PREFIX_PATH',
    'LD_LIBRARY_PATH',
    'PYTHONHOME',
    'PYTHONPATH',
)
# What torch from another source (JetPack's, say) replaces.
TORCH_STACK = re.compile(r'(torch|torchvision|triton|nvidia-.*|cuda-.*)==')
# Asked of the system's interpreter where a ROS is sourced.
PROBE = """
import importlib.util, json
import rclpy
try:
    import numpy
    numpy_major = int(numpy.__version__.split('.')[0])
except ImportError:
    numpy_major = None
found = {name: importlib.util.find_spec(name) is not None
         for name in ('vision_msgs', 'torch', 'torchvision')}
print(json.dumps({'numpy_major': numpy_major, **found}))
"""
# A Jetson's own system has it.
JETSON_RELEASE = Path('/etc/nv_tegra_release')


class SetupError(Exception):
    """A step failed; the text says which, why, and what to do."""


@dataclass(frozen=True)
class SourcedRos:
    """The ROS 2 that the calling shell has sourced, as the system's Python sees it."""

    distro: str
    numpy_major: int | None
    vision_msgs: bool
    torch: bool
    torchvision: bool


def without_prefix(environ: Mapping[str, str], prefix: Path) -> dict[str, str]:
    """The variables without the path entries that lie in ``prefix``."""
    kept = dict(environ)
    for name in FOREIGN_VARIABLES:
        entries = kept.pop(name, '').split(os.pathsep)
        entries = [e for e in entries if e and not Path(e).is_relative_to(prefix)]
        if entries:
            kept[name] = os.pathsep.join(entries)
    return kept


def find_sourced_ros(
    environ: Mapping[str, str], python: str, venv: Path | None = None
) -> SourcedRos | None:
    """The sourced ROS 2, or None where the shell has none.

    Raises:
        SetupError: a ROS is sourced, but ``python`` cannot import its rclpy.
    """
    if venv is not None:
        environ = without_prefix(environ, venv)
    if not environ.get('ROS_DISTRO') and not environ.get('AMENT_PREFIX_PATH'):
        return None
    distro = environ.get('ROS_DISTRO', 'DISTRO')
    probe = subprocess.run(
        [python, '-c', PROBE], env=dict(environ), capture_output=True, text=True, check=False
    )
    if probe.returncode:
        reason = (probe.stderr.strip().splitlines() or ['no output'])[-1]
        raise SetupError(
            f'a ROS 2 is sourced ({distro}), but {python} cannot import its rclpy ({reason}); '
            'run `make PYTHON=/usr/bin/python3 ...` with the Python that this ROS was built for, '
            f'or `apt install ros-{distro}-ros-base`, or use a shell without ROS'
        )
    return SourcedRos(distro=distro, **json.loads(probe.stdout.splitlines()[-1]))


def check_machine(ros: SourcedRos | None, machine: str | None = None) -> None:
    """Refuses a machine on which a later step would fail.

    Raises:
        SetupError: something is missing; the text says what to install.
    """
    machine = machine or platform.machine()
    version = '.'.join(map(str, sys.version_info[:2]))
    if ros is None and machine != 'x86_64':
        raise SetupError(
            f'ROS 2 wheels exist for x86_64 only, and this machine is {machine}: install ROS 2 '
            'with apt, source it (`source /opt/ros/DISTRO/setup.bash`) and run this again'
        )
    if ros is not None and not ros.vision_msgs:
        raise SetupError(
            f'the sourced ROS 2 has no vision_msgs: apt install ros-{ros.distro}-vision-msgs'
        )
    if ros is not None and (not ros.torchvision if ros.torch else JETSON_RELEASE.exists()):
        missing, remedy = 'torch', 'install the torch and torchvision of your JetPack'
        if ros.torch:
            missing, remedy = 'torchvision', 'install the torchvision that fits its torch'
        raise SetupError(
            f'the Python of this ROS has no {missing}, and the package index would bring another '
            f'torch, which knows no Jetson: {remedy} (README, "On a Jetson")'
        )
    try:
        import ensurepip  # noqa: F401  Debian ships venv without it
    except ImportError:
        raise SetupError(
            f'Python {version} has no venv: apt install python{version}-venv'
        ) from None
    if ros is None:
        if not any(map(shutil.which, ('c++', 'g++', 'clang++'))):
            raise SetupError('no C++ compiler for vision_msgs: apt install build-essential')
        if not (Path(sysconfig.get_path('include')) / 'Python.h').is_file():
            raise SetupError(f'no Python.h for vision_msgs: apt install python{version}-dev')


def requirements(stem: str, ros: SourcedRos | None, *, old: bool = False) -> list[str]:
    """The pins of one requirements file, as they hold beside the sourced ROS, or for old ones."""
    lines = pins(stem)
    if old:
        # PyTorch brings the CUDA that it was built with.
        older = pins('old')
        names = {line.split('==')[0] for line in older}
        kept = [x for x in lines if x.split('==')[0] not in names and not TORCH_STACK.match(x)]
        return [*older, *kept] if stem == 'runtime' else kept
    if ros is not None and ros.torch:
        lines = [line for line in lines if not TORCH_STACK.match(line)]
    if ros is not None and ros.numpy_major == 1:
        replacing = {line.split('==')[0]: line for line in pins('numpy1')}
        replaced = [line for line in lines if line.split('==')[0] not in replacing]
        if len(replaced) < len(lines):
            lines = [*replacing.values(), *replaced]
    return lines


def pins(stem: str) -> list[str]:
    """The lines of ``<stem>.txt`` that are no comments."""
    lines = (HERE / f'{stem}.txt').read_text().splitlines()
    return [line for line in lines if line and not line.startswith('#')]


def canonical_name(name: str) -> str:
    """A package's name as the index spells it."""
    return re.sub(r'[-_.]+', '-', name).lower()


def site_packages(venv: Path) -> Path:
    """The folder of a virtual environment's packages."""
    return next((venv / 'lib').glob('python3*')) / 'site-packages'


def digest(parts: Iterable[str | bytes | Path]) -> str:
    """One hash of all parts, in order; of a path it is the file's content."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            total.update(f'{part.stat().st_size}:'.encode())
            with part.open('rb') as file:
                while data := file.read(2**20):
                    total.update(data)
        else:
            data = part.encode() if isinstance(part, str) else part
            total.update(f'{len(data)}:'.encode() + data)
    return total.hexdigest()


def package_sources(checkout: Path) -> list[Path]:
    """Every file of the checkout that colcon installs, or that says how.

    No others: wheels for a board, which may lie in resource/docker, are of gigabytes.
    """
    found = [checkout / name for name in ('package.xml', 'setup.py', 'setup.cfg')]
    found.append(checkout / 'resource' / 'segnode')
    for folder in ('segnode', 'launch', 'config'):
        found += (path for path in (checkout / folder).rglob('*') if path.is_file())
    return sorted(path for path in found if path.suffix not in ('.pyc', '.so'))


@dataclass(frozen=True)
class Step:
    """One part of the set-up: skipped while its stamp holds the hash of its inputs."""

    name: str
    title: str
    inputs: Sequence[str | bytes | Path]
    action: Callable[[], None]
    remedy: str

    @property
    def key(self) -> str:
        """What the stamp holds after success."""
        return digest(self.inputs)


class Environment:
    """The virtual environment and the steps that make it."""

    def __init__(
        self,
        venv: Path,
        checkout: Path,
        ros: SourcedRos | None,
        distribution: str = DISTRIBUTIONS[0],
        lender: Environment | None = None,
        *,
        old: bool = False,
    ) -> None:
        self.venv = venv
        self.checkout = checkout
        self.ros = ros
        # Of the wheels; nothing where a ROS is sourced.
        self.distribution = distribution
        self.lender = lender
        # With the packages of JetPack 6, and without ROS.
        self.old = old
        # The interpreter itself, so that an activated .venv is never made from itself.
        self.base_python = Path(sys.executable).resolve()
        self.python = venv / 'bin' / 'python'
        self.records = venv / 'setup'
        self.build = venv / 'build'
        self.log = self.records / 'setup.log'
        self.title = ''
        # The last attempt at the current step began and did not end well.
        self.resuming = False

    def steps(self, *, test: bool, oracles: bool = False) -> list[Step]:
        """The steps in order; ``test`` adds the checkers and the oracle, ``oracles`` MMDetection.

        Those of a borrower hold for what its lender has when they are asked for.
        """
        version = '.'.join(map(str, sys.version_info[:2]))
        venv = Step(
            'venv',
            f'virtual environment with Python {version}',
            [version, str(self.base_python), str(self.venv), repr(self.ros)],
            self.make_venv,
            f'apt install python{version}-venv',
        )
        steps = [venv]
        if self.lender is None:
            steps += [
                self.pip_step('build', 'colcon and setuptools', venv),
                self.pip_step(
                    'runtime', 'torch and other packages (several GB the first time)', venv
                ),
            ]
        else:
            steps.append(
                Step(
                    'borrowed',
                    f'what {self.lender.venv.name} has besides ROS, by links',
                    [venv.key, *self.lender.lent_stamps()],
                    self.borrow,
                    f'remove {self.lender.venv} and {self.venv}, and run the same command again',
                )
            )
        if self.ros is None and not self.old:
            title = f'ROS 2 {self.distribution.capitalize()} from wheels'
            wheels = self.pip_step('ros', title, venv, f'ros-{self.distribution}')
            # By what it is built from, and not by every pin: it takes half a minute.
            numpy = [line for line in requirements('runtime', None) if line.startswith('numpy==')]
            vision_msgs = Step(
                'vision_msgs',
                'vision_msgs from its field table',
                [
                    venv.key,
                    (HERE / 'vision_msgs.json').read_bytes(),
                    *pins(f'ros-{self.distribution}'),
                    *numpy,
                ],
                self.build_vision_msgs,
                'apt install build-essential python3-dev',
            )
            steps += [wheels, vision_msgs]
        sources = package_sources(self.checkout)
        contents: list[str | Path] = [
            part for path in sources for part in (str(path.relative_to(self.checkout)), path)
        ]
        steps.append(
            Step(
                'segnode',
                'segnode by colcon',
                [venv.key, *contents],
                self.install_segnode,
                'see the lines above; is setup.py sound?',
            )
        )
        if test and self.lender is None:
            tools = self.pip_step('test', 'test tools', venv)
            oracle = Step(
                'oracle',
                'Detectron2 as an oracle for the tests',
                [venv.key, *pins('oracle')],
                self.unpack_oracle,
                NETWORK_REMEDY,
            )
            steps += [tools, oracle]
        if oracles and self.lender is None:
            steps.append(
                Step(
                    'oracles',
                    'MMDetection as an oracle, apart',
                    [venv.key, *pins('oracles')],
                    self.install_oracles,
                    NETWORK_REMEDY,
                )
            )
        return steps

    def pip_step(self, name: str, title: str, venv: Step, stem: str | None = None) -> Step:
        """A step that installs the pins of one requirements file, by default the step's own."""
        lines = requirements(stem or name, self.ros, old=self.old)

        def install() -> None:
            chosen = self.records / f'{name}.txt'
            chosen.write_text('\n'.join(lines) + '\n')
            # pip takes a package whose unpacking was interrupted for an installed one. What it
            # needs has a pin of its own, here or in a step before.
            anew = ['--ignore-installed', '--no-deps'] if self.resuming else []
            self.pip('install', *anew, '--requirement', str(chosen))

        return Step(name, title, [venv.key, *lines], install, NETWORK_REMEDY)

    def lent_stamps(self) -> list[str]:
        """What the stamps hold of the steps whose packages another environment borrows."""
        stamps = (self.records / f'{name}.stamp' for name in LENT_STEPS)
        return [stamp.read_text() for stamp in stamps if stamp.is_file()]

    def run_steps(self, steps: Sequence[Step]) -> int:
        """Runs what is not up to date; returns how many steps that was.

        Raises:
            SetupError: a step failed.
        """
        done = 0
        for step in steps:
            stamp = self.records / f'{step.name}.stamp'
            if stamp.is_file() and stamp.read_text() == step.key:
                continue
            self.log = self.records / f'{step.name}.log'
            self.resuming = self.log.is_file() and not stamp.is_file()
            stamp.unlink(missing_ok=True)
            self.log.unlink(missing_ok=True)
            self.title = f'setup: {step.title} ...'
            say(self.title, end='')
            start = time.monotonic()
            failed = f'setup: the step {step.name!r} ({step.title}) failed'
            try:
                step.action()
            except SetupError as error:
                say(' failed')
                raise SetupError(f'{failed}: {error}') from None
            except (OSError, subprocess.SubprocessError) as error:
                say(' failed')
                output = self.log.read_text(errors='replace') if self.log.is_file() else ''
                lines = [f'  | {line}' for line in output.splitlines()[-20:]]
                lines += [f'{failed}: {error}', f'setup: what to do: {step.remedy}']
                if output:
                    lines.append(f'setup: the whole output: {self.log}')
                raise SetupError('\n'.join(lines)) from None
            stamp.write_text(step.key)
            again = '\r' + self.title if sys.stdout.isatty() else ''
            say(f'{again} {time.monotonic() - start:.0f} s')
            done += 1
        return done

    def make_venv(self) -> None:
        """An empty virtual environment in place of whatever this script left there."""
        if self.venv.exists():
            if not self.records.is_dir():
                raise SetupError(f'{self.venv} was not made by this script; move it away')
            # The records last: they mark what is left after an interruption as this script's own.
            for path in self.venv.iterdir():
                if path.is_dir() and not path.is_symlink():
                    if path != self.records:
                        shutil.rmtree(path)
                else:
                    path.unlink()
        needed = NEEDED_BYTES if self.lender is None else BORROWERS_BYTES
        free = shutil.disk_usage(self.checkout).free
        if free < needed:
            raise SetupError(
                f'{needed / 1e9:.0f} GB of free disk space needed, {free // 10**8 / 10} GB found'
            )
        if self.records.exists():
            shutil.rmtree(self.records)
        self.records.mkdir(parents=True)
        (self.venv / 'COLCON_IGNORE').touch()
        (self.venv / '.gitignore').write_text('*\n')
        options = ['--system-site-packages'] if self.ros is not None else []
        options += ['--without-pip'] if self.lender is not None else []
        self.run([str(self.base_python), '-m', 'venv', *options, str(self.venv)])

    def borrow(self) -> None:
        """Links the packages of the lender's pins into a folder at the end of the import path.

        Its whole site-packages would bring its ROS along: what a distribution does not have would
        be imported from the other. A package's list of files stays behind, and without that no
        installer removes or replaces the package (PEP 627): the files are the lender's.
        """
        assert self.lender is not None
        own, lent = map(site_packages, (self.venv, self.lender.venv))
        folder = self.venv / 'borrowed'
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        pinned = {
            canonical_name(re.split('[=;]', line)[0])
            for stem in LENT_REQUIREMENTS
            for line in pins(stem)
        }
        tops: set[str] = set()
        for package in metadata.distributions(path=[str(lent)]):
            if canonical_name(package.metadata['Name']) in pinned:
                tops.update(Path(file).parts[0] for file in package.files or ())
        for top in sorted(tops - {'..', '__pycache__'}):
            if top.endswith('.dist-info'):
                (folder / top).mkdir()
                for path in (lent / top).iterdir():
                    if path.name != 'RECORD':
                        (folder / top / path.name).symlink_to(path)
            elif not top.endswith('.pth'):
                (folder / top).symlink_to(lent / top)
        (own / 'borrowed.pth').write_text(f'{folder}\n')

    def build_vision_msgs(self) -> None:
        """Generates, builds and copies vision_msgs into the prefix, and checks its type hashes.

        Raises:
            SetupError: what was generated is not wire-compatible with the published package.
        """
        table = json.loads((HERE / 'vision_msgs.json').read_text())
        base = self.build / 'vision_msgs'
        shutil.rmtree(base, ignore_errors=True)
        write_interface_package(base / 'source', 'vision_msgs', table)
        numpy_include = subprocess.run(
            [str(self.python), '-c', 'import numpy; print(numpy.get_include())'],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        point_cmake_at(self.venv / 'share', sysconfig.get_path('include'), numpy_include)
        self.colcon(
            base,
            base / 'source',
            base / 'install',
            '--cmake-args',
            '-DBUILD_TESTING=OFF',
            '-DCMAKE_BUILD_TYPE=Release',
            '-DCMAKE_UNITY_BUILD=ON',
            '-DCMAKE_INSTALL_RPATH=$ORIGIN;$ORIGIN/../../..',
            f'-DPython3_EXECUTABLE={self.python}',
        )
        for name, message in table['messages'].items():
            generated = base / 'install' / 'share' / 'vision_msgs' / 'msg' / f'{name}.json'
            hashes = json.loads(generated.read_text())['type_hashes']
            found = next(h['hash_string'] for h in hashes if h['type_name'].endswith('/' + name))
            if found != message['type_hash']:
                raise SetupError(f'vision_msgs/{name} has hash {found}, not the published one')
        for folder in ('lib', 'share'):
            shutil.copytree(base / 'install' / folder, self.venv / folder, dirs_exist_ok=True)
        shutil.rmtree(base)

    def install_segnode(self) -> None:
        """Installs the checkout and removes what an earlier install left.

        The compiled kernels are copied into the checkout, from which its commands run as well.
        """
        base = self.build / 'segnode'
        shutil.rmtree(base, ignore_errors=True)
        packages = site_packages(self.venv)
        kernels = Path('segnode', 'kernels')
        # Another interpreter's, of an environment beside this one, stay in the checkout.
        suffix = sysconfig.get_config_var('EXT_SUFFIX')
        # Where they cannot be compiled, the install goes on without them and lists them all the
        # same: those of an earlier source must not stay.
        for folder in (packages, self.checkout):
            for earlier in (folder / kernels).glob(f'_cpu{suffix}'):
                earlier.unlink()
        self.colcon(base, self.checkout, self.venv)
        record = next(base.glob('*/install.log'))
        installed = {os.path.realpath(line) for line in record.read_text().splitlines()}
        share = self.venv / 'share' / 'segnode'
        owned = (packages / 'segnode', share / 'launch', share / 'config')
        for path in (path for folder in owned for path in folder.rglob('*')):
            if (
                path.is_file()
                and path.suffix != '.pyc'
                and os.path.realpath(path) not in installed
            ):
                path.unlink()
        for built in (packages / kernels).glob('_cpu.*'):
            shutil.copy2(built, self.checkout / kernels)

    def install_oracles(self) -> None:
        """Installs MMDetection into ``mmdetection/`` of the virtual environment.

        Its tests alone look there: segnode runs, and passes all others, without it.
        """
        target = self.venv / 'mmdetection'
        shutil.rmtree(target, ignore_errors=True)
        listed = HERE / 'oracles.txt'
        self.pip('install', '--no-deps', f'--target={target}', f'--requirement={listed}')

    def unpack_oracle(self) -> None:
        """Unpacks Detectron2's Python into ``oracle/`` of the virtual environment."""
        target = self.venv / 'oracle'
        download = self.build / 'oracle'
        for folder in (target, download):
            shutil.rmtree(folder, ignore_errors=True)
        # Its setup.py imports torch, which an isolated build would not see.
        self.pip(
            'download',
            '--no-deps',
            '--no-binary=:all:',
            '--no-build-isolation',
            '--require-hashes',
            f'--dest={download}',
            f'--requirement={HERE / "oracle.txt"}',
        )
        with tarfile.open(next(download.glob('*.tar.gz'))) as archive:
            for member in archive:
                path = Path(*Path(member.name).parts[1:])
                data = archive.extractfile(member) if member.isfile() else None
                if data is None or path.parts[:1] != ('detectron2',) or '..' in path.parts:
                    continue
                (target / path).parent.mkdir(parents=True, exist_ok=True)
                (target / path).write_bytes(data.read())
        shutil.rmtree(download)

    def colcon(self, base: Path, source: Path, install: Path, *arguments: str) -> None:
        """Builds the package in ``source`` and installs it, with all by-products in ``base``."""
        self.run(
            [
                *(str(self.python), '-m', 'colcon', f'--log-base={base / "log"}', 'build'),
                *(f'--paths={source}', f'--build-base={base}', '--merge-install'),
                *(f'--install-base={install}', '--event-handlers', 'console_direct+'),
                *arguments,
            ]
        )

    def pip(self, command: str, *arguments: str) -> None:
        """Runs the virtual environment's pip."""
        self.run([str(self.python), '-m', 'pip', command, '--no-input', *arguments])

    def run(self, command: Sequence[str]) -> None:
        """Runs a command into the log of the current step; a terminal shows the seconds go by.

        Raises:
            subprocess.CalledProcessError: it did not exit with 0.
        """
        start = time.monotonic()
        with self.log.open('a') as log:
            log.write(f'$ {" ".join(command)}\n')
            log.flush()
            process = subprocess.Popen(
                command,
                cwd=self.checkout,
                env=self.variables(os.environ),
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
            with process:
                while process.poll() is None:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(timeout=1)
                    if sys.stdout.isatty():
                        say(f'\r{self.title} {time.monotonic() - start:.0f} s', end='')
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command[:4])

    def variables(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The environment of every command: the virtual environment first, nothing foreign."""
        kept = without_prefix(environ, self.venv)
        for name in ('MAKEFLAGS', 'MFLAGS', 'MAKELEVEL'):  # CMake's make is none of ours
            kept.pop(name, None)
        if self.ros is None:
            for name in (*FOREIGN_VARIABLES, 'ROS_DISTRO'):
                kept.pop(name, None)
        for name in ('AMENT_PREFIX_PATH', 'CMAKE_PREFIX_PATH'):
            kept[name] = os.pathsep.join(filter(None, [str(self.venv), kept.get(name)]))
        kept['PATH'] = f'{self.venv / "bin"}{os.pathsep}{kept.get("PATH", os.defpath)}'
        kept['VIRTUAL_ENV'] = str(self.venv)
        kept['COLCON_DEFAULTS_FILE'] = os.devnull
        kept['PIP_DISABLE_PIP_VERSION_CHECK'] = '1'
        return kept


def write_interface_package(folder: Path, name: str, table: Mapping[str, object]) -> None:
    """Writes an interface package of messages from its field table."""
    messages = table['messages']
    assert isinstance(messages, dict)
    (folder / 'msg').mkdir(parents=True)
    for message, entry in messages.items():
        (folder / 'msg' / f'{message}.msg').write_text('\n'.join(entry['fields']) + '\n')
    depends = ('geometry_msgs', 'std_msgs')
    (folder / 'package.xml').write_text(
        '<?xml version="1.0"?>\n<package format="3">\n'
        f'  <name>{name}</name>\n  <version>{table["version"]}</version>\n'
        f'  <description>Messages of {name}, generated from a field table</description>\n'
        '  <maintainer email="segnode@users.noreply.github.com">segnode</maintainer>\n'
        '  <license>Apache-2.0</license>\n'
        '  <buildtool_depend>ament_cmake</buildtool_depend>\n'
        '  <buildtool_depend>rosidl_default_generators</buildtool_depend>\n'
        + ''.join(f'  <depend>{depend}</depend>\n' for depend in depends)
        + '  <exec_depend>rosidl_default_runtime</exec_depend>\n'
        '  <member_of_group>rosidl_interface_packages</member_of_group>\n'
        '  <export><build_type>ament_cmake</build_type></export>\n</package>\n'
    )
    files = ' '.join(f'"msg/{message}.msg"' for message in messages)
    (folder / 'CMakeLists.txt').write_text(
        f'cmake_minimum_required(VERSION 3.16)\nproject({name})\n'
        'set(CMAKE_CXX_STANDARD 17)\n'
        'find_package(ament_cmake REQUIRED)\nfind_package(rosidl_default_generators REQUIRED)\n'
        + ''.join(f'find_package({depend} REQUIRED)\n' for depend in depends)
        + f'rosidl_generate_interfaces(${{PROJECT_NAME}} {files} '
        f'DEPENDENCIES {" ".join(depends)})\n'
        # Several sources at a time take half as long; these have static names in common.
        f'set_target_properties({name}__rosidl_generator_c PROPERTIES UNITY_BUILD OFF)\n'
        'ament_export_dependencies(rosidl_default_runtime)\nament_package()\n'
    )


def point_cmake_at(share: Path, python_include: str, numpy_include: str) -> None:
    """Rewrites the folders of the wheels' build machine in their exported CMake files.

    CMake refuses to generate while an imported target names an include folder that is missing.
    """
    for path in share.rglob('*.cmake'):
        text = path.read_text(errors='surrogateescape')
        if '/opt/python/' not in text:
            continue
        text = re.sub(r'/opt/python/[^;"\s]*/numpy/_?core/include', numpy_include, text)
        text = re.sub(r'/opt/python/[^;"\s]*/include/python3[\d.]*', python_include, text)
        path.write_text(text, errors='surrogateescape')


def say(text: str, end: str = '\n') -> None:
    """Prints at once."""
    sys.stdout.write(text + end)
    sys.stdout.flush()


def main(argv: Sequence[str] | None = None) -> int:
    """Sets up what is not up to date."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
    parser.add_argument('--test', action='store_true', help='add the test tools and the oracle')
    parser.add_argument('--oracles', action='store_true', help='add MMDetection, apart')
    parser.add_argument(
        '--ros',
        choices=DISTRIBUTIONS,
        default=DISTRIBUTIONS[0],
        help='distribution of the wheels, where no ROS 2 is sourced; default: %(default)s',
    )
    parser.add_argument('--old', action='store_true', help='the packages of JetPack 6, no ROS')
    parser.add_argument('--venv', type=Path, help='default: .venv, with --old .venv-old')
    arguments = parser.parse_args(argv)
    old: bool = arguments.old
    venv = (arguments.venv or CHECKOUT / ('.venv-old' if old else '.venv')).absolute()
    distribution: str = arguments.ros
    try:
        if sys.version_info < NEEDED_PYTHON:
            raise SetupError(
                f'Python 3.10 or newer needed, {platform.python_version()} found: '
                'run `make PYTHON=python3.10 ...` with a newer one'
            )
        if old and sys.version_info[:2] != NEEDED_PYTHON:
            raise SetupError(
                f'Python 3.10 needed for the packages of JetPack 6, {platform.python_version()} '
                'found: run `make test-old PYTHON=python3.10`'
            )
        python = str(Path(sys.executable).resolve())
        ros = None if old else find_sourced_ros(os.environ, python, venv)
        if ros is not None and distribution != DISTRIBUTIONS[0]:
            raise SetupError(
                f'ROS={distribution} asks for wheels, but a ROS 2 is sourced ({ros.distro}): '
                'leave it out to use that one, or use a shell without ROS'
            )
        check_machine(ros)
        lock = os.open(CHECKOUT, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say('setup: waiting for another set-up of this checkout')
            fcntl.flock(lock, fcntl.LOCK_EX)
        environment = Environment(venv, CHECKOUT, ros, old=old)
        steps = environment.steps(test=arguments.test, oracles=arguments.oracles)
        done = 0
        if distribution != DISTRIBUTIONS[0] and not old:
            done += environment.run_steps([step for step in steps if step.name in LENT_STEPS])
            venv = venv.with_name(f'{venv.name}-{distribution}')
            environment = Environment(venv, CHECKOUT, ros, distribution, lender=environment)
            steps = environment.steps(test=arguments.test)
        done += environment.run_steps(steps)
    except SetupError as error:
        sys.stderr.write(f'{error}\n')
        return 1
    except KeyboardInterrupt:
        sys.stderr.write('\nsetup: interrupted; run the same command again to go on\n')
        return 130
    source = (
        f'{distribution.capitalize()} from wheels' if ros is None else f'{ros.distro}, as sourced'
    )
    source = 'without ROS' if old else f'ROS 2 {source}'
    say(f'setup: {venv} is {"ready" if done else "up to date"} ({source})')
    return 0


if __name__ == '__main__':
    sys.exit(main())
