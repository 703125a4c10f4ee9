# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The errors that segnode raises on purpose: one line each, for the person who has to act."""

from __future__ import annotations


class SegnodeError(Exception):
    """Base of all errors below; its text is one line without a traceback's help.

    The text names what was expected, what was found and what to do about it.
    """


class ConfigError(SegnodeError):
    """A parameter, an option or a key of a model's config is not usable."""


class CheckpointError(SegnodeError):
    """A model file or its weights cannot be used."""


class ImageError(SegnodeError):
    """An image file or an image message cannot be decoded."""


class DeviceError(SegnodeError):
    """The compute device is missing or failed."""


class OutOfMemoryError(DeviceError):
    """The device ran out of memory; what the frame held has been freed."""


class AnnotationError(SegnodeError):
    """A file of ground truth cannot be used."""


class MeasurementError(SegnodeError):
    """What was to be timed side by side does not do the same."""
