# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Python configs against Python itself, and what must not be run or exhaust the machine."""

from __future__ import annotations

import os
import random
import re
import time
from pathlib import Path
from typing import Any

import pytest
from seeds import fresh_seeds

from segnode.checkpoint.python_config import parse_python_config, read_python_config
from segnode.checkpoint.python_values import Unresolved
from segnode.errors import CheckpointError

PLAIN = """
# A comment.
'''A text that stands alone.'''
one, two = 1, -2.5
scale = (1333, 800)
names = ['a', "b"] + ['c'] * 2
model = dict(type='A', depth=one + 49, sizes=[2 * 4, 10 / 4, 7 // 2, 3 - 1], **dict(extra=None))
model['inner'] = {'x': True, 3: model['depth']}
model['sizes'][1] = 5
text = 'data/' + 'coco/'
text += f'{names[0]}/{one}'
copied = dict(model, depth=101)
listed = [*scale, *tuple([1])]
typed: int = 3
gone = 1
del gone
"""


def run(text: str) -> dict[str, Any]:
    """Return what Python makes of a text that is one's own."""
    names: dict[str, Any] = {}
    exec(text, names)
    return {name: value for name, value in names.items() if not name.startswith('__')}


def test_plain_statements_mean_what_they_mean_in_python() -> None:
    assert parse_python_config(PLAIN, 'x') == run(PLAIN)


def random_value(rng: random.Random, depth: int) -> Any:
    kinds = ['number', 'text', 'none', 'list', 'tuple', 'dict']
    kind = rng.choice(kinds if depth else kinds[:3])
    if kind == 'number':
        return rng.choice([rng.randint(-999, 999), rng.uniform(-9, 9), 1e-5, True, False])
    if kind == 'text':
        return rng.choice(['', 'a b', "it's", '"', 'é\n', '{', '#'])
    if kind == 'none':
        return None
    values = [random_value(rng, depth - 1) for _ in range(rng.randint(0, 3))]
    if kind == 'dict':
        return {f'key_{index}': value for index, value in enumerate(values)}
    return values if kind == 'list' else tuple(values)


@pytest.mark.parametrize('seed', fresh_seeds(5))
def test_any_value_is_read_as_it_was_written(seed: int) -> None:
    rng = random.Random(seed)
    values = {f'name_{index}': random_value(rng, 4) for index in range(20)}
    text = '\n'.join(f'{name} = {value!r}' for name, value in values.items())
    assert repr(parse_python_config(text, 'x')) == repr(values)


@pytest.mark.parametrize(
    'statement',
    [
        'a = open("x")',
        'a = __import__("os").system("x")',
        'a = b.c',
        'a = [x for x in range(3)]',
        'a = 1 if b else 2',
        'a = lambda: 1',
        'a = b"x"',
        'a = "%s" % 1',
        'a = f"{1:>9}"',
        'a = 2 ** 8',
        'a = {1, 2}',
        'a = 10**30 * 10',
        'a = "{{$HOME:x}}"',
        'import a',
        'from b import c as a',
        'def a(): pass',
        'for a in (1, 2): pass',
        'if 1:\n    a = 1',
        'with open("x") as a: pass',
        'a = 1\nf(a)',
        'a = []\nb = a.append(1)',
        'a = []\na.append(1)',
        'a = {}\nb = a.update(c=1)',
        'a = 1\na.b = 2',
        'a = []\nb = (a := 3)',
        'a, b = 1',
        'dict = print\na = dict(b=1)',
    ],
)
def test_what_is_not_followed_is_unresolved(statement: str) -> None:
    found = parse_python_config(f'other = 5\n{statement}', 'src')
    assert isinstance(found['a'], Unresolved), found
    assert found['other'] == 5
    assert 'of src), which is never run' in repr(found['a'])


def test_bases(tmp_path: Path) -> None:
    (tmp_path / 'sub').mkdir()
    (tmp_path / 'one.py').write_text(
        "size = 3\nmodel = dict(type='A', neck=dict(a=1, b=[1, 2]), head=dict(type='H', x=1))\n"
        'steps = [1, 2]\n'
    )
    (tmp_path / 'two.py').write_text("runtime = dict(hooks=dict(log=5))\nonly_base = 'x'\n")
    (tmp_path / 'sub' / 'leaf.py').write_text(
        "_base_ = ['../one.py', '../two.py']\n"
        "model = dict(neck=dict(b=[3]), head=dict(_delete_=True, type='G'), new=dict(y=2))\n"
        'half = {{_base_.size}} + 1\n'
        "steps = _base_.steps + [_base_.model.neck['a']]\n"
        '_base_.runtime.hooks.log = 7\n'
        "folder = '{{ fileDirname }}/{{fileBasenameNoExtension}}'\n"
    )
    assert read_python_config(tmp_path / 'sub' / 'leaf.py') == {
        'size': 3,
        'model': {
            'type': 'A',
            'neck': {'a': 1, 'b': [3]},
            'head': {'type': 'G'},
            'new': {'y': 2},
        },
        'steps': [1, 2, 1],
        'runtime': {'hooks': {'log': 7}},
        'only_base': 'x',
        'half': 4,
        'folder': f'{(tmp_path / "sub").as_posix()}/leaf',
    }


