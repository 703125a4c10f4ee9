# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""What the classes are called: as the user says, as the file says, or as COCO does.

COCO's names are given to weights that are known to be COCO's and to no others: that a model has
80 classes says nothing of what they are.
"""

from __future__ import annotations

import ast
import json
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from segnode.checkpoint.coco_classes import (
    COCO_CATEGORIES,
    COCO_CATEGORY_IDS,
    COCO_CLASS_NAMES,
)
from segnode.checkpoint.message import one_line
from segnode.checkpoint.presets import PRESETS
from segnode.checkpoint.weights_file import check_file, digest
from segnode.config import user_path
from segnode.errors import CheckpointError, ConfigError
from segnode.text_files import decode, read_at_most

# torchvision numbers its classes by COCO's sparse category ids, 1 to 90.
SPARSE_IDS: Final = tuple(range(1, 91))
PLACEHOLDER: Final = 'N/A'
SPARSE_NAMES: Final = tuple(COCO_CATEGORIES.get(i, PLACEHOLDER) for i in SPARSE_IDS)
_COCO: Final = {len(names): names for names in (COCO_CLASS_NAMES, SPARSE_NAMES)}

_FILE_SUFFIXES: Final = ('.csv', '.json', '.names', '.py', '.txt', '.yaml', '.yml')
# An annotations file of COCO's validation set has 20 MB; YAML and Python are read slowly.
_LARGEST_JSON: Final = 64 << 20
_LARGEST_TEXT: Final = 256 << 10
# Under one of these keys stand the names: COCO, Ultralytics, segnode, Detectron2's metadata.
_KEYS: Final = ('categories', 'names', 'class_names', 'thing_classes', 'classes')
_BACKGROUND: Final = ('__background__', '_background_', 'background')
_NUMBERED: Final = re.compile(r'(\d{1,6})(?:\s*[:,)=]\s*(?!\d)|\.\s+|(\s+))(\S.*)')
# The colon of "scale 1:10" is a part of the name.
_NAMED: Final = re.compile(r'(.*[^\s\d])\s*[:,=]\s*(\d{1,6})')
_CODE: Final = re.compile(r'[\[\]{}]|=\s*\(')
_CONTROL: Final = re.compile('[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]')
_REMEDY: Final = 'write one name on each line, or a JSON list'


def class_names(
    given: Sequence[str],
    metadata: Mapping[str, str],
    count: int | None,
    report: Callable[[str], None],
    *,
    is_coco: Callable[[], bool],
) -> tuple[str, ...]:
    """Return the names that the user gave, else the file's, else COCO's, else ``class_0``, ...

    Args:
        given: the user's setting: names, or one file of them.
        metadata: of the weights file.
        count: number of classes, None where only the names tell.
        report: is told what was assumed.
        is_coco: says whether the weights are known to be COCO's; asked only where it matters.

    Raises:
        ConfigError: the names are not one for each class, each of its own; or there are none and
            no number either.
        CheckpointError: the file's own names are damaged.
    """
    source, names = 'class_names', [name.strip() for name in given]
    if names:
        if path := _file_of(names):
            source, names = str(path), read_names(path, report)
    elif 'class_names' in metadata:
        source, names = 'class_names in the weights', _stored_names(metadata['class_names'])
    elif count in _COCO and is_coco():
        return _COCO[count]
    elif count is None:
        raise ConfigError(
            'class_names: expected names, as this model does not tell its classes, found none; '
            "give them in the model's order, or a file of them"
        )
    else:
        report(
            f'class_names: none are known for these weights, so they are class_0 to '
            f"class_{count - 1}; give them in the model's order, or a file of them"
        )
        return tuple(f'class_{index}' for index in range(count))
    return _checked(names, source, count, report)


def is_published_coco(weights: Path) -> bool:
    """Return whether a weights file is one that was published as trained on COCO.

    It is where its digest is that of a preset, or where it has a name of Detectron2's model zoo,
    whose end is the beginning of the file's MD5. Of the zoo, only COCO's models have 80 classes.
    """
    digests = {name: digest(weights, name) for name in ('md5', 'sha256')}
    named = re.fullmatch(r'model_final_([0-9a-f]{6,32})\.pkl', weights.name)
    published = [preset.checksum for preset in PRESETS.values()]
    return any(digests[c.algorithm].startswith(c.prefix) for c in published) or (
        named is not None and digests['md5'].startswith(named[1])
    )


def category_ids(names: tuple[str, ...]) -> tuple[int, ...] | None:
    """Return COCO's category ids where the names are COCO's, else None."""
    if names == SPARSE_NAMES:
        return SPARSE_IDS
    return COCO_CATEGORY_IDS if names == COCO_CLASS_NAMES else None


def read_names(path: Path, report: Callable[[str], None]) -> list[str]:
    """Read class names in the model's order from a file of any usual form.

    One on each line, with or without numbers before them; a JSON, YAML or Python list, or
    mapping of numbers to names or back; a file that has one of these under ``names``; the
    ``categories`` of COCO annotations, by id, as Detectron2's ``register_coco_instances`` has
    them. Nothing is evaluated.

    Args:
        path: the file.
        report: is told what was left out of it.

    Raises:
        ConfigError: it is missing, too large, or holds no names.
    """
    expected = f'{path}: expected class names'
    try:
        check_file(path, 'class names')
        data = read_at_most(path, _LARGEST_JSON)
    except CheckpointError as error:
        raise ConfigError(str(error)) from None
    except OSError as error:
        raise ConfigError(f'{expected}, found {error.strerror}') from None
    try:
        text = '' if data is None else decode(data).strip()
    except UnicodeDecodeError:
        raise ConfigError(f'{expected} as UTF-8 text, found other bytes; {_REMEDY}') from None
    structured = path.suffix.lower() in ('.json', '.yaml', '.yml', '.py') or bool(
        re.match(r'[\[{(]|- |(names|categories)\s*:', re.sub(r'^(\s*#.*\n|\s+)+', '', text))
    )
    try:
        if data is None:
            raise ValueError(f'a file of more than {_LARGEST_JSON >> 20} MiB')
        if structured:
            return _names_in(_parse(text))
        return _names_in_lines(text, path.suffix.lower() == '.csv', report)
    except ValueError as error:
        raise ConfigError(f'{expected}, found {one_line(error)}; {_REMEDY}') from None


def _file_of(names: list[str]) -> Path | None:
    """Return the file that the user's names are, None where they are names."""
    if len(names) > 1:
        for name in names:
            if Path(name).suffix.lower() in _FILE_SUFFIXES:
                raise ConfigError(
                    f'class_names: expected names or one file, found {one_line(name)} among names'
                )
        return None
    path = user_path(names[0])
    like_a_path = bool(re.search(r'[/\\]', names[0])) or path.suffix.lower() in _FILE_SUFFIXES
    try:
        if path.is_file() or (like_a_path and path.exists()):
            return path
    except (OSError, ValueError):  # too long for a path, or with a NUL
        pass
    if like_a_path:
        raise ConfigError(
            f'class_names: expected class names, found no such file: {one_line(names[0])} '
            '(one item with a slash or a suffix such as .txt is a file of names)'
        )
    return None


