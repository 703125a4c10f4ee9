# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Pickles that nobody vouches for, read as containers, numbers, texts, arrays and tensors.

A pickle is a program that names functions and calls them. Here nothing that it names is looked
up: the few functions that rebuild arrays and tensors are answered by those of this module, and
everything else by an object that takes whatever is done to it and holds nothing.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import FunctionType
from typing import IO, Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

_NUMBERS = frozenset(f'{kind}{size}' for kind in 'fiu' for size in (1, 2, 4, 8)) | {'b1'}
# Hashing a deeply nested tuple overflows the interpreter's stack.
_KEYS = (str, int, float, bool, bytes, type(None))
_MOST_DIMENSIONS = 64
_MOST_ELEMENTS = 2**62


class NotBuilt:
    """Stands for what a pickle names and is not built, and for all that is made with it.

    Attributes:
        name: of the function, class or kind of array.
    """

    __slots__ = ('name',)

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *_: object) -> NotBuilt:
        """Return itself: what is made with it is not built either."""
        return self

    def __setitem__(self, *_: object) -> None:
        """Hold nothing."""

    append = extend = add = __setitem__


class StoredArray:
    """Stands for ``numpy.ndarray`` in a pickle."""

    __slots__ = ('_array', '_instead')

    def __init__(self) -> None:
        self._array: np.ndarray[Any, Any] | None = None
        self._instead = NotBuilt('an empty array')

    def set_state(self, state: tuple[Any, ...]) -> None:
        """Take what ``ndarray.__setstate__`` takes."""
        _, shape, dtype, fortran, data = state
        self.fill(data, dtype, shape, 'F' if fortran else 'C')

    def fill(
        self, data: str | bytes, dtype: _DType, shape: Any, order: Literal['C', 'F']
    ) -> StoredArray:
        """Take what ``numpy.core.numeric._frombuffer`` takes."""
        if isinstance(dtype.found, NotBuilt):
            self._instead = dtype.found
            return self
        if isinstance(data, str):  # of Python 2
            data = data.encode('latin1')
        self._array = np.frombuffer(data, dtype.found).reshape(shape, order=order)
        return self

    def read(self) -> Tensor | NotBuilt:
        """Return the numbers, or what there is instead of them."""
        if self._array is None:
            return self._instead
        return torch.from_numpy(self._array.astype(self._array.dtype.newbyteorder('=')))


class _DType:
    """Stands for ``numpy.dtype`` in a pickle."""

    __slots__ = ('found',)

    def __init__(self, code: object) -> None:
        known = isinstance(code, str) and code in _NUMBERS
        self.found: np.dtype[Any] | NotBuilt = (
            np.dtype(str(code)) if known else NotBuilt(f'an array of {_kind(code)}')
        )

    def set_state(self, state: tuple[Any, ...]) -> None:
        if isinstance(self.found, np.dtype):
            self.found = self.found.newbyteorder(state[1])


def _kind(code: object) -> str:
    # Only of a text: the repr of nested lists can be endless.
    return repr(code[:60]) if isinstance(code, str) else type(code).__name__


