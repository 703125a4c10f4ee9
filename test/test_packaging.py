# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What colcon installs, what the core imports, and the set-up of the virtual environment."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

import segnode
from segnode.__main__ import COMMANDS
from segnode.ros_distribution import ros_distribution

CHECKOUT = Path(__file__).resolve().parents[1]
ENVIRONMENT = CHECKOUT / 'resource' / 'environment'
DISTRIBUTIONS = ('kilted', 'jazzy')
REQUIREMENTS = ('build', 'runtime', 'test', *(f'ros-{name}' for name in DISTRIBUTIONS))
ROS_PACKAGES = [
    'ament_index_python',
    'builtin_interfaces',
    'cv_bridge',
    'diagnostic_msgs',
    'geometry_msgs',
    'lifecycle_msgs',
    'rcl_interfaces',
    'rclpy',
    'rosbag2_py',
    'sensor_msgs',
    'std_msgs',
    'vision_msgs',
]


@pytest.fixture(scope='module')
def setup() -> ModuleType:
    """The set-up script as a module."""
    path = ENVIRONMENT / 'setup_environment.py'
    spec = importlib.util.spec_from_file_location('setup_environment', path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def package_files(folder: Path) -> dict[str, bytes]:
    """The files of an installed or checked-out package by their path in it.

    What is compiled only has to be there: it is not the same in every folder that it is built in.
    """
    return {
        str(path.relative_to(folder)): b'' if path.suffix == '.so' else path.read_bytes()
        for path in folder.rglob('*')
        if '__pycache__' not in path.parts and path.is_file()
    }


def test_versions_agree() -> None:
    manifest = ElementTree.parse(CHECKOUT / 'package.xml').getroot()
    declared = re.findall(r"version='([^']+)'", (CHECKOUT / 'setup.py').read_text())
    assert declared == [segnode.__version__] == [manifest.findtext('version')]


def test_extras_allow_what_is_tested() -> None:
    call = ast.parse((CHECKOUT / 'setup.py').read_text()).body[-1]
    assert isinstance(call, ast.Expr)
    assert isinstance(call.value, ast.Call)
    given = {keyword.arg: keyword.value for keyword in call.value.keywords}
    extras = ast.literal_eval(given['extras_require'])
    pinned: dict[str, list[str]] = {}
    for line in (CHECKOUT / 'resource' / 'environment' / 'test.txt').read_text().splitlines():
        if found := re.match(r'([\w-]+)==([\w.]+)', line):
            pinned.setdefault(found[1], []).append(found[2])
    for text in (*extras['export'], *extras['onnxruntime'], *extras['openvino']):
        bounds = Requirement(text)
        assert {each.operator for each in bounds.specifier} == {'>=', '<'}, text
        assert all(version in bounds.specifier for version in pinned[bounds.name]), text


def test_installed_copy_is_the_checkout() -> None:
    installed = package_files(Path(sysconfig.get_path('purelib')) / 'segnode')
    expected = package_files(CHECKOUT / 'segnode')
    assert {n for n in installed if installed[n] != expected.get(n)} == set(), 'run `make setup`'
    assert expected.keys() - installed.keys() == set(), 'run `make setup`; is it in package_data?'


@pytest.mark.parametrize('folder', ['launch', 'config'])
def test_shared_files_are_installed(folder: str) -> None:
    installed = package_files(Path(sys.prefix) / 'share' / 'segnode' / folder)
    assert installed == package_files(CHECKOUT / folder)
    assert installed


def test_each_command_has_a_script() -> None:
    scripts = Path(sys.prefix) / 'lib' / 'segnode'
    assert {path.name for path in scripts.iterdir()} == set(COMMANDS)
    run = subprocess.run(
        [scripts / 'predict', '--help'], capture_output=True, text=True, env={}, check=False
    )
    assert run.returncode == 0, run.stderr
    assert 'predict' in run.stdout


def test_core_imports_no_ros() -> None:
    modules = [
        '.'.join(path.relative_to(CHECKOUT).with_suffix('').parts).removesuffix('.__init__')
        for path in sorted((CHECKOUT / 'segnode').rglob('*.py'))
        if path.relative_to(CHECKOUT).parts[1] != 'ros'
    ]
    assert 'segnode.engine' in modules
    code = (
        f'import importlib, sys\nfor name in {modules}: importlib.import_module(name)\n'
        'print(*{name.partition(".")[0] for name in sys.modules})'
    )
    run = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, cwd=CHECKOUT, check=False
    )
    assert run.returncode == 0, run.stderr
    loaded = set(run.stdout.split())
    assert 'segnode' in loaded
    assert loaded.intersection(ROS_PACKAGES) == set()


