# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Where in a file its weights are, and what training put around their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from segnode.checkpoint.message import one_line
from segnode.checkpoint.unpickler import NotBuilt, StoredArray, StoredTensor
from segnode.errors import CheckpointError

# What trainers file a state dict under; where there are several, the first of these is taken.
WRAPPERS: Final = (
    *('model', 'state_dict', 'model_state_dict', 'model_state', 'weights', 'params'),
    *('module', 'net', 'network'),
    *('model_ema', 'ema', 'ema_model', 'ema_state_dict', 'state_dict_ema', 'ema_state'),
    *('student', 'teacher'),
)
_DEEPEST: Final = 8
# Of wrapping a module, or one inside of it: torch.compile, FSDP, activation checkpointing.
_WRAPPING: Final = frozenset(
    {'_orig_mod', '_fsdp_wrapped_module', '_checkpoint_wrapped_module', '_forward_module'}
)
# First parts of names that are a network's own, so that a part of one is known as such.
_ROOTS: Final = frozenset(
    {
        *('backbone', 'bottom_up', 'stem', 'body', 'fpn', 'neck', 'features', 'fc'),
        *('conv1', 'bn1', 'layer1', 'layer2', 'layer3', 'layer4', 'res2', 'res3', 'res4', 'res5'),
        *('proposal_generator', 'rpn', 'rpn_head', 'roi_heads', 'roi_head', 'head', 'bbox_head'),
        *('mask_head', 'sem_seg_head', 'transformer'),
    }
)
_STORED: Final = (Tensor, StoredTensor, StoredArray)
_REMEDY: Final = "save the weights alone: torch.save({'model': model.state_dict()}, FILE)"


def find_tensors(content: object, path: Path, report: Callable[[str], None]) -> dict[str, Tensor]:
    """Return the tensors of a file by the names that they have in their network.

    Only they are read. What stands beside them is ignored.

    Args:
        content: of the file.
        path: the file, for messages.
        report: is told where they were, unless at the top, under ``model``, or where MMDetection
            has them, what was taken off their names, and that the file holds others, too.

    Raises:
        CheckpointError: there are none, or not every name has a tensor.
    """
    found, keys = _unwrapped(content, path, report)
    tensors = {name: _tensor(stored, name, path) for name, stored in found.items()}
    named, without = _plain_names(tensors, path)
    # MMDetection's have a record of the training beside them.
    by_mmdetection = isinstance(content, Mapping) and 'meta' in content and keys == ['state_dict']
    if without or not (keys in ([], ['model']) or by_mmdetection):
        under = f'under {".".join(keys)}' if keys else 'at the top'
        left = f'; their names without {one_line(without)}' if without else ''
        report(f'{path}: weights found {under}{left}')
    return named


def _unwrapped(
    content: object, path: Path, report: Callable[[str], None]
) -> tuple[dict[str, Any], list[str]]:
    """Return what the innermost wrapper holds, and the wrappers."""
    keys: list[str] = []
    while isinstance(content, Mapping) and len(keys) < _DEEPEST:
        wrapper, others = _wrapper(content, path)
        if others:
            where = wrapper or 'the weights at the top'
            report(
                f'{path}: holds {", ".join(others)} beside {one_line(where)}, which '
                f'{"was" if wrapper else "were"} taken; to run another, save it alone'
            )
        if not wrapper:
            break
        keys.append(one_line(wrapper))
        content = content[wrapper]
    if isinstance(content, NotBuilt):
        raise _not_built(content, '', path)
    if not isinstance(content, Mapping):
        raise CheckpointError(f'{path}: expected tensors by name, found {type(content).__name__}')
    if not content:
        raise CheckpointError(f'{path}: expected tensors by name, found none')
    if _count(content, 0, {}):
        # Beside a network's names, with dots, stand numbers and records of the training.
        return {k: v for k, v in content.items() if isinstance(k, str) and '.' in k}, keys
    return dict(content), keys


