# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The node's process: signals, the thread that serves the node, and the exit code."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from segnode.errors import ConfigError

if TYPE_CHECKING:
    from segnode.ros.segmentation_node import SegmentationNode

SPIN_S = 0.2
LEAVE_S = 1.0
FINISH_FRAME_S = 5.0


def main(args: Sequence[str]) -> int:
    """Run the node until SIGINT or SIGTERM.

    Signals set an event and nothing else, so that they never interrupt a library half way; the
    main thread waits for it while another one loads the model and serves the callbacks.

    Args:
        args: ROS arguments, without the program's name.

    Returns:
        2 on wrong use. Otherwise the process ends here: with 0 after a signal, 1 after a fatal
        fault.
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: stop.set())

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

    server = _Server(stop)
    server.start()
    stop.wait()
    server.join(LEAVE_S)
    if not server.is_alive() and server.node is not None and server.node.close(FINISH_FRAME_S):
        server.node.destroy_node()
        rclpy.shutdown()
        # The middleware lets go of its shared memory (64 MB) with the last reference to the node.
        server.node = None
        gc.collect()
    # The interpreter does not go through its own end: with torch that takes seconds, more than
    # ros2 launch is patient for, and under a thread that still loads a model it aborts.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1 if server.failed else 0)


class _Server(threading.Thread):
    """Makes the node and runs its callbacks until ``stop`` is set; a fatal fault sets it, too."""

    def __init__(self, stop: threading.Event) -> None:
        super().__init__(name='server', daemon=True)
        self._stop_event = stop
        self.node: SegmentationNode | None = None
        self.failed = False

    def run(self) -> None:
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.logging import get_logger

        try:
            from segnode.ros.segmentation_node import SegmentationNode

            self.node = SegmentationNode(self._fail)
            executor = SingleThreadedExecutor()
            executor.add_node(self.node)
            while not self._stop_event.is_set():
                executor.spin_once(timeout_sec=SPIN_S)
        except ConfigError as error:
            get_logger('segnode').fatal(str(error))
        except ImportError as error:
            get_logger('segnode').fatal(f'{error}; "segnode doctor" says what to install')
        finally:
            if not self._stop_event.is_set():
                self._fail()

    def _fail(self) -> None:
        self.failed = True
        self._stop_event.set()
