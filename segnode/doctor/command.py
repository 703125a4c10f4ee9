# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""``segnode doctor``: what this machine has and lacks, and what to do about it."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from segnode.cli import Parser, add_config_options, config_from, say
from segnode.config import Config
from segnode.doctor.board import board_findings, no_torch, read_torch
from segnode.doctor.finding import Finding
from segnode.doctor.network import fetched_weights, limits, run_model
from segnode.errors import ConfigError, DeviceError, SegnodeError
from segnode.hardware.board import read_board
from segnode.output_files import Inputs, check_writable, is_own_json, write_json
from segnode.ros import security
from segnode.ros_distribution import profile_variable
from segnode.shipped import shipped_file

MIN_PYTHON = (3, 10)
MIN_SHARED_MEMORY = 256 * 2**20
"""Room for the 64 MB segments of a camera, a node and two subscribers."""
UDP_BUFFER = 4 * 2**20
"""What the shipped Fast DDS profile asks for; the kernel silently gives less."""
PROBE_TIMEOUT_S = 60.0

# vision_msgs 4: the hash covers the messages inside as well.
DETECTIONS_HASH = 'RIHS01_214274120007f4a683866481336b70310268cfa107aebe9d594a6acf75bda968'

_EXAMPLES = """\
  segnode doctor
  segnode doctor --model config.yaml --weights model_final.pth --device cuda:0
  segnode doctor --json doctor.json

Every line says ok, warn or FAIL, and what to do. The exit code is 0 when nothing fails. ROS is
needed by the node and the demo only.
"""

_OWN_JSON = r'\[\{"level": "(?:ok|warn|FAIL)", "name": "'


def main(args: Sequence[str]) -> int:
    """Run the command; return 0 when nothing fails, else 1."""
    parser = Parser('doctor', 'Check this machine, and say what to do.', _EXAMPLES)
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the findings')
    add_config_options(parser)
    options = parser.parse_args(args)
    config = config_from(options)
    check_writable(options.json, Inputs.of(config), is_own_json(_OWN_JSON))
    findings = []
    for finding in examine(config):
        findings.append(finding)
        say(finding.line())
        sys.stdout.flush()
    counts = Counter(finding.level for finding in findings)
    if options.json is not None:
        write_json(options.json, [asdict(finding) for finding in findings])
    say(f'doctor: ok={counts["ok"]} warn={counts["warn"]} fail={counts["FAIL"]}')
    return 1 if counts['FAIL'] else 0


def examine(config: Config) -> Iterator[Finding]:
    """Yield all findings, the quick ones first."""
    yield python_version()
    board = read_board()  # Before PyTorch takes of its memory.
    yield from packages(on_board=board is not None)
    if board is not None:
        yield from board_findings(board, read_torch())
    yield from old_torch(config)
    yield from device(config)
    yield from hardware(config)
    yield from kernels()
    yield from ros()
    yield from transport()
    found, network = run_model(config)
    yield found
    yield from fetched_weights(config)
    yield from limits(config, network, board)


def python_version() -> Finding:
    """Check the interpreter."""
    found = f'{platform.python_version()}, {platform.machine()}, {sys.executable}'
    if sys.version_info < MIN_PYTHON:
        return Finding('FAIL', 'Python', found, 'install Python 3.10 or newer')
    return Finding('ok', 'Python', found)


def packages(*, on_board: bool = False) -> Iterator[Finding]:
    """Check that the libraries can be imported, and that torch and torchvision fit."""
    versions, missing = [], []
    for name in ('numpy', 'cv2', 'PIL', 'yaml', 'pycocotools', 'safetensors', 'tqdm'):
        try:
            module = importlib.import_module(name)
            versions.append(f'{name} {getattr(module, "__version__", "")}'.strip())
        except (ImportError, OSError) as error:
            missing.append(f'{name} ({error})')
    if missing:
        yield Finding(
            'FAIL',
            'libraries',
            ', '.join(missing),
            'run `make setup` or pip install; without a network see "A robot without a network" '
            'in the README',
        )
    else:
        yield Finding('ok', 'libraries', ', '.join(versions))
    try:
        import torch
        import torchvision

        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        remedy = 'install torch and torchvision of one release together'
        yield Finding('FAIL', 'torch', str(error), no_torch(str(error)) if on_board else remedy)
    else:
        yield Finding('ok', 'torch', f'{torch.__version__}, torchvision {torchvision.__version__}')


