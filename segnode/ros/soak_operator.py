# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The operator's part of the soak's watcher: parameters and transitions of the node."""

from __future__ import annotations

import threading
from typing import Any

from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import GetParameters, SetParametersAtomically
from rclpy.node import Node
from rclpy.parameter import Parameter, parameter_value_to_python

from segnode.ros.demo_camera import report


class Operator:
    """Calls the node's services and tells what they answered.

    A request ``{"id": N, "do": "set" | "get" | "transition" | "state", ...}`` is answered by the
    event ``reply`` with that ``id``: ``answered``, and with it ``ok``, ``reason`` or ``value``.
    """

    def __init__(self, node: Node, source: str) -> None:
        """Make the clients; another thread has to serve ``node``'s callbacks."""
        # One client a service for good: requests to a node that was started again find it, too.
        self._clients = {
            'set': node.create_client(
                SetParametersAtomically, f'{source}/set_parameters_atomically'
            ),
            'get': node.create_client(GetParameters, f'{source}/get_parameters'),
            'transition': node.create_client(ChangeState, f'{source}/change_state'),
            'state': node.create_client(GetState, f'{source}/get_state'),
        }

    def do(self, request: dict[str, Any]) -> None:
        """Carry out one request, and report what came of it."""
        client = self._clients[request['do']]
        patience_s = request['patience_s']
        came = threading.Event()
        if not client.wait_for_service(patience_s):
            report('reply', id=request['id'], answered=False)
            return
        future = client.call_async(_message(request))
        future.add_done_callback(lambda _future: came.set())
        if not came.wait(patience_s):
            client.remove_pending_request(future)
            report('reply', id=request['id'], answered=False)
            return
        reply = _reply(request['do'], future.result())
        report('reply', id=request['id'], answered=True, **reply)


def _message(request: dict[str, Any]) -> Any:
    if request['do'] == 'set':
        parameters = [Parameter(name, value=value) for name, value in request['changes']]
        return SetParametersAtomically.Request(
            parameters=[parameter.to_parameter_msg() for parameter in parameters]
        )
    if request['do'] == 'get':
        return GetParameters.Request(names=request['names'])
    if request['do'] == 'transition':
        message = ChangeState.Request()
        message.transition.label = request['label']
        message.transition.id = request['transition_id']
        return message
    return GetState.Request()


def _reply(what: str, response: Any) -> dict[str, Any]:
    if what == 'set':
        return {'ok': response.result.successful, 'reason': response.result.reason}
    if what == 'get':
        values = [parameter_value_to_python(value) for value in response.values]
        return {'ok': True, 'value': values}
    if what == 'transition':
        return {'ok': response.success}
    return {'ok': True, 'value': response.current_state.label}