@pytest.mark.parametrize('options', [[], ['--symlink-install']])
def test_colcon_builds_in_an_ordinary_workspace(options: list[str], tmp_path: Path) -> None:
    (tmp_path / 'src').mkdir()
    (tmp_path / 'src' / 'segnode').symlink_to(CHECKOUT)
    before = set(CHECKOUT.iterdir())
    variables = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    build = subprocess.run(
        [sys.executable, '-m', 'colcon', 'build', *options],
        cwd=tmp_path,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert build.returncode == 0, build.stdout + build.stderr
    assert set(CHECKOUT.iterdir()) == before
    prefix = tmp_path / 'install' / 'segnode'
    for folder in ('launch', 'config'):
        assert package_files(prefix / 'share' / 'segnode' / folder) == package_files(
            CHECKOUT / folder
        )
    assert (prefix / 'share/ament_index/resource_index/packages/segnode').is_file()
    assert {path.name for path in (prefix / 'lib' / 'segnode').iterdir()} == set(COMMANDS)
    where = subprocess.run(
        [
            'bash',
            '-c',
            '. install/setup.bash && python -c "import segnode; print(segnode.__file__)"',
        ],
        cwd=tmp_path,
        env=variables | {'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}'},
        capture_output=True,
        text=True,
        check=True,
    )
    found = Path(where.stdout.strip())
    assert found.is_relative_to(tmp_path)
    assert package_files(found.parent) == package_files(CHECKOUT / 'segnode')


@pytest.mark.parametrize('stem', [*REQUIREMENTS, 'numpy1', 'old', 'oracles'])
def test_every_requirement_is_pinned(setup: ModuleType, stem: str) -> None:
    lines = setup.pins(stem)
    assert [line for line in lines if not re.match(r'[a-z0-9-]+==[0-9][^;* ]*(;|$)', line)] == []


@pytest.mark.parametrize('distribution', DISTRIBUTIONS)
def test_no_package_is_pinned_twice_differently(setup: ModuleType, distribution: str) -> None:
    pins: dict[tuple[str, str], set[str]] = {}
    for stem in ('build', 'runtime', 'test', f'ros-{distribution}'):
        for line in setup.pins(stem):
            pin, _, marker = line.partition(';')
            name, _, version = pin.partition('==')
            pins.setdefault((name, marker), set()).add(version)
    assert {key: versions for key, versions in pins.items() if len(versions) > 1} == {}
    assert not {name for name, marker in pins if marker} & {n for n, m in pins if not m}


@pytest.fixture
def sourced(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Makes a prefix with empty packages; returns the variables of a shell that sourced it."""

    def make(*packages: str, distro: str = 'jazzy', numpy: str | None = None) -> dict[str, str]:
        for name in packages:
            (tmp_path / 'ros' / name).mkdir(parents=True)
            (tmp_path / 'ros' / name / '__init__.py').touch()
        if numpy is not None:
            (tmp_path / 'ros' / 'numpy.py').write_text(f'__version__ = {numpy!r}\n')
        prefix = str(tmp_path / 'ros')
        return {'ROS_DISTRO': distro, 'AMENT_PREFIX_PATH': prefix, 'PYTHONPATH': prefix}

    return make


def base_python() -> str:
    """An interpreter that sees none of this virtual environment's packages."""
    return str(Path(sys.executable).resolve())


def test_no_ros_is_sourced(setup: ModuleType, tmp_path: Path) -> None:
    venv = tmp_path / '.venv'
    own = {'AMENT_PREFIX_PATH': str(venv), 'PYTHONPATH': f'{venv}/lib/python3/site-packages'}
    assert setup.find_sourced_ros({}, base_python(), venv) is None
    assert setup.find_sourced_ros(own, base_python(), venv) is None


def test_sourced_ros_is_found(setup: ModuleType, sourced: Callable[..., dict[str, str]]) -> None:
    variables = sourced('rclpy', 'vision_msgs', distro='humble', numpy='1.21.5')
    ros = setup.find_sourced_ros(variables, base_python())
    assert ros == setup.SourcedRos(
        'humble', numpy_major=1, vision_msgs=True, torch=False, torchvision=False
    )


def test_sourced_ros_of_another_python_is_refused(
    setup: ModuleType, sourced: Callable[..., dict[str, str]]
) -> None:
    with pytest.raises(setup.SetupError, match=r'jazzy.*rclpy.*make PYTHON=/usr/bin/python3'):
        setup.find_sourced_ros(sourced('vision_msgs'), base_python())


def ros(setup: ModuleType, **fields: object) -> object:
    known = {'distro': 'jazzy', 'numpy_major': 1, 'vision_msgs': True}
    return setup.SourcedRos(**(known | {'torch': False, 'torchvision': False} | fields))


def test_the_torch_of_a_board_is_never_replaced(
    setup: ModuleType,
    sourced: Callable[..., dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    half = setup.find_sourced_ros(sourced('rclpy', 'vision_msgs', 'torch'), base_python())
    with pytest.raises(setup.SetupError, match='install the torchvision that fits its torch'):
        setup.check_machine(half)
    setup.check_machine(ros(setup, torch=True, torchvision=True))
    monkeypatch.setattr(setup, 'JETSON_RELEASE', tmp_path / 'release')
    setup.check_machine(ros(setup), 'aarch64')
    (tmp_path / 'release').touch()
    with pytest.raises(setup.SetupError, match='install the torch and torchvision of your Jet'):
        setup.check_machine(ros(setup), 'aarch64')
    setup.check_machine(ros(setup, torch=True, torchvision=True), 'aarch64')


def test_machine_is_checked(setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    setup.check_machine(None, 'x86_64')
    setup.check_machine(ros(setup), 'aarch64')
    with pytest.raises(setup.SetupError, match=r'x86_64 only.* aarch64: install ROS 2'):
        setup.check_machine(None, 'aarch64')
    with pytest.raises(setup.SetupError, match='apt install ros-jazzy-vision-msgs'):
        setup.check_machine(ros(setup, vision_msgs=False), 'x86_64')
    monkeypatch.setattr(shutil, 'which', lambda name: None)
    setup.check_machine(ros(setup), 'x86_64')
    with pytest.raises(setup.SetupError, match='apt install build-essential'):
        setup.check_machine(None, 'x86_64')


def test_requirements_fit_the_sourced_ros(setup: ModuleType) -> None:
    def names(**fields: object) -> list[str]:
        return [
            line.partition(';')[0] for line in setup.requirements('runtime', ros(setup, **fields))
        ]

    assert setup.requirements('runtime', None) == setup.pins('runtime')
    assert names(numpy_major=2) == [pin.partition(';')[0] for pin in setup.pins('runtime')]
    for pin in setup.pins('numpy1'):
        name = pin.partition('==')[0]
        assert [line for line in names() if line.startswith(f'{name}==')] == [pin]
    assert {'torch', 'nvidia-cublas'} <= {name.partition('==')[0] for name in names()}
    assert not [
        n for n in names(torch=True) if n.startswith(('torch', 'nvidia', 'cuda', 'triton'))
    ]
    assert setup.requirements('test', ros(setup)) == setup.pins('test')


def test_steps_beside_a_sourced_ros(setup: ModuleType, tmp_path: Path) -> None:
    def steps(found: object, **options: bool) -> list[str]:
        environment = setup.Environment(tmp_path, CHECKOUT, found)
        return [step.name for step in environment.steps(**{'test': False, **options})]

    assert steps(None) == ['venv', 'build', 'runtime', 'ros', 'vision_msgs', 'segnode']
    assert steps(ros(setup)) == ['venv', 'build', 'runtime', 'segnode']
    assert steps(ros(setup), test=True) == [*steps(ros(setup)), 'test', 'oracle']
    assert steps(None, oracles=True) == [*steps(None), 'oracles']


def test_steps_of_a_borrower(setup: ModuleType, tmp_path: Path) -> None:
    lender = setup.Environment(tmp_path / 'lender', CHECKOUT, None)
    borrower = setup.Environment(tmp_path / 'own', CHECKOUT, None, 'jazzy', lender)

    def keys() -> dict[str, str]:
        return {step.name: step.key for step in borrower.steps(test=True)}

    before = keys()
    assert list(before) == ['venv', 'borrowed', 'ros', 'vision_msgs', 'segnode']
    lender.records.mkdir(parents=True)
    (lender.records / 'runtime.stamp').write_text('another torch')
    assert {name for name, key in keys().items() if key != before[name]} == {'borrowed'}


def write_package(folder: Path, name: str, version: str, *modules: str) -> None:
    """Writes what pip leaves of a package with empty modules."""
    files = [f'{module}/__init__.py' for module in modules]
    info = f'{name.replace("-", "_")}-{version}.dist-info'
    for file in (*files, f'{info}/METADATA', f'{info}/RECORD'):
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).touch()
    (folder / info / 'METADATA').write_text(
        f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n'
    )
    record = [*files, f'{info}/METADATA', f'{info}/RECORD', '../../../bin/tool', f'{name}.pth']
    (folder / info / 'RECORD').write_text(''.join(f'{file},,\n' for file in record))
    (folder / f'{name}.pth').write_text('import sys; sys.exit("of the lender")\n')


def test_everything_but_ros_is_borrowed(setup: ModuleType, tmp_path: Path) -> None:
    lender = setup.Environment(tmp_path / 'lender', CHECKOUT, None)
    borrower = setup.Environment(tmp_path / 'own', CHECKOUT, None, 'jazzy', lender)
    subprocess.run([base_python(), '-m', 'venv', '--without-pip', lender.venv], check=True)
    lent = setup.site_packages(lender.venv)
    write_package(lent, 'fvcore', '0.1.5', 'fvcore')
    write_package(lent, 'PyYAML', '6.0.3', 'yaml', '_yaml')
    write_package(lent, 'ros-rclpy', '9.1.2', 'rclpy', 'rmw_security_common')
    write_package(lent, 'stray', '1.0', 'stray')
    lender.records.mkdir()
    for name in ('first', 'second'):  # again, over what is there
        (lender.records / 'runtime.stamp').write_text(name)
        assert borrower.run_steps(borrower.steps(test=True)[:2]) >= 1
    write_package(setup.site_packages(borrower.venv), 'ros-rclpy', '7.1.6', 'rclpy')
    (setup.site_packages(borrower.venv) / 'ros-rclpy.pth').unlink()
    code = (
        'import json, sys; from importlib import metadata, util\n'
        'names = ("fvcore", "yaml", "_yaml", "rclpy", "rmw_security_common", "stray", "pip")\n'
        'found = {name: getattr(util.find_spec(name), "origin", None) for name in names}\n'
        'files = metadata.files("pyyaml")\n'
        'print(json.dumps([found, metadata.version("pyyaml"), files, sys.path[-2:]]))'
    )
    run = subprocess.run([borrower.python, '-Ic', code], capture_output=True, check=True)
    found, version, files, path = json.loads(run.stdout)
    own, borrowed = str(setup.site_packages(borrower.venv)), str(borrower.venv / 'borrowed')
    assert path == [own, borrowed]
    assert {name: file and file.rsplit('/', 2)[0] for name, file in found.items()} == {
        'fvcore': borrowed,
        'yaml': borrowed,
        '_yaml': borrowed,
        'rclpy': own,
        'rmw_security_common': None,
        'stray': None,
        'pip': None,
    }
    # Without a list of its files no installer would remove the lender's package.
    assert (version, files) == ('6.0.3', None)
    assert (lent / 'PyYAML-6.0.3.dist-info' / 'RECORD').is_file()


@pytest.mark.ros
@pytest.mark.smoke
def test_ros_is_of_this_prefix_alone() -> None:
    prefixes = [sys.prefix, *filter(None, os.environ.get('AMENT_PREFIX_PATH', '').split(':'))]
    origins = {name: importlib.util.find_spec(name) for name in ROS_PACKAGES}
    found = {name: Path(spec.origin) for name, spec in origins.items() if spec and spec.origin}
    assert {'rclpy', 'sensor_msgs', 'vision_msgs'} <= found.keys()
    strays = {n: p for n, p in found.items() if not any(map(p.is_relative_to, prefixes))}
    assert strays == {}
    assert len([d for d in metadata.distributions() if d.metadata['Name'] == 'rclpy']) == 1
    if sys.prefix == str(CHECKOUT / '.venv-jazzy'):
        assert ros_distribution() == 'jazzy'
        assert importlib.util.find_spec('fastdds') is None


def make(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {'PATH': os.environ['PATH'], **variables}
    return subprocess.run(
        ['make', *arguments],
        cwd=CHECKOUT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize('distribution', ['humble', '', 'kilted jazzy'])
def test_make_knows_two_distributions(distribution: str) -> None:
    run = make('setup', f'ROS={distribution}')
    assert run.returncode == 2
    assert run.stdout == ''
    (line,) = run.stderr.splitlines()
    assert f'ROS={distribution}: expected kilted or jazzy' in line


def test_make_test_of_each_distribution() -> None:
    kilted, jazzy = (make('-n', 'test', f'ROS={name}').stdout for name in DISTRIBUTIONS)
    assert make('-n', 'test', ROS='noetic').stdout == kilted
    core, nodes, timed = (
        kilted.index(f'.venv/bin/python -m pytest -m {which}')
        for which in ("'not (ros or timed)'", "'ros and not timed'", 'timed')
    )
    assert core < nodes < timed < kilted.index('--ros jazzy --test')
    assert '.venv-jazzy/bin/python -m pytest -m smoke' in kilted
    assert '.venv-jazzy/bin/python -m pytest -m ros' in jazzy
    own = f'{CHECKOUT}/.venv:{CHECKOUT}/.venv-jazzy'
    assert make('-n', 'test', AMENT_PREFIX_PATH=own).stdout == kilted


@pytest.mark.parametrize('variable', ['ROS_DISTRO', 'AMENT_PREFIX_PATH'])
def test_smoke_is_skipped_beside_a_sourced_ros(variable: str) -> None:
    run = make('smoke', **{variable: '/opt/ros/humble'})
    assert (run.returncode, run.stderr) == (0, '')
    assert run.stdout == 'smoke: Jazzy from wheels is skipped, as a ROS 2 is sourced\n'


def test_wheels_are_not_mixed_with_a_sourced_ros(
    setup: ModuleType,
    sourced: Callable[..., dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in sourced('rclpy', 'vision_msgs', distro='humble').items():
        monkeypatch.setenv(name, value)
    assert setup.main(['--ros', 'jazzy']) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('ROS=jazzy asks for wheels, but a ROS 2 is sourced (humble): ')


def test_commands_see_nothing_foreign(setup: ModuleType, tmp_path: Path) -> None:
    environ = {'PATH': '/bin', 'ROS_DISTRO': 'x', 'PYTHONPATH': f'/ros:{tmp_path}/lib'}
    bare = setup.Environment(tmp_path, CHECKOUT, None).variables(environ)
    assert 'PYTHONPATH' not in bare
    assert 'ROS_DISTRO' not in bare
    assert bare['PATH'] == f'{tmp_path}/bin:/bin'
    assert bare['AMENT_PREFIX_PATH'] == bare['CMAKE_PREFIX_PATH'] == str(tmp_path)
    beside = setup.Environment(tmp_path, CHECKOUT, ros(setup)).variables(environ)
    assert beside['PYTHONPATH'] == '/ros'
    assert beside['ROS_DISTRO'] == 'x'


def test_step_runs_once_for_the_same_inputs(setup: ModuleType, tmp_path: Path) -> None:
    environment = setup.Environment(tmp_path, CHECKOUT, None)
    environment.records.mkdir()
    ran: list[str] = []
    for inputs in ('ab', 'ab', 'ac', 'ac', 'xc'):
        steps = [
            setup.Step(name, name, [given], lambda name=name: ran.append(name), '')
            for name, given in zip(('one', 'two'), inputs, strict=True)
        ]
        environment.run_steps(steps)
        ran.append('|')
    assert ' '.join(ran) == 'one two | | two | | one |'


def test_failed_step_says_what_to_do_and_runs_again(setup: ModuleType, tmp_path: Path) -> None:
    environment = setup.Environment(tmp_path, CHECKOUT, None)
    environment.records.mkdir()
    script = 'import sys; print(*range(100), sep="\\n"); sys.exit(sys.argv[1])'

    def step(*arguments: str) -> list[object]:
        def action() -> None:
            environment.run([sys.executable, '-c', script, *arguments])

        return [setup.Step('wheels', 'The wheels', ['same'], action, 'check the network')]

    with pytest.raises(setup.SetupError) as raised:
        environment.run_steps(step('no route'))
    lines = str(raised.value).splitlines()
    assert lines[:20] == [*(f'  | {number}' for number in range(81, 100)), '  | no route']
    assert "'wheels' (The wheels) failed" in lines[20]
    assert lines[21] == 'setup: what to do: check the network'
    assert Path(lines[22].rpartition(' ')[2]).read_text().count('\n') == 102
    resuming = []
    for inputs in ('same', 'same', 'other'):
        note = setup.Step(
            'wheels', '', [inputs], lambda: resuming.append(environment.resuming), ''
        )
        environment.run_steps([note])
    assert resuming == [True, False]


def test_foreign_folder_is_left_alone(setup: ModuleType, tmp_path: Path) -> None:
    (tmp_path / 'precious').touch()
    with pytest.raises(setup.SetupError, match='not made by this script; move it away'):
        setup.Environment(tmp_path, CHECKOUT, None).make_venv()
    assert (tmp_path / 'precious').is_file()


def test_half_made_environment_is_made_anew(
    setup: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = setup.Environment(tmp_path, CHECKOUT, None)
    for name in ('setup', 'lib/rest'):
        (tmp_path / name).mkdir(parents=True)
    usage = shutil.disk_usage(tmp_path)
    free = setup.NEEDED_BYTES - 1
    monkeypatch.setattr(shutil, 'disk_usage', lambda _: usage._replace(free=free))
    with pytest.raises(setup.SetupError, match=r'9 GB of free disk .* 8\.9 GB found'):
        environment.run_steps(environment.steps(test=False)[:1])
    # Refused, the folder is still known for its own when there is room.
    free = setup.NEEDED_BYTES
    environment.run_steps(environment.steps(test=False)[:1])
    assert not (tmp_path / 'lib' / 'rest').exists()
    assert (tmp_path / 'COLCON_IGNORE').is_file()
    assert (
        subprocess.run([environment.python, '-m', 'pip', '--version'], check=False).returncode == 0
    )


def test_cmake_folders_are_rewritten(setup: ModuleType, tmp_path: Path) -> None:
    numpy = '/opt/python/cp310-cp310/lib/python3.10/site-packages/numpy/_core/include'
    path = tmp_path / 'x' / 'export.cmake'
    path.parent.mkdir()
    path.write_text(f'A "/opt/python/cp310-cp310/include/python3.10;{numpy};/usr/include"\n')
    setup.point_cmake_at(tmp_path, '/here/include', '/here/numpy')
    assert path.read_text() == 'A "/here/include;/here/numpy;/usr/include"\n'


def test_old_python_is_refused(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(setup, 'NEEDED_PYTHON', (4, 0))
    assert setup.main([]) == 1
    assert 'make PYTHON=' in capsys.readouterr().err
