# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The SROS 2 policy of a node: all that it may publish, subscribe and answer, and no more.

There is no list of topics here. The node itself is made as its arguments ask for, offers and
subscribes whatever it ever does, and is asked what it has.

The format is that of sros2's ``policy.xsd``, version 0.2.0.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import rclpy
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo

from segnode.config import Config
from segnode.engine import Engine
from segnode.output_files import write_whole
from segnode.ros.camera_info import camera_info_topic
from segnode.ros.node import SegmentationNode
from segnode.ros.security import POLICY_HEAD

VERSION = '0.2.0'
CLOSE_S = 2.0


def write_policy(path: Path) -> None:
    """Write the policy of the node that this process's ROS arguments describe.

    Raises:
        ConfigError: a parameter does not fit.
        OutputError: the file cannot be written.
    """
    node = SegmentationNode(lambda: None)
    # Its name is not that of the node's arguments.
    witness = rclpy.create_node('segnode_policy', use_global_arguments=False)
    try:
        _open_all(node, witness)
        write_whole(path, policy(node, witness).encode())
    finally:
        node.close(CLOSE_S)
        witness.destroy_node()
        node.destroy_node()


def policy(node: SegmentationNode, witness: Node) -> str:
    """Return the policy that allows what a node has now.

    Args:
        node: which is not spun.
        witness: another node of the same context, which is asked.
    """
    name, namespace = node.get_name(), node.get_namespace()
    (enclave,) = (
        path
        for found, space, path in witness.get_node_names_and_namespaces_with_enclaves()
        if (found, space) == (name, namespace)
    )
    root = ET.Element('policy', version=VERSION)
    profiles = ET.SubElement(
        ET.SubElement(ET.SubElement(root, 'enclaves'), 'enclave', path=enclave), 'profiles'
    )
    profile = ET.SubElement(profiles, 'profile', ns=namespace, node=name)
    ask: tuple[tuple[str, str, Callable[..., list[tuple[str, list[str]]]]], ...] = (
        ('service', 'reply', witness.get_service_names_and_types_by_node),
        ('service', 'request', witness.get_client_names_and_types_by_node),
        ('topic', 'publish', witness.get_publisher_names_and_types_by_node),
        ('topic', 'subscribe', witness.get_subscriber_names_and_types_by_node),
    )
    for kind, right, names_and_types in ask:
        names = sorted(found for found, _ in names_and_types(name, namespace))
        if names:
            rule = ET.SubElement(profile, f'{kind}s', {right: 'ALLOW'})
            for found in names:
                ET.SubElement(rule, kind).text = found
    ET.indent(root)
    return f'{POLICY_HEAD}{ET.tostring(root, encoding="unicode")}\n'


def _open_all(node: SegmentationNode, witness: Node) -> None:
    """Let a node have everything that it may ever have, whatever its model."""
    engine = Engine(Config().replace({'model': 'null'}))
    for camera in node.cameras:
        camera.offer(engine)
        camera.subscribe(lambda _: None)
        # The node passes on what a camera has.
        assert camera.input is not None
        info = node.resolve_topic_name(camera_info_topic(camera.input.base_topic))
        witness.create_publisher(CameraInfo, info, 1)
        camera.follow_publishers()
    # An operator may set it while the node runs.
    node.set_parameters([Parameter('use_sim_time', value=True)])
