# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Everything a user can set, declared once.

ROS parameters and command-line options are both made from these dataclasses, so that a default,
a range and a description exist in one place. A value is validated where the dataclass is made
and never repaired; ``-1`` (or ``0`` for sides, counts and areas) leaves the choice to the model.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from typing_extensions import Self

from segnode.errors import ConfigError

# Values of a pixel of a 16-bit label image, without the background's.
MOST_INSTANCES: Final = 65_535


def user_path(text: str) -> Path:
    """Return the path that a text names, with ``~`` for a home; an unknown user's stays as it is.

    ``Path.expanduser`` raises RuntimeError there, where "no such file" is the better answer.
    """
    return Path(os.path.expanduser(text))  # noqa: PTH111 - see above


def setting(
    default: Any,
    description: str,
    *,
    unit: str = '',
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    runtime: bool = False,
) -> Any:
    """Declare one setting of a ``Settings`` dataclass with what parameters and options need."""
    metadata = {
        'description': description,
        'unit': unit,
        'minimum': minimum,
        'maximum': maximum,
        'choices': choices,
        'runtime': runtime,
    }
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One setting as ROS and the command line see it.

    Attributes:
        name: dotted name, for example ``filter.score_threshold``.
        default: an ``int``, ``float``, ``str``, ``bool`` or a tuple of strings.
        description: one sentence.
        unit: unit of the value, empty for none.
        minimum: smallest valid value, None for no bound.
        maximum: largest valid value, None for no bound.
        choices: the valid strings, empty for any.
        runtime: True when a change takes effect on the next frame, False when it needs a restart.
    """

    name: str
    default: Any
    description: str
    unit: str
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...]
    runtime: bool

    def validate(self, value: object) -> Any:
        """Return ``value`` as the type of the default.

        An integer is accepted where a fraction is expected, a list for a tuple of strings, and
        None (an empty list in YAML) for an empty tuple.

        Raises:
            ConfigError: the type, the range or the choice is wrong.
        """
        expected: type = type(self.default)
        if expected is tuple:
            items = () if value is None else value
            if not isinstance(items, list | tuple) or not all(isinstance(i, str) for i in items):
                raise ConfigError(f'{self.name}: expected a list of strings, found {value!r}')
            return tuple(items)
        if expected is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not expected:
            raise ConfigError(f'{self.name}: expected {expected.__name__}, found {value!r}')
        if self.choices and value not in self.choices:
            raise ConfigError(
                f'{self.name}: expected one of {", ".join(self.choices)}, found {value!r}'
            )
        if isinstance(value, int | float) and not isinstance(value, bool):
            low, high = self.minimum, self.maximum
            if not ((low is None or value >= low) and (high is None or value <= high)):
                raise ConfigError(f'{self.name}: expected {self._range()}, found {value!r}')
        return value

    def _range(self) -> str:
        low = '' if self.minimum is None else f'{self.minimum:g} or more'
        high = '' if self.maximum is None else f'{self.maximum:g} or less'
        return ' and '.join(part for part in (low, high) if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Base of the dataclasses below: flat access by dotted names, validated when made.

    Raises:
        ConfigError: a value has a wrong type or is out of range.
    """

    def __post_init__(self) -> None:
        for parameter in parameters(type(self)):
            if '.' not in parameter.name:
                value = parameter.validate(getattr(self, parameter.name))
                object.__setattr__(self, parameter.name, value)

    def flat(self) -> dict[str, Any]:
        """Return all values by dotted name, in the order of declaration."""
        values: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Settings):
                values.update({f'{field.name}.{name}': v for name, v in value.flat().items()})
            else:
                values[field.name] = value
        return values

    def replace(self, changes: Mapping[str, Any]) -> Self:
        """Return a copy with ``changes`` (dotted names) applied.

        Raises:
            ConfigError: an unknown name, or a value that does not fit.
        """
        known = {parameter.name: parameter for parameter in parameters(type(self))}
        unknown = sorted(set(changes) - set(known))
        if unknown:
            raise ConfigError(
                f'unknown setting {", ".join(unknown)}; known are {", ".join(known)}'
            )
        direct: dict[str, Any] = {}
        nested: dict[str, dict[str, Any]] = {}
        for name, value in changes.items():
            checked = known[name].validate(value)
            head, _, tail = name.partition('.')
            if tail:
                nested.setdefault(head, {})[tail] = checked
            else:
                direct[name] = checked
        for head, inner in nested.items():
            direct[head] = getattr(self, head).replace(inner)
        return dataclasses.replace(self, **direct)


