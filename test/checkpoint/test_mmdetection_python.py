# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Python configs against Python itself, and what must not be run or exhaust the machine."""

from __future__ import annotations

import copy
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
        'a = 1\ntry:\n    f()\nexcept OSError as a:\n    pass',
        'a = 1\nmatch 7:\n    case [5, *a]:\n        pass',
        'a = 1\nmatch 6:\n    case {"x": 5, **a}:\n        pass',
        'a = 1\nmatch 6:\n    case 5 | 6 as a:\n        pass',
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


def random_statement(rng: random.Random, names: dict[str, Any]) -> str:
    dicts = [name for name, value in names.items() if isinstance(value, dict)]
    lists = [name for name, value in names.items() if isinstance(value, list)]
    new, one, other = (rng.choice('abcdef') for _ in range(3))
    number, listed, mapped = rng.randint(0, 99), rng.choice(lists), rng.choice(dicts)
    parts = [f'{name}[{key!r}]' for name in dicts for key in names[name]]
    parts += [f'{name}[{index}]' for name in lists for index in range(len(names[name]))]
    part = rng.choice(parts or [listed])
    return rng.choice(
        [
            f'{new} = {other} = dict(x={one}, y={number})',
            f'{new} = [{one}, ({other}, {number})]',
            f'{new} = {one}',
            f'{new} = {part}',
            f'{part} = {rng.choice([one, number])}',
            f'{part} = dict(x={number})',
            f'{mapped}[{rng.choice("xyz")!r}] = {one}',
            f'{listed} += [{number}, {one}]',
            f'{new} = {listed} + {rng.choice(lists)}',
            f'{new} = dict({mapped}, z={one})',
            f'{new} = dict(**{mapped})',
            f'{new} = [*{listed}]',
            f'{new} = list({listed})',
            f'{new} = [{one}] * 2',
            f'{new}, {other} = {one}, {part}',
        ]
    )


@pytest.mark.parametrize('seed', fresh_seeds(20))
def test_names_share_what_they_share_in_python(seed: int) -> None:
    rng = random.Random(seed)
    text = 'a = dict(x=dict(y=1))\nb = [a, 2]\nc, d, e, f = 1, {}, [], dict(x=b)\n'
    names = run(text)
    while text.count('\n') < 40:
        statement, tried = random_statement(rng, names), copy.deepcopy(names)
        exec(statement, tried)
        tried.pop('__builtins__', None)
        kinds = {type(value) for value in tried.values()}
        if '...' not in (shown := repr(tried)) and len(shown) < 2000 and {dict, list} <= kinds:
            text, names = f'{text}{statement}\n', tried
    assert parse_python_config(text, 'x') == run(text), text


@pytest.mark.parametrize(
    'statement',
    [
        'part.update(depth=101)',
        'for each in [part]:\n    each["depth"] = 101',
        'f(part)',
        'x = f(part)',
        'x = f((1, part))',
        'x = list(map(lambda d: d.update(depth=101), [part]))',
        'pair = (1, part)\nf(pair)',
        'whole = [dict(inner=part)]\nx = f(whole)',
        'other = model["part"]\nother |= dict(depth=101)',
        'other = model\nother["part"]["depth"] += 51',
        'x = y.z(part)',
        'x.y = part\nx.f()',
        'a, *b = part, 1\nb.f(a)',
        'del part["depth"]',
        'model["part"]["sizes"][0:1] = [5]',
    ],
)
def test_what_is_lost_is_lost_by_every_name(statement: str) -> None:
    text = f'part = dict(depth=50, sizes=[1])\nmodel = dict(part=part)\nn = 5\n{statement}\n'
    found = parse_python_config(text, 'x')
    kept = found['model'] if isinstance(found['model'], Unresolved) else found['model']['part']
    if not isinstance(kept, Unresolved):
        assert isinstance(kept['sizes'], Unresolved), found
    assert found['n'] == 5


@pytest.mark.parametrize(
    'text',
    [
        'def f():\n    part["depth"] = 101\npart = dict(depth=50)\nmodel = dict(part=part)\nf()',
        'f = lambda: part.update(depth=101)\npart = dict()\nmodel = dict(part=part)\nf()',
        'x = dict()\ndef f():\n    x["a"]["b"] = 1\npart = dict()\nx["a"] = part\n'
        'model = dict(part=part)\nf()',
    ],
)
def test_what_a_function_names_stays_lost(text: str) -> None:
    assert isinstance(parse_python_config(text, 'x')['model']['part'], Unresolved)


