# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Containers, units and the lists for other machines: nothing of it can run here, all is read."""

from __future__ import annotations

import configparser
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

CHECKOUT = Path(__file__).resolve().parents[1]
DOCKER, SYSTEMD = CHECKOUT / 'resource/docker', CHECKOUT / 'resource/systemd'
DOCKERFILES = ('Dockerfile', 'Dockerfile.jetson')
UNITS = ('segnode.service', 'jetson-clocks.service')


def tool(name: str) -> str:
    """Of the virtual environment or the system; skips without it."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']])
    found = shutil.which(name, path=places)
    if found is None:
        pytest.skip(f'needs {name}')
    return found


@pytest.mark.parametrize('name', DOCKERFILES)
def test_dockerfiles_are_linted(name: str) -> None:
    run = subprocess.run(
        [tool('hadolint'), str(DOCKER / name)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout


def test_a_lint_can_fail(tmp_path: Path) -> None:
    (tmp_path / 'Dockerfile').write_text('FROM ubuntu\nRUN apt-get install curl\n')
    run = subprocess.run(
        [tool('hadolint'), str(tmp_path / 'Dockerfile')],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode != 0


@pytest.mark.parametrize('name', DOCKERFILES)
def test_dockerfiles_name_what_there_is(name: str) -> None:
    text = (DOCKER / name).read_text(encoding='utf-8')
    assert 'not built yet' in text
    for source in re.findall(r'(?m)^COPY (\S+) ', text):
        assert (CHECKOUT / source).exists()
    (entrypoint,) = re.findall(r'ENTRYPOINT \["/ws/src/segnode/(\S+)"\]', text)
    assert os.access(CHECKOUT / entrypoint, os.X_OK)
    subprocess.run(['bash', '-n', str(CHECKOUT / entrypoint)], check=True)
    (profile,) = re.findall(r'share/segnode/(config/\S+)', text)
    assert (CHECKOUT / profile).is_file()
    assert 'make setup PYTHON=' in text


def test_the_compose_example() -> None:
    services = yaml.safe_load((DOCKER / 'compose.yaml').read_text(encoding='utf-8'))['services']
    assert services['pc']['ipc'] == services['jetson']['ipc'] == 'host'
    assert services['jetson']['runtime'] == 'nvidia'
    (device,) = services['pc']['deploy']['resources']['reservations']['devices']
    assert device['capabilities'] == ['gpu']
    assert services['alone']['shm_size'] == '1gb'
    mounted = dict(volume.split(':')[:2] for volume in services['jetson']['volumes'])
    assert mounted['/sys/firmware/devicetree/base'] == '/run/device-tree'
    for path in ('/etc/nv_tegra_release', '/etc/nvpmodel.conf', '/var/lib/nvpmodel'):
        assert mounted[path] == path
    # BuildKit, which compose has, builds without the runtime.
    assert 'build' not in services['jetson']
    head = (DOCKER / 'Dockerfile.jetson').read_text(encoding='utf-8')
    assert '#   DOCKER_BUILDKIT=0 docker build -f ' in head
    assert f' -t {services["jetson"]["image"]} .' in head
    launch = (CHECKOUT / 'launch/seg.launch.py').read_text(encoding='utf-8')
    for service in services.values():
        volume, *_ = service['volumes']
        weights = re.fullmatch(r'\$\{SEGNODE_WEIGHTS:-(\S+)\}:/weights', volume)
        assert weights is not None
        assert (DOCKER / weights[1]).resolve() == CHECKOUT / 'weights'
        assert 'config/fastdds.xml' in service['environment']['FASTRTPS_DEFAULT_PROFILES_FILE']
        for argument in re.findall(r'(\w+):=', service['command']):
            assert f"'{argument}'" in launch
        if 'build' in service:
            assert (CHECKOUT / service['build']['dockerfile']).is_file()
            assert (DOCKER / service['build']['context']).resolve() == CHECKOUT


def test_the_readme_installs_on_a_jetson_what_its_image_has() -> None:
    image = (DOCKER / 'Dockerfile.jetson').read_text(encoding='utf-8')
    readme = (CHECKOUT / 'README.md').read_text(encoding='utf-8').partition('## On a Jetson')[2]
    (installed,) = re.findall(r'(?m)^sudo apt install (python3-.*\\\n.*)$', readme)
    packages = {'python3-venv', 'python3-dev', 'python3-pip', 'build-essential', 'libopenblas0'}
    assert packages | {'ros-humble-ros-base', 'ros-humble-vision-msgs'} <= {*installed.split()}
    assert packages <= {*image.split()}


@pytest.mark.parametrize('name', ['weights', 'exported', 'wheels'])
def test_what_is_carried_to_a_robot_is_in_no_commit_and_no_image(name: str) -> None:
    assert f'/{name}/' in (CHECKOUT / '.gitignore').read_text(encoding='utf-8').splitlines()
    # Docker's patterns are of the checkout's own folders: resource/docker/wheels goes in.
    assert name in (CHECKOUT / '.dockerignore').read_text(encoding='utf-8').splitlines()


@pytest.mark.parametrize('name', UNITS)
def test_units(name: str) -> None:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(SYSTEMD / name)
    assert {'Unit', 'Service', 'Install'} == set(parser.sections())
    assert parser['Install']['WantedBy'] == 'multi-user.target'
    run = subprocess.run(
        [tool('systemd-analyze'), 'verify', str(SYSTEMD / name)],
        capture_output=True,
        text=True,
        check=False,
    )
    # That its program is missing here is no fault of the file.
    wrong = [x for x in run.stderr.splitlines() if name in x and 'not executable' not in x]
    assert wrong == []


def test_the_unit_of_the_node_ends_it_as_it_ends() -> None:
    text = (SYSTEMD / 'segnode.service').read_text(encoding='utf-8')
    assert 'KillSignal=SIGINT' in text
    assert 'RestartPreventExitStatus=2' in text
    assert 'lib/segnode/node --ros-args' in text
    assert 'After=network.target ' in text
    assert 'enable-linger' in text


def loaded(name: str) -> ModuleType:
    path = CHECKOUT / f'resource/environment/{name}.py'
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # Its dataclasses look for it.
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def aarch64() -> ModuleType:
    return loaded('aarch64')


@pytest.fixture(scope='module')
def setup() -> ModuleType:
    return loaded('setup_environment')


@pytest.mark.parametrize('version', ['3.10', '3.12'])
def test_pins_of_a_python(aarch64: ModuleType, version: str) -> None:
    found = aarch64.pins(version, 'build', 'runtime', 'test')
    names = [aarch64.name_of(pin) for pin in found]
    assert len(names) == len(set(names))
    assert ('tomli' in names) == (version == '3.10')
    assert {'torch', 'numpy', 'pytest'} <= set(names)


def test_the_record_is_of_all_lists(aarch64: ModuleType) -> None:
    text = aarch64.RECORD.read_text(encoding='utf-8')
    assert re.search(r'on 20\d\d-\d\d-\d\d', text)
    for version in aarch64.PYTHONS:
        for stem in aarch64.STEMS:
            assert f'| {stem} | {version} |' in text
            row = next(x for x in text.splitlines() if x.startswith(f'| {stem} | {version} |'))
            assert row.endswith('| - |'), f'no package of {stem} may be missing'


def test_older_packages_take_the_place_of_pinned_ones(setup: ModuleType) -> None:
    lines = setup.requirements('runtime', None, old=True)
    names = [line.split('==')[0] for line in lines]
    assert {'torch==2.5.1', 'numpy==1.26.4'} <= set(lines)
    assert names.count('torch') == names.count('numpy') == 1
    assert not [name for name in names if name.startswith(('nvidia-', 'cuda-'))]
    test = setup.requirements('test', None, old=True)
    assert not {'torch==2.5.1'} & set(test)


def test_set_up_looks_at_what_colcon_installs_alone(setup: ModuleType, tmp_path: Path) -> None:
    found = {str(path.relative_to(CHECKOUT)) for path in setup.package_sources(CHECKOUT)}
    assert {'setup.py', 'resource/segnode', 'segnode/kernels/cpu.c', 'config/seg.yaml'} <= found
    assert {path for path in found if path.startswith('resource/')} == {'resource/segnode'}
    file = tmp_path / 'file'
    digests = set()
    for content in (b'', b'a', b'b', b'a' * (2**20 + 1)):
        file.write_bytes(content)
        assert setup.digest(['x', file]) == setup.digest(['x', content])
        digests.add(setup.digest(['x', file]))
    assert len(digests) == 4