class StorageFile(Protocol):
    """A file that holds the elements of tensors."""

    def elements(self, storage: Storage, dtype: torch.dtype) -> Tensor:
        """Return a storage as (count,) elements of ``dtype``."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """Where a file of ``torch.save`` holds elements; nothing of them is read yet.

    Attributes:
        file: holds them.
        key: names them in the file.
        dtype: of an element.
        count: elements, as the pickle claims.
        first: element from which it counts.
    """

    file: StorageFile
    key: str
    dtype: torch.dtype
    count: int
    first: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class StoredTensor:
    """A tensor in a file of ``torch.save``, as the pickle claims it; nothing is read yet."""

    storage: Storage
    dtype: torch.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def read(self) -> Tensor:
        """Return the tensor, on the CPU.

        Raises:
            pickle.UnpicklingError: it reaches beyond what is stored.
            OSError: the file cannot be read.
        """
        flat = self.storage.file.elements(self.storage, self.dtype)
        count = last = 1
        for extent, step in zip(self.size, self.stride, strict=True):
            count *= extent
            last += (extent - 1) * step
        if count > _MOST_ELEMENTS or (count and self.offset + last > len(flat)):
            raise pickle.UnpicklingError('a tensor that reaches beyond its storage')
        return flat.as_strided(self.size, self.stride, self.offset if count else 0)


class Unpickler(pickle._Unpickler):
    """Knows plain containers, arrays of numbers and tensors; all else is not built.

    It is the unpickler in Python: the one in C reports some damage past the caller, to stderr.
    """

    # Of the base, which no stub declares.
    stack: list[Any]
    append: Callable[[object], None]
    pop_mark: Callable[[], list[Any]]
    read: Callable[[int], bytes]

    def __init__(self, stream: IO[bytes], storages: StorageFile | None = None) -> None:
        """Take a stream.

        Args:
            stream: at a pickle's beginning; ``load`` leaves it behind its end.
            storages: holds the elements of the pickle's tensors, None where it may have none.
        """
        super().__init__(stream, encoding='latin1')
        self._storages = storages
        self.found: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return what answers in place of a function or class."""
        return _KNOWN.get((module, name)) or NotBuilt(f'{module}.{name}')

    def get_extension(self, code: int) -> None:
        """Push what is registered elsewhere in the process: nothing."""
        self.append(NotBuilt(f'extension {code}'))

    def persistent_load(self, pid: Any) -> Any:
        """Return the storage that a tensor refers to."""
        kind, *fields = pid
        if kind == 'module':  # of old files: a class with its source
            return fields[0]
        dtype, key, _, count, *view = fields
        if isinstance(dtype, NotBuilt):
            return dtype
        if (
            self._storages is None
            or kind != 'storage'
            or not isinstance(dtype, torch.dtype)
            or not isinstance(key, str)
            or not _is_count(count)
        ):
            raise pickle.UnpicklingError('a reference to no storage')
        root = self.found.setdefault(key, Storage(self._storages, key, dtype, count))
        if not view or view[0] is None:
            return root
        _, first, count = view[0]
        if not _is_count(first) or not _is_count(count):
            raise pickle.UnpicklingError('a reference to no storage')
        return Storage(self._storages, key, dtype, count, first)

    def _load_reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = _answer(self.stack[-1], arguments)

    def _load_newobj_ex(self) -> None:
        self.stack.pop()  # the names of arguments; nothing known takes any
        self._load_reduce()

    def _instantiate(self, klass: object, arguments: Iterable[object]) -> None:
        self.append(_answer(klass, tuple(arguments)))

    def _load_build(self) -> None:
        state = self.stack.pop()
        built = self.stack[-1]
        if isinstance(built, StoredArray | _DType):
            built.set_state(state)

    def _load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _set_items(self.stack[-1], (key, value))

    def _load_setitems(self) -> None:
        items = self.pop_mark()
        _set_items(self.stack[-1], items)

    def _load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        _set_items(self.stack[-1], items)

    def _load_bytearray8(self) -> None:
        # The base makes one of the size that is claimed before it looks at what is there.
        (size,) = struct.unpack('<Q', self.read(8))
        self.append(self.read(size))

    def _load_empty_set(self) -> None:
        self.append(NotBuilt('a set'))

    def _load_frozenset(self) -> None:
        self.pop_mark()
        self.append(NotBuilt('a set'))

    dispatch = pickle._Unpickler.dispatch | {  # type: ignore[assignment]
        pickle.REDUCE[0]: _load_reduce,
        pickle.NEWOBJ[0]: _load_reduce,
        pickle.NEWOBJ_EX[0]: _load_newobj_ex,
        pickle.BUILD[0]: _load_build,
        pickle.SETITEM[0]: _load_setitem,
        pickle.SETITEMS[0]: _load_setitems,
        pickle.DICT[0]: _load_dict,
        pickle.BYTEARRAY8[0]: _load_bytearray8,
        pickle.EMPTY_SET[0]: _load_empty_set,
        pickle.FROZENSET[0]: _load_frozenset,
    }


def _answer(asked: object, arguments: Any) -> object:
    """Return what a call gives; only functions of this module ever run."""
    if isinstance(asked, NotBuilt):
        return asked
    if not isinstance(asked, FunctionType):
        raise pickle.UnpicklingError(f'a call of {type(asked).__name__}')
    return asked(*arguments)


def _set_items(mapping: Any, items: Iterable[Any]) -> None:
    """Set items, keys and values in turn; those whose key is no plain value are left out."""
    if isinstance(mapping, NotBuilt):
        return
    if not isinstance(mapping, dict):
        raise pickle.UnpicklingError(f'items of {type(mapping).__name__}')
    each = iter(items)
    for key, value in zip(each, each, strict=True):
        if isinstance(key, _KEYS):
            mapping[key] = value


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < _MOST_ELEMENTS


