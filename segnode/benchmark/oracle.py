# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Detectron2 as the reference that answers and timings are compared with; never needed to run."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import types
from pathlib import Path
from types import ModuleType

from segnode.errors import ConfigError


def import_detectron2(folder: Path | None = None) -> ModuleType:
    """Imports Detectron2 0.6, as Python source where it is not installed.

    Args:
        folder: holds the package ``detectron2``; by default the environment variable
            ``SEGNODE_DETECTRON2``, else an installed Detectron2, else ``oracle`` in the virtual
            environment, where ``make test`` unpacks it.

    Returns:
        The package; its modules import as usual from then on.

    Raises:
        ConfigError: there is none, or it does not import.
    """
    if folder is None and (named := os.environ.get('SEGNODE_DETECTRON2')):
        folder = Path(named)
    if folder is None and importlib.util.find_spec('detectron2') is None:
        folder = Path(sys.prefix) / 'oracle'
    if folder is not None and not (folder / 'detectron2' / '__init__.py').is_file():
        raise ConfigError(
            f'expected the package detectron2 in {folder}, found none: run `make setup-test`, or '
            'name a folder that holds it in SEGNODE_DETECTRON2'
        )
    path = [] if folder is None else [str(folder.resolve())]
    sys.path[:0] = path
    try:
        package = importlib.import_module('detectron2')
        _fill_gaps()
        importlib.import_module('detectron2.modeling')
    except ImportError as error:
        raise ConfigError(f'Detectron2 does not import ({error}): run `make setup-test`') from None
    finally:
        for entry in path:
            sys.path.remove(entry)
    return package


def _fill_gaps() -> None:
    """Stands in for what release 0.6 misses in source form and on today's Pillow."""
    from PIL import Image

    try:
        importlib.import_module('detectron2._C')
    except ImportError:
        # Only the deformable and rotated operators call into it.
        sys.modules['detectron2._C'] = types.ModuleType('detectron2._C')
    if not hasattr(Image, 'LINEAR'):
        Image.LINEAR = Image.BILINEAR  # type: ignore[attr-defined]