def old_torch(config: Config) -> Iterator[Finding]:
    """Say what this PyTorch is too old for."""
    try:
        from segnode.engine.device import select_device
        from segnode.torch_features import check_torch, missing_features

        check_torch()
        on_gpu = select_device(config.device).type == 'cuda'
        missing = missing_features('cuda', 'graphs') if on_gpu else missing_features('cpu')
    except DeviceError as error:
        yield Finding('FAIL', 'torch', str(error), 'install a newer PyTorch, or choose a device')
        return
    except (ImportError, OSError, SegnodeError):
        return  # Said of torch or of the device.
    for feature in missing:
        remedy = f'{feature.remedy()}; nothing else is lost'
        yield Finding('warn', 'torch', feature.line(), remedy)


def device(config: Config) -> Iterator[Finding]:
    """Check that the device is there and computes."""
    try:
        import torch

        from segnode.engine.device import select_device

        chosen = select_device(config.device)
        torch.ones(64, 64, device=chosen).matmul(torch.ones(64, 64, device=chosen)).sum().item()
    except (ImportError, OSError, RuntimeError, SegnodeError) as error:
        yield Finding('FAIL', 'device', str(error), 'choose another --device, or mend the driver')
        return
    if chosen.type == 'cuda':
        gpu = torch.cuda.get_device_properties(chosen)
        yield Finding(
            'ok',
            'device',
            f'{chosen}: {gpu.name}, {gpu.total_memory / 2**30:.1f} GiB, compute capability '
            f'{gpu.major}.{gpu.minor}, CUDA {torch.version.cuda}',
        )
        return
    found = f'{chosen}, {torch.get_num_threads()} threads'
    if config.device == 'auto' and any(
        Path(path).exists() for path in ('/dev/nvidia0', '/dev/nvhost-ctrl', '/dev/kfd')
    ):
        yield Finding(
            'warn',
            'device',
            f'{found}, though this machine has a GPU',
            f'install a PyTorch build for it (this one has CUDA {torch.version.cuda}); on a '
            'Jetson take the wheel for your JetPack',
        )
    else:
        yield Finding('ok', 'device', found)


def hardware(config: Config) -> Iterator[Finding]:
    """Say what the machine tells of its temperatures and power, and whether it is slowed down."""
    try:
        from segnode.engine.device import gpu_uuid, select_device
        from segnode.hardware.monitor import read_once

        reading = read_once(gpu_uuid(select_device(config.device)))
    except (ImportError, OSError, RuntimeError, SegnodeError):
        return  # Said of the device already.
    found = ', '.join(f'{key} {text}' for key, text in reading.texts().items())
    if warning := reading.warning():
        yield Finding('warn', 'hardware', found, warning)
    elif found:
        yield Finding('ok', 'hardware', found)


def kernels() -> Iterator[Finding]:
    """Check that the compiled steps of a CPU are there."""
    try:
        from segnode.kernels.cpu import CpuKernels, load_cpu_kernels

        found = load_cpu_kernels()
    except (ImportError, OSError):
        return  # Said of torch already.
    if isinstance(found, CpuKernels):
        yield Finding('ok', 'CPU kernels', 'compiled')
    else:
        yield Finding(
            'warn',
            'CPU kernels',
            f'{found}; on a CPU resize, RoIAlign and paste take several times as long',
            'install a C compiler (apt install build-essential) and build again: `make setup`, '
            'or colcon build',
        )


