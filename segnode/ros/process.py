# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The node's process: ROS arguments, signals, the thread that serves the node, the exit code."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segnode.errors import CheckpointError, ConfigError, FetchError
from segnode.heap import share_arenas
from segnode.output_files import Inputs, check_writable
from segnode.ros import security
from segnode.ros_distribution import ros_distribution
from segnode.shipped import shipped_file

if TYPE_CHECKING:
    from segnode.ros.node import SegmentationNode
    from segnode.ros.parameters import ParameterFile

SPIN_S = 0.2
# For the frames that are under way; whoever sent a signal is patient for some seconds.
FINISH_S = 2.0

FAULT = 1
WRONG_USE = 2
"""What restarting cannot mend; the launch file has it, too."""

HIGHEST_DOMAIN = 232
"""Above it the ports that DDS derives from the domain would not be ports any more."""


def main(args: Sequence[str]) -> int:
    """Run the node until SIGINT or SIGTERM.

    A signal leaves a byte in a pipe and nothing else, so that it never interrupts a library half
    way; the main thread waits for it while another one makes the node and serves the callbacks.
    Setting an event would take a lock, on which a second signal in the handler would wait forever.

    The shipped ``config/seg.yaml`` comes before the arguments, so that theirs win.

    Args:
        args: ROS arguments, without the program's name; before them ``--sros2-policy FILE`` to
            write that and end.

    Returns:
        ``WRONG_USE``, or 0 after a policy was written. Otherwise the process ends here: with 0
        after a signal, ``WRONG_USE`` after a fault that restarting cannot mend, ``FAULT`` after
        another.

    Raises:
        ConfigError: the environment keeps rclpy from being imported, or the policy cannot be had.
        OutputError: the policy cannot be written.
    """
    if args[:1] == ['--sros2-policy']:
        return _write_policy(list(args[1:]))
    # OpenMP's threads wait for each other hundreds of times a frame. Spinning is a little faster
    # on idle cores; beside a busy process it takes the time that the awaited thread needs.
    os.environ.setdefault('OMP_WAIT_POLICY', 'passive')
    share_arenas()
    signalled, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: None)

    _check_environment()
    # A signal may come at any time: imports wait until it is taken care of.
    import rclpy
    from rclpy.logging import get_logger

    log = get_logger('segnode')
    try:
        files = _start_ros(list(args))
    except ConfigError as error:
        log.fatal(str(error))
        return WRONG_USE

    server = _Server(wake, files)
    server.start()
    os.read(signalled, 1)
    server.stop.set()
    try:
        if server.uses_middleware.is_set():
            server.leave()
            rclpy.shutdown()
    except Exception:  # noqa: BLE001 - it ends in any case
        log.error(f'while the node was ended:\n{traceback.format_exc()}')
    finally:
        # The interpreter does not go through its own end: with torch that takes seconds, more
        # than ros2 launch is patient for, and under a thread that still loads a model it aborts.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(server.exit_code)


def _write_policy(args: list[str]) -> int:
    """Write the node's SROS 2 policy in place of running it."""
    if not args or args[0].startswith('--'):
        raise ConfigError('--sros2-policy: expected a file to write, then ROS arguments')
    # Nobody else shall see this node, and it needs no keys, which are made from the policy.
    os.environ.pop('ROS_LOCALHOST_ONLY', None)
    os.environ |= {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'OFF', 'ROS_SECURITY_ENABLE': 'false'}
    _check_environment()
    import rclpy
    from rclpy.exceptions import ParameterException

    path, files = Path(args[0]), _start_ros(args[1:])
    try:
        check_writable(path, Inputs(Path(file.path) for file in files), security.is_own_policy)
        from segnode.ros.permissions import write_policy

        write_policy(path)
    except ParameterException as error:
        raise ConfigError(_parameter_remedy(error)) from None
    finally:
        rclpy.shutdown()
    return 0


def _parameter_remedy(error: Exception) -> str:
    # rclpy's own parameters, such as use_sim_time, it declares before the node's.
    text = ' '.join(str(error).split())
    return f'{text}; in YAML true, false and numbers have no quotes, texts may have'


def _check_environment() -> None:
    """Refuse what rclpy ends the process for, or blames on something else.

    Raises:
        ConfigError: a variable of ROS has an unusable value.
    """
    domain = os.environ.get('ROS_DOMAIN_ID') or '0'
    if not re.fullmatch('[0-9]{1,3}', domain) or int(domain) > HIGHEST_DOMAIN:
        raise ConfigError(f'ROS_DOMAIN_ID: expected 0 to {HIGHEST_DOMAIN}, found {domain!r}')
    wanted = os.environ.get('RMW_IMPLEMENTATION')
    prefixes = [*os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep), sys.prefix]
    index = 'share/ament_index/resource_index/rmw_typesupport'
    installed = {path.name for each in prefixes if each for path in Path(each, index).glob('*')}
    installed.discard('rmw_implementation')  # It chooses among them.
    if wanted and installed and wanted not in installed:
        package = f'ros-{ros_distribution() or "DISTRO"}-{wanted.replace("_", "-")}'
        raise ConfigError(
            f'RMW_IMPLEMENTATION: expected what is installed ({", ".join(sorted(installed))}), '
            f'found {wanted}; unset it, or install {wanted} (apt install {package})'
        )
    security.check_variables()


