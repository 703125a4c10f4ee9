# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The node's process: signals, the thread that serves the node, and the exit code."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING

from segnode.errors import ConfigError

if TYPE_CHECKING:
    from segnode.ros.node import SegmentationNode

SPIN_S = 0.2
FINISH_FRAME_S = 5.0


def main(args: Sequence[str]) -> int:
    """Run the node until SIGINT or SIGTERM.

    A signal leaves a byte in a pipe and nothing else, so that it never interrupts a library half
    way; the main thread waits for it while another one makes the node and serves the callbacks.
    Setting an event would take a lock, on which a second signal in the handler would wait forever.

    Args:
        args: ROS arguments, without the program's name.

    Returns:
        2 on wrong use. Otherwise the process ends here: with 0 after a signal, 1 after a fatal
        fault.
    """
    # OpenMP's threads wait for each other hundreds of times a frame. Spinning is a little faster
    # on idle cores; beside a busy process it takes the time that the awaited thread needs.
    os.environ.setdefault('OMP_WAIT_POLICY', 'passive')
    signalled, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: None)

    # A signal may come at any time: imports wait until it is taken care of.
    import rclpy
    from rclpy.logging import get_logger
    from rclpy.signals import SignalHandlerOptions
    from rclpy.utilities import remove_ros_args

    log = get_logger('segnode')
    try:
        rclpy.init(args=list(args), signal_handler_options=SignalHandlerOptions.NO)
    except (RuntimeError, ValueError) as error:
        log.fatal(f'wrong ROS arguments: {" ".join(str(error).split())}')
        return 2
    surplus = remove_ros_args(list(args))
    if surplus:
        log.fatal(f'expected ROS arguments after --ros-args, found {" ".join(surplus)}')
        return 2

    server = _Server(wake)
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
        os._exit(1 if server.failed else 0)


class _Server(threading.Thread):
    """Makes the node and runs its callbacks; a fatal fault wakes the main thread as a signal does.

    Attributes:
        stop: ends it.
        uses_middleware: set before the node is made, which is not done once ``stop`` is set.
        node: None until it is made.
        failed: the process is to end with a fault.
    """

    def __init__(self, wake: int) -> None:
        super().__init__(name='server', daemon=True)
        self._wake = wake
        self.stop = threading.Event()
        self.uses_middleware = threading.Event()
        self.node: SegmentationNode | None = None
        self.failed = False

    def run(self) -> None:
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.logging import get_logger

        try:
            from segnode.ros.node import SegmentationNode

            self.uses_middleware.set()
            if self.stop.is_set():
                return
            self.node = SegmentationNode(self._fail)
            executor = SingleThreadedExecutor()
            executor.add_node(self.node)
            while not self.stop.is_set():
                executor.spin_once(timeout_sec=SPIN_S)
        except ConfigError as error:
            get_logger('segnode').fatal(str(error))
        except ImportError as error:
            get_logger('segnode').fatal(f'{error}; "segnode doctor" says what to install')
        except Exception:  # noqa: BLE001 - the process may end before Python tells of a thread's
            get_logger('segnode').fatal(traceback.format_exc())
        finally:
            if not self.stop.is_set():
                self._fail()

    def leave(self) -> None:
        """End the node, so that the middleware says goodbye and gives its memory back."""
        if self.node is not None:
            self.node.close(FINISH_FRAME_S)
        self.join(FINISH_FRAME_S)
        # Once more, as the thread may have made the node, or started its worker, meanwhile.
        if self.node is None or self.is_alive() or not self.node.close(FINISH_FRAME_S):
            return
        self.node.destroy_node()
        # Its shared memory (64 MB) goes with the last reference to the node.
        self.node = None
        gc.collect()

    def _fail(self) -> None:
        self.failed = True
        os.write(self._wake, b'\0')
