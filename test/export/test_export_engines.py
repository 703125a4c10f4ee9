# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Exported folders in their engines: what is read, refused, printed and given back."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_exports import FORMATS, FORMATS_OF_ANY_SIZE, HW, any_or, made, request, small_model
from test_export import edit_architecture, set_manifest

from segnode.benchmark.planted import render_frames
from segnode.checkpoint import NativeModel
from segnode.checkpoint.exported import MANIFEST
from segnode.checkpoint.weights_file import digest
from segnode.config import Config
from segnode.engine import Engine
from segnode.errors import CheckpointError, OutOfMemoryError, ProgramError, failures_of


@pytest.fixture(scope='module')
def model() -> NativeModel:
    return small_model()


@pytest.fixture(scope='module')
def folders(model: NativeModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One export of each format, for any size where PyTorch can do that, and one for one size."""
    place = tmp_path_factory.mktemp('engines')
    for form in FORMATS:
        made(model, request(form, place / form, shapes=any_or(form, HW), check=()))
    made(model, request('onnx', place / 'sized', shapes=(HW,), check=()))
    return {name: place / name for name in (*FORMATS, 'sized')}


@pytest.fixture
def copied(folders: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """Give a copy of one of the folders, to be changed."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(folders[name], tmp_path / 'e'))

    return copy


def parts_of(folder: Path) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = json.loads((folder / MANIFEST).read_text())['parts']
    return parts


def list_anew(folder: Path) -> None:
    """List the files as they now are."""
    parts = parts_of(folder)
    for part in parts:
        part['sha256'] = [digest(folder / name, 'sha256') for name in part['files']]
    set_manifest(folder, parts=parts)


def refusal(folder: Path) -> str:
    """Return the one line with which a folder is refused."""
    with pytest.raises(CheckpointError) as error:
        Engine(Config(model=str(folder))).segment(render_frames(HW, 1))
    assert str(folder) in str(error.value)
    assert '\n' not in str(error.value)
    return str(error.value)


# --- files


@pytest.mark.parametrize('named', ['side.data', '../side.data', '*/_ORT_MEM_ADDR_/*'])
def test_numbers_outside_of_a_program_are_refused(
    named: str, copied: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx

    folder = copied('onnx')
    file = folder / 'mask_head.onnx'
    program = onnx.load(file)
    onnx.save_model(
        program, str(file), save_as_external_data=True, location='side.data', size_threshold=0
    )
    shutil.copy(folder / 'side.data', folder.parent)
    program = onnx.load(file, load_external_data=False)
    for tensor in program.graph.initializer:
        for entry in tensor.external_data:
            entry.value = named if entry.key == 'location' else entry.value
    file.write_bytes(program.SerializeToString())
    list_anew(folder)
    # Bytes have no folder of their own, and ONNX Runtime takes the working one.
    monkeypatch.chdir(folder)
    assert 'found one that reads them from another file' in refusal(folder)


def test_openvino_reads_its_own_format_alone(
    folders: dict[str, Path], copied: Callable[[str], Path]
) -> None:
    folder = copied('openvino')
    # It would take this for what it is, whatever its name.
    shutil.copy(folders['onnx'] / 'mask_head.onnx', folder / 'mask_head.xml')
    list_anew(folder)
    assert "expected OpenVINO's own format, found another" in refusal(folder)


# --- parts


def another_box_head(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [*parts, {**parts[1], 'name': 'box_head.1'}]


def arabic_digit(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [parts[0], {**parts[1], 'name': 'box_head.\u0660'}, parts[2]]


def twice(n: int) -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
    return lambda parts: [*parts, parts[n]]


def another_size(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [*parts, {**parts[0], 'network_hw': [64, 64]}]


def sized_head(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [*parts[:2], {**parts[2], 'network_hw': list(HW)}]


@pytest.mark.parametrize('form', [*FORMATS, 'sized'])
@pytest.mark.parametrize(
    ('change', 'problem'),
    [
        (another_box_head, 'part box_head.1 is not of this version'),
        (arabic_digit, 'is not of this version'),
        (twice(0), 'expected the parts'),
        (twice(1), 'expected the parts'),
        (twice(2), 'expected the parts'),
        (another_size, 'expected the parts'),
        (sized_head, 'expected the parts'),
        (lambda _: [], 'found none'),
    ],
)
def test_parts_of_another_network(
    form: str,
    change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]],
    problem: str,
    copied: Callable[[str], Path],
) -> None:
    folder = copied(form)
    set_manifest(folder, parts=change(parts_of(folder)))
    assert problem in refusal(folder)


@pytest.mark.parametrize(
    ('shapes', 'problem'),
    [
        ([], 'expected the parts trunk, box_head.0 and mask_head, each once, for any size'),
        ([[64, 64]], 'each once, for 64x64, found trunk 96x128'),
        ([[97, 128]], 'shapes of multiples of 32, found 97x128'),
    ],
)
def test_sizes_that_no_trunk_is_for(
    shapes: list[list[int]], problem: str, copied: Callable[[str], Path]
) -> None:
    folder = copied('sized')
    set_manifest(folder, shapes=shapes)
    assert problem in refusal(folder)


# --- numbers


def backbone(kind: str, **fields: Any) -> dict[str, Any]:
    defaults: dict[str, dict[str, Any]] = {
        'ResNetSpec': {
            'depth': 18, 'num_groups': 1, 'width_per_group': 64, 'stem_out_channels': 16,
            'res2_out_channels': 16, 'stride_in_1x1': True, 'norm': 'BN',
        },
        'ResNeStSpec': {
            'depth': 50, 'radix': 2, 'reduction': 4, 'stem_channels': 32, 'width': 64,
        },
        'ConvNeXtSpec': {'depths': [1] * 4, 'channels': [8] * 4},
    }  # fmt: skip
    return {'backbone': {'kind': kind, **defaults[kind], **fields}}


@pytest.mark.parametrize(
    ('changes', 'problem'),
    [
        ({'anchor_sizes': [[1e300]] * 5}, 'numbers from 1e-09 to 100000, found 1e[+]300'),
        ({'pixel_mean': [1e38] * 3}, 'numbers from'),
        ({'pixel_std': [1e-300] * 3}, 'numbers from'),
        ({'short_side': 1 << 31}, 'numbers from'),
        ({'max_instances': 1 << 31}, 'numbers from'),
        (backbone('ResNetSpec', depth=7), 'a backbone of 18, 34, 50, 101, 152 layers, found 7'),
        (backbone('ResNetSpec', depth=50, num_groups=0), 'cannot be built'),
        (backbone('ResNetSpec', stem_out_channels=-4), 'cannot be built'),
        (backbone('ResNeStSpec', reduction=0), 'cannot be built'),
        (backbone('ConvNeXtSpec', channels=[-1] * 4), 'cannot be built'),
        (backbone('ConvNeXtSpec', depths=[10**5] * 4), '64 blocks a stage at most'),
        ({'box_fc_dims': [-3]}, 'cannot be built'),
        ({'strides': [4, 8, 16, 32, 128]}, "maps of the manifest's strides, .* 1x1, found .* 2x2"),
    ],
)
def test_numbers_that_no_network_has(
    changes: dict[str, Any], problem: str, copied: Callable[[str], Path]
) -> None:
    folder = copied('onnx')
    edit_architecture(folder, **changes)
    assert re.search(problem, refusal(folder))


def test_a_folder_may_keep_the_size_of_images(copied: Callable[[str], Path]) -> None:
    folder = copied('onnx')
    edit_architecture(folder, short_side=0)
    assert Engine(Config(model=str(folder))).segment(render_frames(HW, 1))[0].network_hw == HW


@pytest.mark.parametrize(
    ('form', 'precision', 'problem'),
    [
        ('onnx', 'int8', 'found none that is quantised'),
        ('openvino', 'int8', 'found none that is quantised'),
        ('onnx', 'bf16', 'expected fp32 or int8 of onnx, found bf16'),
    ],
)
def test_a_precision_that_the_programs_have_not(
    form: str, precision: str, problem: str, copied: Callable[[str], Path]
) -> None:
    folder = copied(form)
    set_manifest(folder, precision=precision)
    assert problem in refusal(folder)


# --- what engines raise, print and hold


def test_every_failure_of_a_library_is_known() -> None:
    from onnxruntime.capi import onnxruntime_pybind11_state as ours
    from openvino import _pyopenvino

    assert issubclass(ours.NoSuchFile, failures_of(ours))
    assert issubclass(ours.EPFail, failures_of(ours))
    assert issubclass(_pyopenvino.OpValidationFailure, failures_of(_pyopenvino))
    assert not issubclass(KeyboardInterrupt, failures_of(ours))


@pytest.mark.parametrize('form', FORMATS)
def test_no_room_for_a_program(
    form: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from segnode.engine.openvino_library import ov

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError('Exception from x.cpp:1:\nstd::bad_alloc\n')

    monkeypatch.setattr('onnxruntime.InferenceSession', fail)
    monkeypatch.setattr(ov.Core, 'compile_model', fail)
    with pytest.raises(OutOfMemoryError, match=r'(onnx|xml): cpu has no room for the program$'):
        Engine(Config(model=str(folders[form])))


@pytest.mark.parametrize('form', FORMATS_OF_ANY_SIZE)
def test_an_engine_that_fails_prints_nothing(
    form: str, copied: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    folder = copied(form)
    # Its pyramid cannot be summed for a size that is no multiple of 32.
    edit_architecture(folder, size_divisibility=7)
    engine = Engine(Config(model=str(folder)))
    with pytest.raises((ProgramError, CheckpointError)):
        engine.segment(render_frames(HW, 1))
    engine._backend.clear()
    with pytest.raises((ProgramError, CheckpointError)):
        engine.segment(render_frames(HW, 1))
    said = capfd.readouterr()
    assert said.out + said.err == ''


TWO_ENGINES = """
import os, signal, sys
from segnode.config import Config
from segnode.engine import Engine
first, second = (Engine(Config(model=sys.argv[1])) for _ in range(2))
del first
del second
signal.signal(signal.SIGINT, lambda *_: print('handled'))
os.kill(os.getpid(), signal.SIGINT)
print('ended')
"""


def test_ctrl_c_after_two_engines(folders: dict[str, Path]) -> None:
    """The stack for signals is there whatever ends first."""
    run = subprocess.run(
        [sys.executable, '-c', TWO_ENGINES, str(folders['openvino'])],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == ['handled', 'ended']


def test_memory_is_given_back_once(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(Config(model=str(folders['onnx'])))
    frame, asked = render_frames(HW, 1), []
    for program in engine._backend._programs:  # type: ignore[attr-defined]

        def run(
            names: Any, inputs: Any, options: Any, session: Any = program._session
        ) -> list[Any]:
            entry = 'memory.enable_memory_arena_shrinkage'
            asked.append('' if options is None else options.get_run_config_entry(entry))
            found: list[Any] = session.run(names, inputs, options)
            return found

        monkeypatch.setattr(program, '_session', types.SimpleNamespace(run=run))
    engine.segment(frame)
    engine._backend.clear()
    engine.segment(frame)
    engine.segment(frame)
    # The trunk and both heads.
    assert asked == ['', '', '', 'cpu:0', 'cpu:0', 'cpu:0', '', '', '']