def parameters(settings: type[Settings]) -> Iterator[Parameter]:
    """Yield every setting of a dataclass, nested ones under dotted names."""
    for field in dataclasses.fields(settings):
        factory: Any = field.default_factory
        if isinstance(factory, type) and issubclass(factory, Settings):
            for inner in parameters(factory):
                yield dataclasses.replace(inner, name=f'{field.name}.{inner.name}')
        else:
            yield Parameter(name=field.name, default=field.default, **field.metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution(Settings):
    """Size of the network's input; the aspect ratio of the image is always kept."""

    short_side: int = setting(
        0,
        'Short side of the network input; 0 takes the model config',
        unit='px',
        minimum=0,
        maximum=4096,
        runtime=True,
    )
    long_side: int = setting(
        0,
        'Upper bound for the long side of the network input; 0 takes the model config',
        unit='px',
        minimum=0,
        maximum=8192,
        runtime=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter(Settings):
    """Which instances are kept."""

    score_threshold: float = setting(
        -1.0,
        'Smallest score of an instance; -1 takes the model config',
        minimum=-1.0,
        maximum=1.0,
        runtime=True,
    )
    nms_threshold: float = setting(
        -1.0,
        'IoU above which the lower of two boxes of a class is dropped; -1 takes the model config',
        minimum=-1.0,
        maximum=1.0,
        runtime=True,
    )
    max_instances: int = setting(
        0,
        'Most instances in a frame, by score; 0 takes the model config',
        minimum=0,
        maximum=MOST_INSTANCES,
        runtime=True,
    )
    min_mask_area: int = setting(
        0,
        "Smallest area of an instance's own mask, before overlaps are resolved; 0 is off",
        unit='input px',
        minimum=0,
        maximum=2**31 - 1,
        runtime=True,
    )
    max_mask_area: int = setting(
        0,
        "Largest area of an instance's own mask, before overlaps are resolved; 0 is off",
        unit='input px',
        minimum=0,
        maximum=2**31 - 1,
        runtime=True,
    )
    classes: tuple[str, ...] = setting(
        (), 'Names of the classes to keep; an empty list keeps all', runtime=True
    )

    def __post_init__(self) -> None:
        Settings.__post_init__(self)
        for name in ('score_threshold', 'nms_threshold'):
            if -1 < getattr(self, name) < 0:
                raise ConfigError(
                    f'filter.{name}: expected -1 or 0 to 1, found {getattr(self, name)!r}'
                )
        if 0 < self.max_mask_area < self.min_mask_area:
            raise ConfigError(
                f'filter.max_mask_area: expected 0 or at least min_mask_area '
                f'({self.min_mask_area}), found {self.max_mask_area}'
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(Settings):
    """What the engine is and does; the node and every command share it."""

    model: str = setting(
        '',
        'Preset name, or path of a config of Detectron2 or MMDetection, of a checkpoint of '
        'MMDetection, of the description of an exported model, or of a folder of `segnode '
        'export`; empty takes the embedded demo model; null or null:MS has no network, for '
        'measurements',
    )
    weights: str = setting('', "Path or URL of the weights; empty takes the model's own")
    refresh: bool = setting(
        False,
        'Ask the server of a weights URL for a newer file before the start; without an answer the '
        'cached one runs',
    )
    backend: str = setting(
        'auto',
        'Who runs the network: native is segnode itself, torchscript an exported file, openvino '
        'and onnxruntime a folder of `segnode export`',
        choices=('auto', 'native', 'torchscript', 'openvino', 'onnxruntime'),
    )
    device: str = setting('auto', 'Compute device: auto, cpu, cuda or cuda:N')
    precision: str = setting(
        'auto',
        'Number format of the network; coordinates and scores stay in fp32; int8 comes from a '
        'folder of `segnode export` alone',
        choices=('auto', 'fp16', 'bf16', 'fp32', 'int8'),
    )
    norm_eps: float = setting(
        -1.0,
        "Epsilon of the network's norms, which no checkpoint tells; -1 takes 0 for torchvision's "
        'published weights, else 1e-5',
        minimum=-1.0,
        maximum=1.0,
    )
    memory_limit_mb: int = setting(
        0,
        'Most device memory that this process may take, on a GPU; 0 is off',
        unit='MB',
        minimum=0,
        maximum=2**31 - 1,
    )
    class_names: tuple[str, ...] = setting(
        (), "Names of the classes in the model's order; empty takes the model's own"
    )
    resolution: Resolution = dataclasses.field(default_factory=Resolution)
    filter: Filter = dataclasses.field(default_factory=Filter)
    proposals: int = setting(
        0,
        'Boxes kept after the region proposal network; 0 takes the model config',
        minimum=0,
        maximum=2000,
        runtime=True,
    )
    mask_threshold: float = setting(
        -1.0,
        'Probability from which a pixel belongs to a mask; -1 takes 0.5',
        minimum=-1.0,
        maximum=1.0,
        runtime=True,
    )

    def __post_init__(self) -> None:
        Settings.__post_init__(self)
        if -1 < self.norm_eps < 0:
            raise ConfigError(f'norm_eps: expected -1 or 0 to 1, found {self.norm_eps!r}')
        if -1 < self.mask_threshold <= 0:
            raise ConfigError(
                f'mask_threshold: expected -1 or more than 0, found {self.mask_threshold!r}'
            )