def _start_ros(args: list[str]) -> list[ParameterFile]:
    """Initialise rclpy and return the parameter files that the arguments name.

    Raises:
        ConfigError: wrong arguments, a parameter file that cannot be read, no place for logs.
    """
    import rclpy
    from rclpy.signals import SignalHandlerOptions
    from rclpy.utilities import remove_ros_args

    from segnode.ros.parameters import cause, parameter_files

    files = parameter_files(args)
    shipped = ['--ros-args', '--params-file', str(shipped_file('config/seg.yaml')), '--']
    try:
        rclpy.init(args=[*shipped, *args], signal_handler_options=SignalHandlerOptions.NO)
    except (RuntimeError, ValueError) as error:
        text = cause(error)
        if 'initialize logging' in text:
            raise ConfigError(
                f'expected a folder for log files, found none ({text}); set ROS_LOG_DIR to one '
                'that can be written to'
            ) from None
        if refusal := security.refusal(text):
            raise ConfigError(refusal) from None
        raise ConfigError(f'wrong ROS arguments: {text}') from None
    surplus = remove_ros_args(args)
    if surplus:
        raise ConfigError(f'expected ROS arguments after --ros-args, found {" ".join(surplus)}')
    return files


class _Server(threading.Thread):
    """Makes the node and runs its callbacks; a fatal fault wakes the main thread as a signal does.

    Attributes:
        stop: ends it.
        uses_middleware: set before the node is made, which is not done once ``stop`` is set.
        node: None until it is made.
        exit_code: of the process; 0 until something fails.
    """

    def __init__(self, wake: int, files: list[ParameterFile]) -> None:
        super().__init__(name='server', daemon=True)
        self._wake = wake
        self._files = files
        self.stop = threading.Event()
        self.uses_middleware = threading.Event()
        self.node: SegmentationNode | None = None
        self.exit_code = 0

    def run(self) -> None:
        from rclpy.exceptions import InvalidHandle, ParameterException
        from rclpy.executors import MultiThreadedExecutor
        from rclpy.logging import get_logger

        from segnode.ros.parameters import cause

        log = get_logger('segnode')
        code = FAULT
        try:
            from segnode.ros.node import SegmentationNode

            self.uses_middleware.set()
            if self.stop.is_set():
                return
            self.node = SegmentationNode(self._fail)
            for file in self._files:
                if warning := file.warning(self.node.get_fully_qualified_name()):
                    log.warning(warning)
            if warning := security.warning(self._enclave()):
                log.warning(warning)
            # A transition, a question about it, and whatever else comes.
            executor = MultiThreadedExecutor(num_threads=3)
            executor.add_node(self.node)
            while not self.stop.is_set():
                # A transition may take away what the executor is about to wait for.
                with contextlib.suppress(InvalidHandle):
                    executor.spin_once(timeout_sec=SPIN_S)
            # Its own shutdown takes away first what its threads still need to end.
            executor._executor.shutdown()
            executor.shutdown()
        except ConfigError as error:
            code = WRONG_USE
            log.fatal(str(error))
        except ParameterException as error:
            code = WRONG_USE
            log.fatal(_parameter_remedy(error))
        except ImportError as error:
            code = WRONG_USE
            log.fatal(f'{error}; "segnode doctor" says what to install')
        except Exception as error:  # noqa: BLE001 - the process may end before Python tells
            refusal = security.refusal(cause(error))
            code = WRONG_USE if refusal else FAULT
            log.fatal(refusal or traceback.format_exc())
        finally:
            if not self.stop.is_set():
                self._end(code)

    def _enclave(self) -> str:
        assert self.node is not None
        own = self.node.get_name(), self.node.get_namespace()
        nodes = self.node.get_node_names_and_namespaces_with_enclaves()
        return next((enclave for *name, enclave in nodes if tuple(name) == own), '/')

    def leave(self) -> None:
        """End the node, so that the middleware says goodbye and gives its memory back."""
        end_s = time.monotonic() + FINISH_S

        def rest_s() -> float:
            return max(0.0, end_s - time.monotonic())

        if self.node is not None:
            self.node.close(rest_s())
        self.join(rest_s())
        # Once more, as the thread may have made the node, or started its worker, meanwhile.
        if self.node is None or self.is_alive() or not self.node.close(rest_s()):
            return
        self.node.destroy_node()
        # Its shared memory (64 MB) goes with the last reference to the node.
        self.node = None
        gc.collect()

    def _fail(self) -> None:
        fault = self.node.fault if self.node is not None else None
        # A server may answer later what it does not now.
        final = isinstance(fault, ConfigError | CheckpointError)
        self._end(WRONG_USE if final and not isinstance(fault, FetchError) else FAULT)

    def _end(self, code: int) -> None:
        self.exit_code = self.exit_code or code  # What came first is what went wrong.
        os.write(self._wake, b'\0')