@pytest.mark.parametrize(
    ('base', 'part'),
    [
        ("'gone.py'", 'found no such file'),
        ("'config.yaml'", 'found another file'),
        ("'https://example.org/a.py'", 'which is never fetched'),
        ("'mmdet::mask_rcnn/a.py'", 'which is never fetched'),
        ("'leaf.py'", 'its own base'),
        ("'link.py'", 'its own base'),
        ("'circle.py'", 'found no such file'),
        (f"'{'a' * 5000}.py'", 'found no such file'),
        ("['one.py', 'two.py']", 'each key in one base alone, found a in two'),
        ('open', 'expected names of configs'),
        ('[1]', 'expected names of configs'),
        ("'clash.py'", 'or _delete_ in it'),
    ],
)
def test_bases_that_are_refused(tmp_path: Path, base: str, part: str) -> None:
    leaf = tmp_path / 'leaf.py'
    leaf.write_text(f'_base_ = {base}\nmodel = dict(a=1)\n')
    (tmp_path / 'config.yaml').write_text('a: 1\n')
    (tmp_path / 'one.py').write_text('a = 1\n')
    (tmp_path / 'two.py').write_text('a = 2\n')
    (tmp_path / 'clash.py').write_text('model = [1]\n')
    (tmp_path / 'link.py').symlink_to(leaf)
    (tmp_path / 'circle.py').symlink_to(tmp_path / 'circle.py')
    with pytest.raises(CheckpointError, match=re.escape(part)) as caught:
        read_python_config(leaf)
    assert len(str(caught.value).splitlines()) == 1


def test_an_import_of_all_names_is_refused() -> None:
    text = 'with read_base():\n    from .._base_.models import *\n'
    with pytest.raises(CheckpointError, match=r'line 2: .* import of all names'):
        parse_python_config(text, 'x')


def test_lines_that_are_a_path_are_left_out() -> None:
    assert parse_python_config('/home/a/configs/b-c.py\nx = 1\n', 'x') == {'x': 1}


HOSTILE = {
    'repeated': 'a = [0] * 10**9\nb = [0] * 999999999',
    'long text': "a = 'x' * 999999999",
    'brackets': f'a = {"[" * 5000}{"]" * 5000}',
    'minus': f'a = {"-" * 100_000}1',
    'sum': f'a = {"+".join("1" * 100_000)}',
    'number': f'a = {"9" * 400_000}',
    'doubled': '\n'.join(['a0 = [1]', *(f'a{i + 1} = a{i} + a{i}' for i in range(60))]),
    'threefold': '\n'.join(['a0 = [1]', *(f'a{i + 1} = [a{i}, a{i}, a{i}]' for i in range(60))]),
    'wrapped': '\n'.join(['a = [1]', *['a = [a]'] * 5000]),
    'in itself': '\n'.join(['a = {}', *["a['x'] = a"] * 5000]),
    'elif': 'if x:\n pass\n' + 'elif x:\n pass\n' * 5000,
    'attributes': f'a = b{".c" * 100_000}',
    'calls': f'a = f{"()" * 100_000}',
    'subscripts': f'a = b{"[0]" * 60_000}',
    'lambdas': f'a = {"lambda:" * 50_000}1',
    'formatted': f'a = f"{"{b}" * 50_000}"',
    'large': 'a = 1\n' * 200_000,
    'not closed': 'a = (',
    'null': 'a = "\0"',
    'no Python': '\x80\x02}q\x00',
}


@pytest.mark.parametrize('text', HOSTILE.values(), ids=HOSTILE)
def test_hostile_texts_are_refused_in_time(text: str) -> None:
    began = time.process_time()
    with pytest.raises(CheckpointError) as caught:
        parse_python_config(text, 'x')
    assert time.process_time() - began < 5
    assert len(str(caught.value)) < 400
    assert len(str(caught.value).splitlines()) == 1


def test_nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr(os, 'system', ran.append)
    text = """
import os
x = os.system('a')
class A:
    os.system('b')
for _ in [os.system('c')]:
    pass
"""
    (tmp_path / 'config.py').write_text(text)
    assert all(
        isinstance(v, Unresolved) for v in read_python_config(tmp_path / 'config.py').values()
    )
    assert not ran
