# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Where the files are that come with segnode but not inside its Python package."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from segnode.errors import ConfigError


def shipped_file(name: str) -> Path:
    """Return the path of a file of the checkout or of the installed share folder.

    Args:
        name: relative to the project's root, for example ``config/seg.yaml``.

    Raises:
        ConfigError: the installation lacks it.
    """
    checkout = Path(__file__).resolve().parents[1]
    prefixes = [*os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep), sys.prefix]
    shares = [Path(prefix, 'share', 'segnode') for prefix in prefixes if prefix]
    # Installed as lib/pythonX.Y/site-packages/segnode, the prefix is four folders up.
    for folder in (checkout, *shares, *(p / 'share' / 'segnode' for p in checkout.parents[:4])):
        if (folder / name).is_file():
            return folder / name
    raise ConfigError(f'{name} of segnode is not installed; install segnode again')