def _wrapper(content: Mapping[Any, object], path: Path) -> tuple[str, list[str]]:
    """Return the key under which the weights are, empty for the top, and keys that hold others.

    What has about as many tensors under a network's names as any other place can be the weights.
    Of several, the top is taken, then what trainers call so, in their order.
    """
    known: dict[int, int] = {}
    named = {
        key: _count(value, _DEEPEST, known)
        for key, value in content.items()
        if isinstance(key, str) and isinstance(value, Mapping)
    }
    not_built = {key: value for key in WRAPPERS if isinstance(value := content.get(key), NotBuilt)}
    whole = list(not_built)
    pool = [key for key in WRAPPERS if named.get(key)] or [key for key in named if named[key]]
    most = max((named[key] for key in pool), default=0)
    here = _count(content, 0, {})
    if not most and not here:
        # Names without a dot: no network that is known, for the message alone.
        pool = [key for key in WRAPPERS if key in named and content[key]]
        if not pool and whole:
            raise _not_built(not_built[whole[0]], whole[0], path)
    equal = [key for key in pool if 2 * named[key] >= most]
    if here and 2 * here >= most:
        return '', [*map(one_line, equal), *whole]
    if not equal:
        return '', []
    wrapper = equal[0] if equal[0] in WRAPPERS else max(equal, key=lambda key: named[key])
    return wrapper, [*(one_line(key) for key in equal if key != wrapper), *whole]


def _count(content: Mapping[Any, object], depth: int, known: dict[int, int]) -> int:
    """Return how many tensors have a network's names, which have dots, down to a depth.

    Each mapping is counted once: one that holds itself many times would never end.
    """
    if id(content) not in known:
        count = known[id(content)] = 0
        for name, value in content.items():
            if isinstance(value, Mapping):
                count += _count(value, depth - 1, known) if depth else 0
            elif isinstance(value, _STORED) and isinstance(name, str):
                count += '.' in name
        known[id(content)] = count
    return known[id(content)]


def _tensor(stored: object, name: object, path: Path) -> Tensor:
    if isinstance(stored, StoredTensor | StoredArray):
        stored = stored.read()
    if isinstance(stored, NotBuilt):
        raise _not_built(stored, str(name), path)
    if not isinstance(name, str) or not isinstance(stored, Tensor):
        raise CheckpointError(
            f'{path}: expected tensors by name, at the top or under "model" or the like, '
            f'found {type(stored).__name__} under {str(name)[:60]!r}'
        )
    return stored


def _not_built(found: NotBuilt, name: str, path: Path) -> CheckpointError:
    """Refuse an object where tensors are needed."""
    where = f' under {name[:60]!r}' if name else ''
    what = one_line(found.name)
    if what.startswith(('ultralytics.', 'models.yolo', 'yolov5.')):
        return CheckpointError(
            f'{path}: expected the weights of a Mask R-CNN, found a YOLO of Ultralytics{where} '
            f'({what}), which segnode does not run'
        )
    return CheckpointError(
        f'{path}: expected dense tensors, found {what}{where}, which is never built or run; '
        f'{_REMEDY}'
    )


def _plain_names(tensors: Mapping[str, Tensor], path: Path) -> tuple[dict[str, Tensor], str]:
    """Return tensors without what wrapping put into their names, and what that was."""
    without: list[str] = []
    named = dict(tensors)
    parts = {part for name in named for part in name.split('.')}
    for wrapping in sorted(parts & _WRAPPING):
        named = {
            '.'.join(part for part in name.split('.') if part != wrapping): tensor
            for name, tensor in named.items()
        }
        without.append(f'{wrapping}.')
    for _ in range(_DEEPEST):
        firsts = {name.partition('.')[0] for name in named}
        if len(firsts) != 1 or not all('.' in name for name in named):
            break
        (first,) = firsts
        # A backbone alone keeps its name; a whole network may be called as a part of one.
        if first in _ROOTS and not any('.backbone.' in name for name in named):
            break
        named = {name.partition('.')[2]: tensor for name, tensor in named.items()}
        without.append(f'{first}.')
    if len(named) != len(tensors):
        raise CheckpointError(f'{path}: expected tensors by name, found two of one name')
    return named, ' and '.join(without)