def ros() -> Iterator[Finding]:
    """Check ROS and the message packages, in a process of its own."""
    if importlib.util.find_spec('rclpy') is None:
        yield Finding(
            'warn',
            'ROS',
            'not found; predict works, the node and the demo need it',
            'source a ROS 2 installation, or run `make setup` and use .venv/bin/python',
        )
        return
    try:
        security.check_variables()
        probe = subprocess.run(
            [sys.executable, '-m', 'segnode.ros.doctor_probe'],
            capture_output=True,
            text=True,
            timeout=PROBE_TIMEOUT_S,
            env={**os.environ, 'PYTHONPATH': os.pathsep.join([_package_root(), *_python_path()])},
            check=True,
        )
        answer = json.loads(probe.stdout.strip().splitlines()[-1])
    except ConfigError as error:
        yield Finding('FAIL', 'ROS', str(error), 'set the variables of SROS 2 as the README says')
        return
    except subprocess.CalledProcessError as error:
        if refusal := security.refusal(' '.join(error.stderr.split())):
            yield Finding('FAIL', 'ROS', refusal, 'the node ends so, too')
            return
        last = (error.stderr.strip().splitlines() or ['no message'])[-1]
        yield Finding('FAIL', 'ROS', f'rclpy does not start: {last}', 'mend the ROS installation')
        return
    except (subprocess.TimeoutExpired, json.JSONDecodeError, IndexError) as error:
        yield Finding(
            'FAIL', 'ROS', f'rclpy does not answer ({error})', 'check the network set-up'
        )
        return
    errors, rmw = answer['errors'], answer['rmw']
    distribution = answer['distro'].capitalize() or 'a distribution that is not known here'
    yield Finding('ok', 'ROS', f'{distribution}, rclpy {answer["rclpy"]}, {rmw}')
    if 'fastrtps' not in rmw:
        yield Finding(
            'warn',
            'middleware',
            f'{rmw}; the shipped profile for big images is for Fast DDS',
            'give it buffers of several images, or set RMW_IMPLEMENTATION=rmw_fastrtps_cpp',
        )
    needed = {name: text for name, text in errors.items() if name != 'cv_bridge'}
    for name, text in needed.items():
        distro = answer['distro'] or '<distro>'
        package = name.replace('_', '-')
        yield Finding('FAIL', name, text, f'sudo apt install ros-{distro}-{package}')
    if not needed:
        more = '' if 'cv_bridge' in errors else ', and cv_bridge for rarer encodings'
        yield Finding('ok', 'messages', f'sensor_msgs, diagnostic_msgs, vision_msgs{more}')
    hashed = answer['type_hashes'].get('vision_msgs/Detection2DArray')
    if hashed not in (None, DETECTIONS_HASH):
        yield Finding(
            'FAIL',
            'vision_msgs',
            f'Detection2DArray has type hash {hashed}, which other machines do not understand',
            'install vision_msgs 4, or run `make setup` again',
        )


def _package_root() -> str:
    return str(Path(__file__).resolve().parents[2])


def _python_path() -> list[str]:
    return [path for path in os.environ.get('PYTHONPATH', '').split(os.pathsep) if path]


def transport() -> Iterator[Finding]:
    """Check that the middleware has room for images."""
    variable = profile_variable()
    given = os.environ.get(variable)
    shipped = shipped_file('config/fastdds.xml')
    if not given:
        yield Finding(
            'warn',
            'DDS profile',
            'not set; the launch file sets it for the node, and best-effort images get lost '
            'where the camera runs without it',
            f'export {variable}={shipped} where the camera starts',
        )
    elif not Path(given).is_file():
        yield Finding('FAIL', 'DDS profile', f'{given} is missing', f'take {shipped}')
    else:
        yield Finding('ok', 'DDS profile', given)
    if os.environ.get('FASTDDS_BUILTIN_TRANSPORTS', 'DEFAULT') != 'DEFAULT':
        yield Finding(
            'warn',
            'DDS transports',
            f'FASTDDS_BUILTIN_TRANSPORTS={os.environ["FASTDDS_BUILTIN_TRANSPORTS"]} cuts off '
            'whoever has not the same',
            'unset it and use the profile',
        )
    shared = Path('/dev/shm')
    if shared.is_dir():
        free = shutil.disk_usage(shared).free
        found = f'{free / 2**20:.0f} MB free in {shared}'
        if free < MIN_SHARED_MEMORY:
            yield Finding(
                'warn',
                'shared memory',
                f'{found}, images need {MIN_SHARED_MEMORY / 2**20:.0f} MB',
                'remove old fastdds_* and fastrtps_* files there; start a container with '
                '--ipc=host or --shm-size=1g',
            )
        else:
            yield Finding('ok', 'shared memory', found)
    limit = Path('/proc/sys/net/core/rmem_max')
    if limit.is_file():
        size = int(limit.read_text(encoding='ascii'))
        found = f'UDP receive buffers of up to {size / 2**20:.1f} MB'
        if size < UDP_BUFFER:
            yield Finding(
                'warn',
                'socket buffers',
                f'{found}; images from other machines get lost',
                f'sudo sysctl -w net.core.rmem_max={UDP_BUFFER}',
            )
        else:
            yield Finding('ok', 'socket buffers', found)
