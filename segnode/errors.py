# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The errors that segnode raises on purpose: one line each, for the person who has to act."""

from __future__ import annotations

from types import ModuleType


class SegnodeError(Exception):
    """Base of all errors below; its text is one line without a traceback's help.

    The text names what was expected, what was found and what to do about it.
    """


class ConfigError(SegnodeError):
    """A parameter, an option or a key of a model's config is not usable."""


class CheckpointError(SegnodeError):
    """A model file or its weights cannot be used."""


class FetchError(CheckpointError):
    """A file cannot be had from its server; it may be later."""


class ProgramError(CheckpointError):
    """An exported program failed on one image; it may do better on the next."""


class ImageError(SegnodeError):
    """An image file or an image message cannot be decoded."""


class DeviceError(SegnodeError):
    """The compute device is missing or failed."""


class OutOfMemoryError(DeviceError):
    """The device ran out of memory; what the frame held has been freed."""


class AnnotationError(SegnodeError):
    """A file of ground truth cannot be used."""


class BagError(SegnodeError):
    """A bag cannot be read."""


class OutputError(SegnodeError):
    """A result cannot be written where it should go."""


class MeasurementError(SegnodeError):
    """What was to be timed side by side does not do the same."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def failures_of(binding: ModuleType) -> tuple[type[Exception], ...]:
    """Return all that a library raises through its compiled module.

    Its own types are made at run time, may derive from nothing but Exception, and differ between
    versions; the rest of what C++ throws becomes one of three of Python's.
    """
    classes = (each for each in vars(binding).values() if isinstance(each, type))
    own = (each for each in classes if issubclass(each, Exception))
    return (MemoryError, RuntimeError, ValueError, *own)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, on the device or on the host.

    PyTorch's allocators have a type for it; libraries, graphs and Triton say it in words, under
    types of their own, not all of which are RuntimeErrors.
    """
    # By name, as nothing here imports PyTorch: its type holds whatever the text says.
    named = any(base.__name__ == 'OutOfMemoryError' for base in type(error).__mro__)
    words = (
        'allocate memory',
        # "Failed to allocate 58720256 bytes of memory", as OpenVINO has it.
        'bytes of memory',
        'bad_alloc',
        "can't alloc",
        'out of memory',
        'ALLOC_FAILED',
        'ALLOCATION_FAILED',
        # How cuBLAS says that there was no room for its handle.
        'STATUS_NOT_INITIALIZED',
    )
    return named or isinstance(error, MemoryError) or any(word in str(error) for word in words)