def _mapping(pairs: Any = ()) -> dict[Any, Any]:
    mapping: dict[Any, Any] = {}
    if isinstance(pairs, Mapping):
        pairs = pairs.items()
    for pair in pairs:
        _set_items(mapping, pair)
    return mapping


def _tensor(
    storage: object, offset: object, size: Any, stride: Any, *more: object
) -> StoredTensor | NotBuilt:
    """Take what ``torch._utils._rebuild_tensor`` and its second version take."""
    if isinstance(storage, NotBuilt):
        return storage
    if any(isinstance(each, dict) and (each.get('neg') or each.get('conj')) for each in more):
        return NotBuilt('a negated or conjugated view')
    if (
        not isinstance(storage, Storage)
        or not _is_count(offset)
        or not isinstance(size, tuple)
        or not isinstance(stride, tuple)
        or not len(size) == len(stride) <= _MOST_DIMENSIONS
        or not all(map(_is_count, (*size, *stride)))
    ):
        raise pickle.UnpicklingError('a tensor without storage or shape')
    assert isinstance(offset, int)
    return StoredTensor(storage, storage.dtype, offset, size, stride)


def _tensor_of_dtype(*arguments: Any) -> StoredTensor | NotBuilt:
    """Take what ``torch._utils._rebuild_tensor_v3`` takes: a storage of bytes, and a dtype."""
    dtype, tensor = arguments[6], _tensor(*arguments)
    for each in (dtype, tensor):
        if isinstance(each, NotBuilt):
            return each
    if not isinstance(dtype, torch.dtype):
        raise pickle.UnpicklingError('a tensor without a format')
    assert isinstance(tensor, StoredTensor)
    return replace(tensor, dtype=dtype)


def _of_type(function: object, _: object, arguments: Any, *__: object) -> object:
    """Take a tensor with attributes, or of a subclass: what counts is the tensor."""
    return _answer(function, arguments)


_DTYPES = {
    'Double': torch.float64,
    'Float': torch.float32,
    'Half': torch.float16,
    'BFloat16': torch.bfloat16,
    'Long': torch.int64,
    'Int': torch.int32,
    'Short': torch.int16,
    'Char': torch.int8,
    'Byte': torch.uint8,
    'Bool': torch.bool,
    'Untyped': torch.uint8,
    # Beside the weights alone; what they take of the file has to be known.
    'ComplexFloat': torch.complex64,
    'ComplexDouble': torch.complex128,
    'QInt8': torch.qint8,
    'QUInt8': torch.quint8,
    'QInt32': torch.qint32,
    'QUInt4x2': torch.quint4x2,
    'QUInt2x4': torch.quint2x4,
}
_KNOWN: dict[tuple[str, str], object] = {
    ('collections', 'OrderedDict'): _mapping,
    ('_codecs', 'encode'): lambda text, _: text.encode('latin1'),
    ('__builtin__', 'bytes'): lambda: b'',  # so protocol 2 writes an empty array
    ('numpy', 'dtype'): lambda code, *_: _DType(code),
    ('torch._utils', '_rebuild_tensor'): _tensor,
    ('torch._utils', '_rebuild_tensor_v2'): _tensor,
    ('torch._utils', '_rebuild_tensor_v3'): _tensor_of_dtype,
    ('torch._utils', '_rebuild_parameter'): lambda data, *_: data,
    ('torch._utils', '_rebuild_parameter_with_state'): lambda data, *_: data,
    ('torch._tensor', '_rebuild_from_type'): _of_type,
    ('torch._tensor', '_rebuild_from_type_v2'): _of_type,
}
for _core in ('numpy.core', 'numpy._core'):
    _KNOWN[f'{_core}.multiarray', '_reconstruct'] = lambda *_: StoredArray()
    _KNOWN[f'{_core}.numeric', '_frombuffer'] = lambda data, dtype, shape, order: (
        StoredArray().fill(data, dtype, shape, order)
    )
for _name, _dtype in _DTYPES.items():
    _KNOWN['torch', f'{_name}Storage'] = _KNOWN['torch.cuda', f'{_name}Storage'] = _dtype
    _KNOWN['torch', str(_dtype).removeprefix('torch.')] = _dtype
_KNOWN['torch.storage', 'UntypedStorage'] = torch.uint8