def _stored_names(text: str) -> list[str]:
    try:
        names = json.loads(text)
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CheckpointError('class_names in the weights: expected a JSON list of texts')
    return [name.strip() for name in names]


def _checked(
    names: list[str], source: str, count: int | None, report: Callable[[str], None]
) -> tuple[str, ...]:
    if names and count == len(names) - 1 and names[0] == _BACKGROUND[0]:
        report(f'{source}: left out {names[0]}, as the background is no class')
        names = names[1:]
    if count not in (None, len(names)):
        ends = {name.lower() for name in (*names[:1], *names[-1:])}
        hint = '; leave out the background' if ends & set(_BACKGROUND) else ''
        raise ConfigError(
            f'{source}: expected {count} names, one for each class, found {len(names)}{hint}'
        )
    for name in names:
        if not name:
            raise ConfigError(f'{source}: expected names, found an empty one')
        if _CONTROL.search(name):
            raise ConfigError(f'{source}: expected names, found {name[:60]!r}')
    # torchvision's list of COCO's names has a placeholder in ten places. One name in both forms
    # of Unicode looks like one name.
    alike = Counter(unicodedata.normalize('NFC', name) for name in names)
    for name, times in alike.most_common(2):
        if times > 1 and name != PLACEHOLDER:
            raise ConfigError(
                f'{source}: expected a name of its own for each class, '
                f'found {one_line(name)} {times} times'
            )
    return tuple(names)


