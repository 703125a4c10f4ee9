# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Reading tensors out of files that nobody vouches for: nothing in them is ever executed.

Three formats, told apart by content: safetensors, what ``torch.save`` writes (read with
``weights_only``), and Detectron2's pickles of NumPy arrays. For the last, the pickle's calls are
answered by the few functions here, so not even NumPy's own unpickling runs.
"""

from __future__ import annotations

import hashlib
import pickle
import re
import struct
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import safetensors
import torch
from torch import Tensor

from segnode.checkpoint.message import one_line
from segnode.errors import CheckpointError

Kind = Literal['safetensors', 'torch', 'torchscript', 'pickle', 'unknown']

_LEGACY_TORCH = b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'
_LONGEST_HEADER = 100_000_000  # of safetensors; eight letters of a text spell more
_NUMBERS = re.compile(r'[fiu][1248]|b1')
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
    """

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


class _Forbidden(pickle.UnpicklingError):
    """The pickle asks for something else than arrays; the text is its name."""


class _DType:
    """Stands for ``numpy.dtype`` in a pickle."""

    __slots__ = ('dtype',)

    def __init__(self, code: object, *_: object) -> None:
        if not isinstance(code, str) or not _NUMBERS.fullmatch(code):
            raise _Forbidden(f'an array of {code!r}')
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands for ``numpy.ndarray`` in a pickle."""

    __slots__ = ('array',)

    def __init__(self) -> None:
        self.array: np.ndarray[Any, Any] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        self.fill(data, dtype, shape, 'F' if fortran else 'C')

    def fill(
        self, data: str | bytes, dtype: _DType, shape: Any, order: Literal['C', 'F']
    ) -> _Array:
        if isinstance(data, str):  # of Python 2
            data = data.encode('latin1')
        self.array = np.frombuffer(data, dtype.dtype).reshape(shape, order=order)
        return self


class _ArrayUnpickler(pickle._Unpickler):
    """Knows arrays of numbers and plain containers; all else is forbidden.

    It is the unpickler in Python: the one in C reports some damage past the caller, to stderr.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(stream, encoding='latin1')
        self._known: dict[tuple[str, str], object] = {
            ('collections', 'OrderedDict'): OrderedDict,
            ('_codecs', 'encode'): lambda text, _: text.encode('latin1'),
            ('__builtin__', 'bytes'): lambda: b'',  # so protocol 2 writes an empty array
            ('numpy', 'ndarray'): 'numpy.ndarray',
            ('numpy', 'dtype'): lambda code, *_: _DType(code),
        }
        for core in ('numpy.core', 'numpy._core'):
            self._known[f'{core}.multiarray', '_reconstruct'] = lambda *_: _Array()
            self._known[f'{core}.numeric', '_frombuffer'] = lambda data, dtype, shape, order: (
                _Array().fill(data, dtype, shape, order)
            )

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._known[module, name]
        except KeyError:
            raise _Forbidden(f'{module}.{name}') from None


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
        head = stream.read(16)
    if head[8:9] == b'{' and int.from_bytes(head[:8], 'little') <= _LONGEST_HEADER:
        return 'safetensors'
    if head.startswith(b'PK\x03\x04'):
        try:
            with zipfile.ZipFile(path) as archive:
                names = [name.rpartition('/')[2] for name in archive.namelist()]
        except _DAMAGE:
            return 'torch'
        return 'torchscript' if 'constants.pkl' in names else 'torch'
    if head.startswith(_LEGACY_TORCH):
        return 'torch'
    return 'pickle' if head.startswith(b'\x80') else 'unknown'


def read_weights(path: Path) -> WeightsFile:
    """Read the tensors of a Detectron2, torchvision or segnode checkpoint.

    What training leaves beside the weights (optimizer, iteration) is ignored.

    Raises:
        CheckpointError: no file, another format, damaged, or it would have to run code.
    """
    check_file(path, 'weights')
    readers: dict[str, Callable[[Path], WeightsFile]] = {
        'safetensors': _read_safetensors,
        'torch': _read_torch,
        'pickle': _read_pickle,
    }
    kind = weights_kind(path)
    if kind == 'torchscript':
        raise CheckpointError(
            f'{path}: expected weights alone, found a TorchScript program; '
            'name a model description as the model to run one'
        )
    if kind not in readers:
        raise CheckpointError(
            f'{path}: expected weights as .pkl, .pth or .safetensors, found none of these formats'
        )
    return readers[kind](path)


def _read_safetensors(path: Path) -> WeightsFile:
    try:
        with safetensors.safe_open(path, framework='pt', device='cpu') as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
            return WeightsFile(tensors, dict(stored.metadata() or {}))
    except (safetensors.SafetensorError, *_DAMAGE) as error:
        raise CheckpointError(
            f'{path}: expected safetensors, found a damaged file ({one_line(error)})'
        ) from None


def _read_torch(path: Path) -> WeightsFile:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of odd protocols and sparse tensors: checked later
            content = torch.load(path, map_location='cpu', weights_only=True)
    except _DAMAGE as error:
        asked = re.search(r'GLOBAL ([\w.]+)', str(error))
        if asked:
            raise _forbidden(path, asked[1]) from None
        raise CheckpointError(
            f'{path}: expected a file of torch.save, found a damaged one ({one_line(error)})'
        ) from None
    return WeightsFile(_tensors(path, content, lambda value: value), {})


def _read_pickle(path: Path) -> WeightsFile:
    try:
        with path.open('rb') as stream:
            content = _ArrayUnpickler(stream).load()
    except _Forbidden as error:
        raise _forbidden(path, str(error)) from None
    except _DAMAGE as error:
        raise CheckpointError(
            f'{path}: expected a pickle of NumPy arrays, found a damaged one ({one_line(error)})'
        ) from None
    if isinstance(content, Mapping) and 'blobs' in content:
        raise CheckpointError(
            f'{path}: expected Detectron2 weights, found a Detectron1 checkpoint'
        )

    def to_tensor(value: object) -> object:
        if not isinstance(value, _Array) or value.array is None:
            return value
        return torch.from_numpy(value.array.astype(value.array.dtype.newbyteorder('=')))

    return WeightsFile(_tensors(path, content, to_tensor), {})


def _tensors(
    path: Path, content: object, convert: Callable[[object], object]
) -> dict[str, Tensor]:
    """Return the state dict of a checkpoint, without DistributedDataParallel's prefix."""
    if isinstance(content, Mapping) and isinstance(content.get('model'), Mapping):
        content = content['model']
    if not isinstance(content, Mapping):
        raise CheckpointError(f'{path}: expected tensors by name, found {type(content).__name__}')
    tensors: dict[str, Tensor] = {}
    for name, stored in content.items():
        value = convert(stored)
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                f'{path}: expected tensors by name, at the top or under "model", '
                f'found {type(value).__name__} under {str(name)[:60]!r}'
            )
        tensors[name] = value
    if tensors and all(name.startswith('module.') for name in tensors):
        tensors = {name.removeprefix('module.'): value for name, value in tensors.items()}
    return tensors


def _forbidden(path: Path, asked: str) -> CheckpointError:
    return CheckpointError(
        f'{path}: expected tensors alone, found {one_line(asked)}, which is never run; '
        "save the weights alone: torch.save({'model': model.state_dict()}, FILE)"
    )
