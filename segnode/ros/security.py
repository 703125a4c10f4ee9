# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""SROS 2: whether it is asked for, whether the node has it, and the file of a policy.

rcl reads its variables letter by letter, takes a misspelt one for "off", and by default runs
without protection where keys are missing; none of that is said by anybody. Imports nothing of ROS.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from segnode.errors import ConfigError

POLICY_HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<!-- Written by segnode. It replaces this file when it is written again: edit a copy. -->\n'
)

_ENABLE, _STRATEGY, _KEYSTORE = (
    f'ROS_SECURITY_{name}' for name in ('ENABLE', 'STRATEGY', 'KEYSTORE')
)
# What the DDS plugins ask for in an enclave; keys and certificates may be references (.p11), too.
_FILES = (
    'identity_ca.cert.*',
    'cert.*',
    'key.*',
    'permissions_ca.cert.*',
    'governance.p7s',
    'permissions.p7s',
)
_OFF = f'unset {_ENABLE}'
_MAKE = 'make it by ros2 security create_keystore and create_enclave'


def is_enabled() -> bool:
    """Return whether the environment asks for SROS 2, as rcl reads it."""
    return os.environ.get(_ENABLE) == 'true'


def check_variables() -> None:
    """Refuse what rcl would take for "off" or "permissive", or fail on without a reason.

    Raises:
        ConfigError: a variable's value, or one that is missing.
    """
    enable, strategy = os.environ.get(_ENABLE, ''), os.environ.get(_STRATEGY, '')
    if enable not in ('', 'true', 'false'):
        raise ConfigError(f'{_ENABLE}: expected true or false, found {enable!r}')
    if not is_enabled():
        return
    if strategy not in ('', 'Enforce', 'Permissive'):
        raise ConfigError(f'{_STRATEGY}: expected Enforce or Permissive, found {strategy!r}')
    if strategy == 'Enforce' and not os.environ.get(_KEYSTORE):
        raise ConfigError(f'{_KEYSTORE}: expected a folder, found it unset; {_MAKE}, or {_OFF}')
    # rclpy's word on its own tidying up, after a node that cannot be made.
    warnings.filterwarnings('ignore', 'Failed to fini rosout publisher', RuntimeWarning)


def refusal(text: str) -> str:
    """Return in one line why a context or a node cannot be made; empty for another reason.

    Args:
        text: what rclpy says.
    """
    if not is_enabled():
        return ''
    if 'SECURITY ERROR: ' in text:
        found = text.partition('SECURITY ERROR: ')[2].rstrip('. ')
        return f'{_KEYSTORE}: expected one with the enclave of this node: {found}; {_MAKE}'
    if "doesn't have the security libraries" in text:
        return (
            f'{_ENABLE}: expected a middleware with its security plugin, found Fast DDS without '
            f'(as the Python wheels of ROS have it); take the ROS of apt, or {_OFF}'
        )
    if 'error creating node' in text:
        return (
            f'{_ENABLE}: expected keys that the middleware takes in {os.environ.get(_KEYSTORE)}, '
            f'found: {text.partition("error creating node: ")[2]}'
        )
    return ''


def warning(enclave: str) -> str:
    """Return that a node runs without the protection that was asked for; empty where it has it.

    Args:
        enclave: of the node, as the graph has it.
    """
    if not is_enabled():
        return ''
    enclave = os.environ.get('ROS_SECURITY_ENCLAVE_OVERRIDE') or enclave
    keystore = os.environ.get(_KEYSTORE, '')
    folder = Path(keystore, 'enclaves', enclave.strip('/'))
    if not keystore:
        missing = f'{_KEYSTORE} is not set'
    elif not folder.is_dir():
        missing = f'{folder} does not exist'
    else:
        absent = [pattern for pattern in _FILES if not any(folder.glob(pattern))]
        if not absent:
            return ''
        missing = f'{folder} has no {", ".join(absent)}'
    return (
        f'{_ENABLE} is true and this node runs WITHOUT protection: {missing}; {_MAKE}, and set '
        f'{_STRATEGY}=Enforce, which never runs so'
    )


def is_own_policy(path: Path) -> bool:
    """Return whether a file is a policy that segnode has written."""
    with path.open('rb') as file:
        return file.read(len(POLICY_HEAD)) == POLICY_HEAD.encode()