@pytest.mark.parametrize(
    ('statements', 'depth'),
    [
        ('m = _base_.model\nm.part.depth = 101', 101),
        ("m = _base_.model\nm['part']['depth'] = 101", 101),
        ('m = _base_.model.sizes\nm[0] = 7\n_base_.model.part.depth = m[0]', 7),
        # What is put into a base is copied there.
        ("p = dict(depth=18)\n_base_.model.part = p\np['depth'] = 34", 18),
        ('m = _base_.model.part\n_base_.model.more = m\nm.depth = 34', 34),
        ('p = dict(depth=1)\nq = dict(part=p)\nf(p)\n_base_.model = dict(q=q)', ...),
        ('f(_base_)', None),
        ('m = _base_.model\nf(m)', None),
        ('x = [_base_ for _ in y]', None),
        ('def f():\n    _base_.model.part.depth = 1', None),
    ],
)
def test_names_share_with_their_base(tmp_path: Path, statements: str, depth: Any) -> None:
    (tmp_path / 'base.py').write_text('model = dict(part=dict(depth=50), sizes=[1])\n')
    (tmp_path / 'leaf.py').write_text(f"_base_ = './base.py'\n{statements}\n")
    model = read_python_config(tmp_path / 'leaf.py')['model']
    if depth is None:
        assert isinstance(model, Unresolved)
    elif depth is ...:
        assert isinstance(model['q']['part'], Unresolved)
    else:
        assert model['part']['depth'] == depth


@pytest.mark.parametrize('delete', ['True', '1', "'yes'", '[0]', 'False', '0', 'None', 'not 0'])
def test_any_truth_deletes(tmp_path: Path, delete: str) -> None:
    (tmp_path / 'base.py').write_text('model = dict(a=1, b=2)\n')
    (tmp_path / 'leaf.py').write_text(
        f"_base_ = './base.py'\nmodel = dict(_delete_={delete}, a=3)\n"
    )
    model = read_python_config(tmp_path / 'leaf.py')['model']
    if delete == 'not 0':
        assert isinstance(model, Unresolved)
    else:
        assert model == ({'a': 3} if eval(delete) else {'a': 3, 'b': 2})


@pytest.mark.parametrize(
    'statement',
    [
        "globals()['model'] = 1",
        "exec('model = 1')",
        'x = [locals().update(model=1)]',
        'def f():\n    vars()',
        'g = eval',
    ],
)
def test_what_may_change_anything_unnamed_is_refused(statement: str) -> None:
    with pytest.raises(CheckpointError, match=r'line [23]: .* which may change all of it; give'):
        parse_python_config(f'model = dict()\n{statement}', 'x')
    assert parse_python_config("vars = 1\nx = dict(vars=vars, eval='exec')", 'x')['vars'] == 1


def test_bases_may_import_alike(tmp_path: Path) -> None:
    (tmp_path / 'one.py').write_text('import os\na = 1\n')
    (tmp_path / 'two.py').write_text('import os\nb = 2\n')
    (tmp_path / 'leaf.py').write_text("_base_ = ['one.py', 'two.py']\n")
    found = read_python_config(tmp_path / 'leaf.py')
    assert (found['a'], found['b']) == (1, 2)
    assert isinstance(found['os'], Unresolved)


def test_a_large_base_used_often_is_read_in_time(tmp_path: Path) -> None:
    names = '\n'.join(f'n{index}=1' for index in range(5_000))
    (tmp_path / 'base.py').write_text(names)
    (tmp_path / 'leaf.py').write_text(
        f"_base_ = 'base.py'\nx = f({'_base_,' * 10_000})\nf({'_base_,' * 10_000})\n"
    )
    began = time.process_time()
    assert isinstance(read_python_config(tmp_path / 'leaf.py')['n7'], Unresolved)
    assert time.process_time() - began < 5


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
    'circle': "a = {}\na['x'] = a",
    'grown': "a = [0]\nb = [a] * 100_000\na += ['x' * 100_000]",
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