def _names_in_lines(text: str, is_csv: bool, report: Callable[[str], None]) -> list[str]:
    """Return the names of a text, one on each line.

    Raises:
        ValueError: something else stands there; the text says what.
    """
    if len(text) > _LARGEST_TEXT:
        raise ValueError(f'a text of more than {_LARGEST_TEXT >> 10} KiB')
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    names = [line for line in lines if not line.startswith('#')]
    if len(names) < len(lines):
        report(f'class_names: left out {len(lines) - len(names)} lines that begin with #')
    if not names:
        raise ValueError('none')
    if names[0].startswith('<') or names[0].endswith('{'):
        raise ValueError(repr(names[0][:60]))
    if code := next((name for name in names if _CODE.search(name)), None):
        raise ValueError(f'{code[:60]!r}, which is no name but code')
    if all(name.endswith(',') for name in names[: max(len(names) - 1, 1)]):
        names = [name.removesuffix(',').rstrip() for name in names]
    if len(names) == 1 and ',' in names[0] and not _is_row(names[0]):
        names = [name.strip() for name in names[0].split(',')]
    names = _unquoted(names)
    if comment := next((name for name in names if ' #' in name), None):
        raise ValueError(f'{comment[:60]!r}; a comment needs a line of its own')
    plain = _without_numbers(names)
    if plain != names:
        report('class_names: the numbers beside the names were taken for their places')
    elif is_csv and any(',' in name for name in names):
        raise ValueError(f'a table with {names[0][:60]!r} as its first line')
    names = _unquoted(plain)
    for name in names:
        if ' = ' in name:
            raise ValueError(f'{name[:60]!r}, which is no name but code')
        if name.endswith(',') or name.startswith(("'", '"')):
            raise ValueError(f'{name[:60]!r}, with quotes or a comma that not every name has')
    return names


def _is_row(line: str) -> bool:
    """Return whether a line with a comma is one name with its number."""
    found = _NUMBERED.fullmatch(line) or _NAMED.fullmatch(line)
    return found is not None and line.count(',') == 1


def _unquoted(names: list[str]) -> list[str]:
    """Return names without the pair of quotes that each of them is in."""
    found = [re.fullmatch(r"""(['"])\s*((?:(?!\1).)*?)\s*\1""", name) for name in names]
    pairs = [match[2] for match in found if match]
    return pairs if len(pairs) == len(names) else names


def _without_numbers(names: list[str]) -> list[str]:
    """Return names in the order of the numbers before or after them; as they are without any.

    Raises:
        ValueError: what a number stands for cannot be told, or some names have none.
    """
    found = [_NUMBERED.fullmatch(name) for name in names]
    numbered = [(int(match[1]), match[3]) for match in found if match]
    marked = [match for match in found if match and match[2] is None]
    if len(numbered) == len(names):
        # "1 euro" and "2 euro" are names.
        if marked or min(numbered)[0] == 0:
            return _by_number(numbered)
        if sorted(number for number, _ in numbered) == list(range(1, len(names) + 1)):
            raise ValueError(f'{names[0][:60]!r}, with a number that may be a part of the name')
        return names
    if len(marked) * 2 >= len(names):
        odd = next(n for n, match in zip(names, found, strict=True) if not match)
        raise ValueError(f'numbers before some names and not before {odd[:60]!r}')
    found = [_NAMED.fullmatch(name) for name in names]
    numbered = [(int(match[2]), match[1]) for match in found if match]
    if len(numbered) == len(names):
        return _by_number(numbered)
    if len(numbered) * 2 >= len(names):
        odd = next(n for n, match in zip(names, found, strict=True) if not match)
        raise ValueError(f'numbers after some names and not after {odd[:60]!r}')
    return names


