# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The node's process: signals, the executor's thread, and the exit code."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence

SPIN_S = 0.5
LEAVE_S = 1.0
FINISH_FRAME_S = 5.0


def main(args: Sequence[str]) -> int:
    """Run the node until SIGINT or SIGTERM.

    Signals set an event and nothing else, so that they never interrupt a library half way: the
    main thread waits for it while another one loads the model and serves the callbacks. ROS is
    imported after that, since a signal may come at any time.

    Args:
        args: ROS arguments, without the program's name.

    Returns:
        1 after a fatal fault at the start, 2 on wrong use. Once the node runs, the process ends
        here: with 0 after a signal, 1 after a fatal fault.
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: stop.set())

    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.logging import get_logger
    from rclpy.signals import SignalHandlerOptions
    from rclpy.utilities import remove_ros_args

    from segnode.errors import ConfigError
    from segnode.ros.segmentation_node import SegmentationNode

    log = get_logger('segnode')
    try:
        rclpy.init(args=list(args), signal_handler_options=SignalHandlerOptions.NO)
    except (RuntimeError, ValueError) as error:
        log.fatal(f'wrong ROS arguments: {_one_line(error)}')
        return 2
    surplus = remove_ros_args(list(args))
    if surplus:
        log.fatal(f'expected ROS arguments after --ros-args, found {" ".join(surplus)}')
        return 2

    failed = threading.Event()

    def fail() -> None:
        failed.set()
        stop.set()

    try:
        node = SegmentationNode(fail)
    except ConfigError as error:
        log.fatal(str(error))
        return 1
    executor = SingleThreadedExecutor()
    executor.add_node(node)

    def spin() -> None:
        try:
            while not stop.is_set():
                executor.spin_once(timeout_sec=SPIN_S)
        finally:
            if not stop.is_set():
                fail()

    spinner = threading.Thread(target=spin, daemon=True)
    spinner.start()
    stop.wait()
    executor.wake()
    spinner.join(LEAVE_S)
    if not spinner.is_alive() and node.close(FINISH_FRAME_S):
        node.destroy_node()
        rclpy.shutdown()
    # The interpreter does not go through its own end: with torch that takes seconds, more than
    # ros2 launch is patient for, and under a thread that still loads a model it aborts.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1 if failed.is_set() else 0)


def _one_line(error: Exception) -> str:
    return ' '.join(str(error).split())
