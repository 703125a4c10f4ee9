# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Reading tensors out of files that nobody vouches for: nothing in them is ever executed.

Three formats, told apart by content: safetensors, what ``torch.save`` writes, and Detectron2's
pickles of NumPy arrays. Neither NumPy's nor PyTorch's own unpickling runs.
"""

from __future__ import annotations

import hashlib
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors
from torch import Tensor

from segnode.checkpoint.message import one_line
from segnode.checkpoint.torch_file import read_legacy, read_zip
from segnode.checkpoint.unpickler import Unpickler
from segnode.checkpoint.unwrap import find_tensors
from segnode.errors import CheckpointError

Kind = Literal['safetensors', 'torch', 'legacy torch', 'torchscript', 'pickle', 'unknown']

# Of torch.save's older format; a protocol, and perhaps a frame, stands before it.
_LEGACY_TORCH = b'\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'
_LONGEST_HEADER = 100_000_000  # of safetensors; eight letters of a text spell more
# All that a damaged or hostile pickle or zip has been seen to raise.
_DAMAGE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    struct.error,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """What a weights file holds.

    Attributes:
        tensors: by name, as stored; shapes, dtypes and values are not yet checked.
        metadata: safetensors' texts by name, empty for the other formats.
        meta: what stands under this key at the top, as MMDetection has it; plain containers, texts
            and numbers, and objects that stand for what was not built.
    """

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    meta: Mapping[Any, Any]


def check_file(path: Path, what: str) -> None:
    """Refuse what is no readable, non-empty file.

    Args:
        path: where the file should be.
        what: what the file should be, for the message.

    Raises:
        CheckpointError: it is missing, a folder, empty or unreadable.
    """
    expected = f'{path}: expected {what}, found'
    try:
        if path.is_dir():
            raise CheckpointError(f'{expected} a folder')
        if not path.is_file():
            raise CheckpointError(f'{expected} no such file')
        if path.stat().st_size == 0:
            raise CheckpointError(f'{expected} an empty file')
        with path.open('rb'):
            pass
    except OSError as error:
        raise CheckpointError(f'{expected} {error.strerror}') from None


def digest(path: Path, algorithm: str) -> str:
    """Return the hexadecimal digest of a file."""
    state = hashlib.new(algorithm, usedforsecurity=False)
    with path.open('rb') as stream:
        while block := stream.read(1 << 20):
            state.update(block)
    return state.hexdigest()


def weights_kind(path: Path) -> Kind:
    """Tell the format of a file by its content."""
    with path.open('rb') as stream:
        head = stream.read(32)
    if head[8:9] == b'{' and int.from_bytes(head[:8], 'little') <= _LONGEST_HEADER:
        return 'safetensors'
    if head.startswith(b'PK\x03\x04'):
        try:
            with zipfile.ZipFile(path) as archive:
                names = [name.rpartition('/')[2] for name in archive.namelist()]
        except _DAMAGE:
            return 'torch'
        return 'torchscript' if 'constants.pkl' in names else 'torch'
    if head.startswith(b'\x80') and _LEGACY_TORCH in head:
        return 'legacy torch'
    return 'pickle' if head.startswith(b'\x80') else 'unknown'


def read_weights(path: Path, report: Callable[[str], None] = lambda _: None) -> WeightsFile:
    """Read the tensors of a checkpoint, and what MMDetection says beside them.

    What training leaves beside the weights (optimizer, iteration, arguments) is ignored.

    Args:
        path: the file.
        report: is told where in the file the weights were, where that is unusual.

    Raises:
        CheckpointError: no file, another format, damaged, or without tensors.
    """
    check_file(path, 'weights')
    kind = weights_kind(path)
    if kind == 'torchscript':
        raise CheckpointError(
            f'{path}: expected weights alone, found a TorchScript program; '
            'name a model description as the model to run one'
        )
    if kind == 'unknown':
        raise CheckpointError(
            f'{path}: expected weights as .pkl, .pth or .safetensors, found none of these formats'
        )
    damaged, read = _READERS[kind]
    metadata: dict[str, str] = {}
    try:
        content = read(path, metadata)
        tensors = find_tensors(content, path, report)
    except (safetensors.SafetensorError, *_DAMAGE) as error:
        raise CheckpointError(f'{path}: expected {damaged} ({one_line(error)})') from None
    meta = content.get('meta') if isinstance(content, Mapping) else None
    return WeightsFile(tensors, metadata, meta if isinstance(meta, Mapping) else {})


def _read_safetensors(path: Path, metadata: dict[str, str]) -> object:
    with safetensors.safe_open(path, framework='pt', device='cpu') as stored:
        metadata.update(stored.metadata() or {})
        return {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118


def _read_torch(path: Path, _: dict[str, str]) -> object:
    return read_zip(path)


def _read_legacy(path: Path, _: dict[str, str]) -> object:
    return read_legacy(path)


def _read_pickle(path: Path, _: dict[str, str]) -> object:
    with path.open('rb') as stream:
        content = Unpickler(stream).load()
    if isinstance(content, Mapping) and 'blobs' in content:
        raise CheckpointError(
            f'{path}: expected Detectron2 weights, found a Detectron1 checkpoint'
        )
    return content


_READERS: dict[Kind, tuple[str, Callable[[Path, dict[str, str]], object]]] = {
    'safetensors': ('safetensors, found a damaged file', _read_safetensors),
    'torch': ('a file of torch.save, found a damaged one', _read_torch),
    'legacy torch': ('a file of torch.save, found a damaged one', _read_legacy),
    'pickle': ('a pickle of NumPy arrays, found a damaged one', _read_pickle),
}