def _parse(text: str) -> Any:
    """Return what a JSON, Python or YAML text holds, as plain data.

    Raises:
        ValueError: it is none of them.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError:
        pass
    except RecursionError:
        raise ValueError('JSON that is nested too deeply') from None
    if len(text) > _LARGEST_TEXT:
        raise ValueError(f'a text of more than {_LARGEST_TEXT >> 10} KiB that is no JSON')
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of odd escapes
            return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        pass
    try:
        return yaml.load(text, _TextLoader)
    except yaml.MarkedYAMLError as error:
        line = '' if error.problem_mark is None else f' in line {error.problem_mark.line + 1}'
        raise ValueError(f'broken JSON or YAML{line}') from None
    except (yaml.YAMLError, TypeError, LookupError, AttributeError, RecursionError):
        raise ValueError('broken JSON or YAML') from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        twice = next(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        raise ValueError(f'the key {twice[:60]!r} twice')
    return content


class _TextLoader(yaml.BaseLoader):
    """Makes texts, lists and mappings alone: a class may be called ``no`` or ``1.0``."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        content = super().construct_mapping(node, deep)
        _unique([(str(key.value), None) for key, _ in node.value])
        return content


def _names_in(content: object) -> list[str]:
    """Return the names of parsed data, see `read_names`.

    Raises:
        ValueError: it holds no list of names; the text says what.
    """
    if isinstance(content, list | tuple | dict) and not content:
        raise ValueError('none')
    if isinstance(content, dict):
        for key in _KEYS:
            if isinstance(content.get(key), list | tuple | dict):
                return _names_in(content[key])
            if key in content:
                raise ValueError(f'{_short(content[key])} under {key!r}')
        pairs = list(content.items())
        if all(isinstance(name, str) and _is_number(number) for number, name in pairs):
            return _by_number([(int(number), name) for number, name in pairs])
        if all(isinstance(name, str) and _is_number(number) for name, number in pairs):
            return _by_number([(int(number), name) for name, number in pairs])
        raise ValueError(f'a mapping with {_short(pairs[0][0])} in it')
    if not isinstance(content, list | tuple):
        raise ValueError(_short(content))
    if all(isinstance(item, str) for item in content):
        return [str(item).strip() for item in content]
    categories = [item for item in content if isinstance(item, dict)]
    named = [(item['id'], item['name']) for item in categories if {'id', 'name'} <= set(item)]
    if len(named) == len(content) and all(
        _is_number(number) and isinstance(name, str) for number, name in named
    ):
        by_id = {int(number): name.strip() for number, name in named}
        if len(by_id) < len(named):
            raise ValueError('a category id twice')
        return [by_id[number] for number in sorted(by_id)]
    odd = next(item for item in content if not isinstance(item, str))
    raise ValueError(f'a list with {_short(odd)} in it')


def _short(value: object) -> str:
    # Never the repr of a container: YAML's anchors make a small text an endless one.
    if isinstance(value, str | int | float):
        return repr(value)[:60]
    return 'nothing' if value is None else f'a {type(value).__name__}'


def _is_number(value: object) -> bool:
    return type(value) is int or (isinstance(value, str) and bool(re.fullmatch(r'\d{1,9}', value)))


def _by_number(numbered: Sequence[tuple[int, str]]) -> list[str]:
    """Return names in the order of their numbers, which count from 0 or 1 without gaps."""
    numbers = sorted(number for number, _ in numbered)
    if numbers[0] > 1 or numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        shown = ', '.join(map(str, numbers[:5]))
        raise ValueError(f'the numbers {shown} beside names, which do not count from 0 or 1')
    return [name.strip() for _, name in sorted(numbered)]
