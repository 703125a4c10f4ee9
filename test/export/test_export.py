# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Exports for other engines: the native answers, and what is no export of this version."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matching import Found, assert_same_instances
from PIL import Image as Picture
from seeds import fresh_seeds
from small_exports import (
    CONVNEXT,
    FORMATS,
    FORMATS_OF_ANY_SIZE,
    HW,
    SMALL,
    SWIN,
    any_or,
    made,
    needs_new_torch,
    request,
    silently,
    small_model,
)

from segnode.__main__ import main
from segnode.benchmark.planted import PlantedDetections, render_frames
from segnode.checkpoint import NativeModel, load_model
from segnode.checkpoint.exported import MANIFEST, Format, description_sha256
from segnode.checkpoint.weights_file import digest
from segnode.config import Config
from segnode.doctor.network import run_model
from segnode.engine import Engine
from segnode.errors import CheckpointError, ConfigError, OutOfMemoryError
from segnode.evaluation.annotations import Annotations
from segnode.evaluation.run import _identity
from segnode.export import run as export_run
from segnode.export.command import _annotated, _pictures
from segnode.export.parity import Reference
from segnode.export.parts import trace_parts
from segnode.export.programs import select_writer
from segnode.export.quantisation import noise_by_layer
from segnode.export.request import Calibration, Request
from segnode.export.run import _check_layers, export
from segnode.export.whole import export_whole
from segnode.model.backbone_specs import BackboneSpec
from segnode.model.mask_rcnn import build_mask_rcnn, expected_state_dict


@pytest.fixture(scope='module')
def model() -> NativeModel:
    return small_model()


@pytest.fixture(scope='module')
def folders(model: NativeModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One export of each format, for any size where this PyTorch can do that."""
    found = {}
    for form in FORMATS:
        found[form] = tmp_path_factory.mktemp('export') / form
        shapes = any_or(form, HW, (200, 150))
        result = made(model, request(form, found[form], shapes=shapes))
        assert result['agreement']['matched'] == result['agreement']['instances_fp32'] > 5
        assert result['agreement']['mask_ap'] > 0.999
    return found


@pytest.fixture(scope='module')
def native(model: NativeModel) -> Engine:
    return Engine(Config(precision='fp32', device='cpu'), model=model)


# --- answers


@pytest.mark.parametrize('form', FORMATS)
def test_answers_are_the_native_ones(form: str, folders: dict[str, Path], native: Engine) -> None:
    engine = Engine(Config(model=str(folders[form])))
    assert (engine.precision, engine.device.type) == ('fp32', 'cpu')
    assert engine.weights_sha256 == '0' * 64
    assert engine.class_names == ('a', 'b', 'c', 'd', 'e')
    # A camera's own size, another one, and a batch; the first again, as its memory is used anew.
    for image_hw, count in ((HW, 1), ((200, 150), 1), (HW, 3), (HW, 1)):
        frames = render_frames(image_hw, count)
        ours, theirs = engine.predict(frames), native.predict(frames)
        assert sum(len(each.detections) for each in theirs) > 3
        for a, b in zip(ours, theirs, strict=True):
            assert_same_instances(Found.of_prediction(a), Found.of_prediction(b))
            assert a.network_hw == b.network_hw
            assert a.counts == b.counts
            assert list(a.stage_ms) == list(b.stage_ms)


@pytest.mark.parametrize('form', FORMATS_OF_ANY_SIZE)
def test_settings_work_as_for_a_native_model(
    form: str, folders: dict[str, Path], native: Engine
) -> None:
    engine = Engine(Config(model=str(folders[form])))
    frames = render_frames(HW, 1)
    for changes in (
        {'filter.score_threshold': 0.3, 'filter.classes': ('a', 'c')},
        {'filter.score_threshold': 1.0},
        {'filter.min_mask_area': 200, 'proposals': 20},
        {'resolution.short_side': 64, 'resolution.long_side': 64},
    ):
        for each in (engine, native):
            each.configure(each.config.replace(changes))
        (a,), (b,) = engine.segment(frames), native.segment(frames)
        assert a.counts == b.counts
        assert np.mean(a.label_image == b.label_image) > 0.999
        for each in (engine, native):
            unset = {key: Config().flat()[key] for key in changes}
            each.configure(each.config.replace(unset))
    # Nothing passes the RPN where no box is as large as that.
    planted = PlantedDetections(4, HW, 5)
    engine.replace_detections(planted.replace)
    assert len(engine.segment(frames)[0].detections) == 4


def test_an_export_for_fixed_sizes_names_them(
    model: NativeModel, tmp_path: Path, native: Engine
) -> None:
    result = made(model, request('openvino', tmp_path / 'e', shapes=(HW,), check=()))
    assert result['shapes'] == [list(HW)]
    assert result['agreement'] is None
    engine = Engine(Config(model=str(tmp_path / 'e')))
    frames = render_frames(HW, 1)
    ours, theirs = engine.predict(frames)[0], native.predict(frames)[0]
    assert_same_instances(Found.of_prediction(ours), Found.of_prediction(theirs))
    with pytest.raises(ConfigError, match=r'network input of 96x128.*found 128x96.*--shapes'):
        engine.predict(render_frames((128, 96), 1))


@pytest.mark.parametrize('seed', fresh_seeds(1))
def test_other_weights_do_not_agree(model: NativeModel, native: Engine, seed: int) -> None:
    frames = render_frames(HW, 3)
    reference = Reference(native, frames, None, lambda pictures: pictures)
    other = Engine(Config(precision='fp32', device='cpu'), model=small_model(seed + 1))
    found = reference.compare(other, lambda pictures: pictures)
    assert found.mask_ap_fp32 is not None
    assert found.mask_ap is not None
    assert found.mask_ap_fp32 > 0.99
    assert found.mask_ap < 0.5
    assert found.lost == found.mask_ap_fp32 - found.mask_ap


@needs_new_torch
def test_sizes_that_are_reserved_stay_compiled(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from segnode.engine.openvino_program import MOST_SIZES, OpenVINO

    compiled: list[Any] = []
    build = OpenVINO._compile
    monkeypatch.setattr(
        OpenVINO, '_compile', lambda self, model: compiled.append(model) or build(self, model)
    )
    engine = Engine(Config(model=str(folders['openvino'])))
    compiled.clear()
    engine.reserve(MOST_SIZES + 1)
    frames = [render_frames((96, 32 * n), 1) for n in range(1, MOST_SIZES + 2)]
    engine.configure(engine.config.replace({'resolution.long_side': 1000}))
    for _ in range(2):
        for frame in frames:
            engine.segment(frame)
    assert len(compiled) == MOST_SIZES + 1


# As the libraries say it, under a limit of the address space.
WITHOUT_MEMORY: tuple[tuple[Format, str, str], ...] = (
    (
        'onnx',
        'Fail',
        '[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Conv node. '
        "Name:'relu_nchwc' "
        'Status Message: /onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:360 void* '
        'onnxruntime::BFCArena::AllocateRawInternal(size_t, bool, onnxruntime::Stream*) Failed to '
        'allocate memory for requested buffer of size 67108864\n',
    ),
    ('onnx', 'RuntimeException', '[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : std::bad_alloc'),
    (
        'openvino',
        'RuntimeError',
        'Exception from src/inference/src/cpp/core.cpp:117:\nException from '
        "src/inference/src/dev/plugin.cpp:54:\nCheck 'ptr' failed at "
        'src/plugins/intel_cpu/src/cpu_memory.cpp:257:\nFailed to allocate 58720256 bytes of '
        'memory\n\n\n',
    ),
    (
        'openvino',
        'RuntimeError',
        'Exception from src/inference/src/cpp/compiled_model.cpp:128:\nException from '
        'src/core/src/runtime/allocator.cpp:79:\nstd::bad_alloc\n\n',
    ),
    ('openvino', 'GeneralFailure', "can't alloc"),
)


@pytest.mark.parametrize(('form', 'kind', 'said'), WITHOUT_MEMORY)
def test_an_engine_without_memory(
    form: Format, kind: str, said: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnxruntime.capi import onnxruntime_pybind11_state
    from openvino import _pyopenvino

    engine = Engine(Config(model=str(folders[form])))
    own = {'onnx': onnxruntime_pybind11_state, 'openvino': _pyopenvino}[form]
    failure = getattr(own, kind, RuntimeError)
    assert failure.__name__ == kind

    def fail(*_: Any) -> None:
        raise failure(said)

    trunk = engine._backend._programs[0]  # type: ignore[attr-defined]
    broken = types.SimpleNamespace(run=fail, set_input_tensor=fail)
    monkeypatch.setattr(trunk, '_session' if form == 'onnx' else '_any_rows', broken)
    with pytest.raises(OutOfMemoryError, match='ran out of memory'):
        engine.segment(render_frames(HW, 1))


def test_sides_that_a_folder_of_fixed_sizes_lacks(model: NativeModel, tmp_path: Path) -> None:
    made(model, request('openvino', tmp_path / 'e', shapes=((128, 96),), check=()))
    engine = Engine(Config(model=str(tmp_path / 'e')))
    with pytest.raises(ConfigError, match=r'make a network input of 128x96.*found 64 and 128'):
        engine.configure(engine.config.replace({'resolution.short_side': 64}))
    assert engine.settings.short_side == 96
    engine.configure(engine.config.replace({'resolution.long_side': 200}))
    finding, _ = run_model(Config(model=str(tmp_path / 'e')))
    assert finding.level == 'ok', finding


def test_an_evaluation_tells_which_export(folders: dict[str, Path]) -> None:
    asked = types.SimpleNamespace(
        bags=(), topics=(), start_s=0.0, end_s=None, every=1, mono16_bits=16, command=''
    )
    for form in FORMATS:
        engine = Engine(Config(model=str(folders[form])))
        told = _identity(engine, asked)  # type: ignore[arg-type]
        assert told['manifest_sha256'] == digest(folders[form] / MANIFEST, 'sha256')
        assert told['weights_sha256'] == '0' * 64


# --- INT8


@needs_new_torch
def test_int8_keeps_what_ranks_and_what_loses(
    model: NativeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Layers are kept until they run out, the second try being the best.
    monkeypatch.setattr(export_run, '_KEPT', (1, 2, 500, 600))
    lost = [0.3, 0.1, 0.2, 0.25]
    tried: list[dict[str, bytes]] = []
    compare = export_run._Job._compare

    def compared(job: Any, folder: Any) -> Any:
        tried.append({n: d for n, d in contents(folder.path).items() if n != MANIFEST})
        return dataclasses.replace(
            compare(job, folder), mask_ap=0.9 - lost[len(tried) - 1], mask_ap_fp32=0.9
        )

    monkeypatch.setattr(export_run._Job, '_compare', compared)
    frames = render_frames(HW, 3)
    said: list[str] = []
    wanted = request(
        'openvino',
        tmp_path / 'e',
        precision='int8',
        calibration=Calibration(pictures=frames, sha256='f' * 64),
        search=True,
    )
    result = export(Config(), model, wanted, said.append, silently)
    kept = result['float32_layers']
    ranking = [
        n for n in kept if n.partition('#')[0].endswith(('logits', 'deltas', 'pred', 'score'))
    ]
    assert len(ranking) == 5 + 5 + 2
    assert len(kept) > len(ranking)
    assert result['agreement']['mask_ap'] == 0.9 - 0.1
    (line, *_) = [line for line in said if 'keeping in fp32' in line]
    assert len(tried) == 4
    assert 'INT8 loses 0.100 of mask AP even with 13 layers in fp32' in said[-1]
    written = contents(tmp_path / 'e')
    assert {name: written[name] for name in tried[1]} == tried[1]
    assert tried[1] != tried[0]
    assert all(name.partition('#')[0] in line for name in set(kept) - set(ranking))
    manifest = json.loads((tmp_path / 'e' / MANIFEST).read_text())
    assert manifest['precision'] == 'int8'
    assert manifest['calibration'] == {'pictures': 3, 'sha256': 'f' * 64}
    assert manifest['float32_layers'] == kept
    assert manifest['agreement'] == result['agreement']
    assert result['agreement']['mask_iou_p50'] > 0.8
    text = (tmp_path / 'e' / 'trunk.xml').read_text()
    assert text.count('"FakeQuantize"') > 20
    assert Engine(Config(model=str(tmp_path / 'e'), precision='int8')).precision == 'int8'


def test_int8_that_nothing_can_judge(
    model: NativeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    job = export_run._Job(
        Config(), model, request('onnx', tmp_path, search=True), said.append, silently
    )
    reference = Reference(
        Engine(Config(precision='fp32', device='cpu'), model=model),
        render_frames(HW, 1),
        Annotations.from_coco(
            {
                'images': [{'id': 0, 'file_name': '0', 'height': HW[0], 'width': HW[1]}],
                'annotations': [],
                'categories': [{'id': 0, 'name': 'a'}],
            }
        ),
        lambda pictures: pictures,
    )
    engine = Engine(Config(precision='fp32', device='cpu'), model=model)
    job._judge(reference.compare(engine, lambda pictures: pictures))
    assert said == [
        'INT8 was not checked: fp32 finds none of what is annotated in the pictures that check'
    ]


@pytest.mark.parametrize('count', [4, 5])
def test_pictures_that_are_too_few_to_check(
    count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for n in range(count):
        Picture.new('RGB', (64, 48), (n, n, n)).save(tmp_path / f'{n}.png')
    options = types.SimpleNamespace(calibrate=[tmp_path], check=[], annotations=None)
    calibration, check, _ = _pictures(options, (), ('a',))
    assert calibration is not None
    assert (len(calibration.pictures), len(check)) == (4, 4 if count == 4 else 1)
    said = capsys.readouterr()
    assert ('INT8 was not checked: fewer than 5' in said.out + said.err) == (count == 4)


def test_annotations_of_other_categories(tmp_path: Path) -> None:
    picture = tmp_path / 'a.png'
    Picture.new('RGB', (64, 48)).save(picture)
    box = {'bbox': [1, 1, 9, 9], 'area': 81, 'segmentation': [[1, 1, 9, 1, 9, 9]]}
    truth = {
        'images': [{'id': 1, 'file_name': 'a.png', 'height': 48, 'width': 64}],
        'annotations': [{'id': 1, 'image_id': 1, 'category_id': 1, 'iscrowd': 0, **box}],
        'categories': [{'id': 1, 'name': 'whale'}],
    }
    file = tmp_path / 'truth.json'
    file.write_text(json.dumps(truth))
    assert _annotated(file, [picture], ['b', 'whale'])[0] == [picture]
    with pytest.raises(ConfigError, match=r'of the model \(a, b\), found none of them \(whale\)'):
        _annotated(file, [picture], ['a', 'b'])


@pytest.mark.parametrize(
    'backbone',
    [
        # Layers of products lose their names to an older PyTorch.
        pytest.param(CONVNEXT, marks=needs_new_torch),
        pytest.param(SWIN, marks=needs_new_torch),
        SMALL.backbone,
    ],
)
def test_every_layer_has_its_name_in_a_program(backbone: BackboneSpec) -> None:
    architecture = dataclasses.replace(SMALL, backbone=backbone)
    shapes = expected_state_dict(architecture)
    state = {name: torch.rand(shape) for name, shape in shapes.items()}
    trunk, *_ = trace_parts(build_mask_rcnn(architecture, state), [(64, 96)], lambda _: None)
    named = {name.partition('#')[0] for name in trunk.layers.values()}
    assert len(named) > 15
    for form in FORMATS:
        writer = select_writer(form)
        found = writer.layers(writer.convert(trunk))
        assert {name.partition('#')[0] for name in found} >= named
        assert len(set(found)) == len(found)
        _check_layers(trunk, found)
        lost = [name for name in found if 'fpn_lateral2' not in name]
        with pytest.raises(ConfigError, match=r'none called backbone\.fpn_lateral2 \(1 of'):
            _check_layers(trunk, lost)


def test_noise_tells_a_layer_that_8_bits_disturb(model: NativeModel) -> None:
    network = build_mask_rcnn(SMALL, model.state_dict)
    fc2 = network.roi_heads.box_head.get_submodule('fc2')
    # One weight of a channel so large that the others vanish beside it, and its input zero.
    fc2.get_parameter('weight')[:, 0] = 1e4
    fc1 = network.roi_heads.box_head.get_submodule('fc1')
    fc1.get_parameter('bias')[0] = -1e6
    parts = trace_parts(network, [HW], lambda _: None)
    (box_head,) = [part for part in parts if part.name == 'box_head.0']
    pooled = np.random.default_rng(0).random((16, 7, 7, 16), dtype=np.float32)
    noise = noise_by_layer(box_head, [pooled])
    assert set(noise) == set(box_head.layers.values())
    assert max(noise, key=lambda name: noise[name]) == 'box_head.fc2'
    assert noise['box_head.fc2'] > 0.5 > 0.01 > noise['box_head.fc1']


# --- the whole network


@needs_new_torch
def test_the_whole_network_in_onnx_runtime(model: NativeModel, tmp_path: Path) -> None:
    # Its own check raises where it differs.
    result = export_whole(
        Config(), model, HW, tmp_path / 'whole', render_frames(HW, 3), lambda _: None
    )
    assert result['agreement']['instances'] > 5
    with pytest.raises(CheckpointError, match=r'found no manifest\.json'):
        load_model(Config(model=str(tmp_path / 'whole')))


def test_a_program_says_nothing_of_who_made_it(folders: dict[str, Path]) -> None:
    import onnx

    for file in folders['onnx'].glob('*.onnx'):
        assert b'stack_trace' not in file.read_bytes()
        graph = onnx.load(file).graph
        noted = (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer)
        assert not any(each.metadata_props or each.doc_string for each in (graph, *noted))
    checkout = str(Path(__file__).resolve().parents[2]).encode()
    for folder in folders.values():
        for file in folder.iterdir():
            assert checkout not in file.read_bytes(), file


@needs_new_torch
def test_the_whole_network_has_the_settings_and_its_own_size(
    model: NativeModel, folders: dict[str, Path], tmp_path: Path
) -> None:
    import onnxruntime

    shutil.copytree(folders['openvino'], tmp_path / 'e')
    config = Config().replace(
        {'filter.score_threshold': 0.3, 'filter.classes': ('a', 'c'), 'filter.max_instances': 7,
         'resolution.short_side': 64}
    )  # fmt: skip
    frames = render_frames((120, 160), 2)
    result = export_whole(config, model, (120, 160), tmp_path / 'e', frames, lambda _: None)
    # 120x160 is none of the network's own sizes: the frames are compared in the one it has.
    assert result['shapes'] == [[64, 85]]
    assert result['agreement']['pictures'] == 2
    names = {file.name for file in (tmp_path / 'e').iterdir()}
    assert names == {'mask_rcnn.onnx', 'written-by-segnode.txt'}
    file = tmp_path / 'e' / 'mask_rcnn.onnx'
    assert str(Path(__file__).parents[2]).encode() not in file.read_bytes()
    session = onnxruntime.InferenceSession(str(file))
    # All that a service needs beside it.
    said = session.get_modelmeta().custom_metadata_map
    assert said.pop('segnode')
    assert {key: said[key] for key in ('model', 'channels')} == {
        'model': 'small',
        'channels': 'BGR',
    }
    assert 'licence' not in said
    assert said['weights_sha256'] == '0' * 64
    assert json.loads(said['class_names']) == ['a', 'b', 'c', 'd', 'e']
    assert json.loads(said['classes']) == [0, 2]
    assert json.loads(said['network_hw']) == [64, 85]
    assert json.loads(said['score_threshold']) == 0.3
    assert json.loads(said['nms_threshold']) == SMALL.nms_threshold
    assert json.loads(said['max_instances']) == 7
    assert json.loads(said['proposals']) == 100
    pixels = np.zeros((64, 85, 3), np.uint8)
    _, scores, _, _ = session.run(None, {'pixels': pixels})
    assert len(scores) == 7
    assert (scores[scores > 0] > 0.3).all()


@pytest.mark.parametrize(
    ('key', 'value'),
    [('filter.min_mask_area', 5), ('filter.max_mask_area', 5), ('mask_threshold', 0.4)],
)
def test_what_the_whole_network_cannot_do(
    key: str,
    value: float,
    model: NativeModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A wrong setting comes before what the machine lacks.
    monkeypatch.setitem(sys.modules, 'onnxscript', None)
    with pytest.raises(ConfigError, match=f'^{key}: expected it unset'):
        export_whole(Config().replace({key: value}), model, HW, tmp_path / 'e', [], lambda _: None)
    assert not (tmp_path / 'e').exists()


# --- folders that are refused


def set_manifest(folder: Path, **changes: Any) -> None:
    """Change a manifest as if the model were such a one."""
    content = {**json.loads((folder / MANIFEST).read_text()), **changes}
    described = description_sha256(content['architecture'], content['class_names'])
    (folder / MANIFEST).write_text(json.dumps({**content, 'description_sha256': described}))


def edit_architecture(folder: Path, **changes: Any) -> None:
    content = json.loads((folder / MANIFEST).read_text())
    set_manifest(folder, architecture={**content['architecture'], **changes})


def drop_part(folder: Path) -> None:
    parts = json.loads((folder / MANIFEST).read_text())['parts']
    set_manifest(folder, parts=parts[:-1])


def rename_part(folder: Path) -> None:
    parts = json.loads((folder / MANIFEST).read_text())['parts']
    set_manifest(folder, parts=[*parts[:-1], {**parts[-1], 'name': 'semantic_head'}])


def leave(folder: Path) -> None:
    parts = json.loads((folder / MANIFEST).read_text())['parts']
    set_manifest(folder, parts=[{**parts[0], 'files': ['../trunk.onnx']}, *parts[1:]])


def hide_numbers(folder: Path) -> None:
    parts = json.loads((folder / MANIFEST).read_text())['parts']
    for part in parts:
        part['files'], part['sha256'] = part['files'][:1], part['sha256'][:1]
    set_manifest(folder, parts=parts)


def list_another(folder: Path) -> None:
    parts = json.loads((folder / MANIFEST).read_text())['parts']
    for part in parts:
        part['files'], part['sha256'] = part['files'] * 2, part['sha256'] * 2
    set_manifest(folder, parts=parts)


def tamper(folder: Path) -> None:
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text.replace('"short_side": 96', '"short_side": 64'))


def add_classes(folder: Path) -> None:
    edit_architecture(folder, num_classes=7)
    set_manifest(folder, class_names=list('abcdefg'))


def truncate(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])

    return change


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    'no manifest': (lambda f: (f / MANIFEST).unlink(), r'found no manifest\.json'),
    'truncated manifest': (truncate(MANIFEST), 'found a damaged file'),
    'another JSON': (lambda f: (f / MANIFEST).write_text('[1]') and None, 'another JSON'),
    'no text': (lambda f: (f / MANIFEST).write_bytes(b'\xff\xfe\x00') and None, 'damaged'),
    'nested': (lambda f: (f / MANIFEST).write_text('[' * 10**5) and None, 'damaged'),
    'schema': (lambda f: set_manifest(f, schema=1), 'expected an export of schema 2, found'),
    'foreign': (lambda f: set_manifest(f, schema=None), 'schema'),
    'format': (lambda f: set_manifest(f, format='tensorrt'), 'manifest.format: expected'),
    'more fields': (lambda f: edit_architecture(f, cascade=3), 'other fields, cascade differ'),
    'type': (lambda f: edit_architecture(f, num_classes='5'), 'num_classes: expected int'),
    'rejected': (lambda f: edit_architecture(f, strides=[8]), 'not of this version'),
    'truncated program': (truncate('trunk.onnx'), 'copy the folder again'),
    'no program': (lambda f: (f / 'mask_head.onnx').unlink(), 'found no such file'),
    'another program': (
        lambda f: shutil.copy(f / 'mask_head.onnx', f / 'trunk.onnx') and None,
        'found another or a damaged one',
    ),
    'a part less': (drop_part, 'expected the parts trunk, box_head.0 and mask_head'),
    'an unknown part': (rename_part, 'part semantic_head is not of this version'),
    'tampered': (tamper, 'found changed ones'),
    'too large': (lambda f: edit_architecture(f, score_threshold=10**400), 'far too large'),
    'too large a side': (lambda f: edit_architecture(f, short_side=10**400), 'far too large'),
    'negative': (lambda f: edit_architecture(f, short_side=-5), 'short_side above 0, found -5'),
    'no divisor': (lambda f: edit_architecture(f, size_divisibility=0), 'size_divisibility above'),
    'no proposals': (lambda f: edit_architecture(f, rpn_post_nms_topk=0), 'topk above 0'),
    'no deviation': (lambda f: edit_architecture(f, pixel_std=[0.0, 1.0, 1.0]), 'pixel_std above'),
    'threshold': (lambda f: edit_architecture(f, nms_threshold=-7.0), 'of 0 to 1, found -7'),
    'no shape': (lambda f: set_manifest(f, shapes=[[0, -1]]), 'shapes above 0'),
    'digest': (lambda f: set_manifest(f, weights_sha256='zz\nQ'), 'a sha256 of the weights'),
    'more classes': (add_classes, r'box_head.0 of the manifest.*found .*[?]x6, [?]x20'),
    'other channels': (lambda f: edit_architecture(f, fpn_channels=8), 'expected the trunk of'),
    'more anchors': (
        lambda f: edit_architecture(f, anchor_sizes=[[s, 9.0] for s in (8, 16, 32, 64, 128)]),
        'expected the trunk of',
    ),
    'out of the folder': (leave, 'expected files of its own folder'),
}


@pytest.mark.parametrize('damage', DAMAGE)
def test_a_damaged_folder_is_refused(
    damage: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    change, problem = DAMAGE[damage]
    folder = tmp_path / 'e'
    shutil.copytree(folders['onnx'], folder)
    change(folder)
    with pytest.raises(CheckpointError, match=problem) as error:
        Engine(Config(model=str(folder)))
    assert str(folder) in str(error.value)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(('form', 'change'), [('openvino', hide_numbers), ('onnx', list_another)])
def test_every_file_of_a_part_is_listed(
    form: str, change: Callable[[Path], None], folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / 'e'
    shutil.copytree(folders[form], folder)
    change(folder)
    with pytest.raises(CheckpointError, match=r'expected \.(xml and \.bin|onnx) of part trunk'):
        load_model(Config(model=str(folder)))


@pytest.mark.parametrize('form', FORMATS)
def test_a_program_that_its_engine_refuses(
    form: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / 'e'
    shutil.copytree(folders[form], folder)
    content = json.loads((folder / MANIFEST).read_text())
    first = folder / content['parts'][0]['files'][0]
    first.write_bytes(first.read_bytes()[:2000])
    content['parts'][0]['sha256'][0] = digest(first, 'sha256')
    (folder / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(
        CheckpointError, match=r'does not take it.*export the model again'
    ) as error:
        Engine(Config(model=str(folder)))
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('changes', 'problem'),
    [
        ({'precision': 'bf16'}, 'precision: expected auto or fp32'),
        ({'backend': 'openvino'}, 'backend: expected auto or onnxruntime'),
        ({'weights': 'other.pth'}, 'weights: expected it unset'),
        ({'norm_eps': 1e-3}, 'norm_eps: expected -1'),
        ({'class_names': ('a', 'b')}, 'class_names'),
    ],
)
def test_settings_that_do_not_fit_a_folder(
    changes: dict[str, Any], problem: str, folders: dict[str, Path]
) -> None:
    with pytest.raises(ConfigError, match=problem):
        Engine(Config(model=str(folders['onnx']), **changes))


def test_planted_weights_have_no_digest(folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(folders['onnx'], tmp_path / 'e')
    set_manifest(tmp_path / 'e', weights_sha256='')
    assert load_model(Config(model=str(tmp_path / 'e'))).weights_sha256 == ''


def test_int8_needs_a_folder(model: NativeModel) -> None:
    with pytest.raises(ConfigError, match='found int8; make a folder'):
        Engine(Config(precision='int8', device='cpu'), model=model)


@pytest.mark.parametrize('form', FORMATS)
def test_a_library_that_is_missing_is_named(
    form: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    package = {'onnx': 'onnxruntime', 'openvino': 'openvino'}[form]
    monkeypatch.setitem(sys.modules, package, None)
    for module in (f'{package}_program', 'openvino_library'):
        monkeypatch.delitem(sys.modules, f'segnode.engine.{module}', raising=False)
    with pytest.raises(ConfigError, match=f'pip install {package}`.*extra'):
        Engine(Config(model=str(folders[form])))


def test_nothing_is_told_to_the_makers(folders: dict[str, Path]) -> None:
    Engine(Config(model=str(folders['openvino'])))
    assert sys.modules['openvino_telemetry'] is None


def test_class_names_of_a_manifest_are_no_file(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'forklift').write_text('pallet\n')
    folder = tmp_path / 'e'
    shutil.copytree(folders['onnx'], folder)
    for names in (('forklift',), ('box/pallet',), ('x.txt',)):
        edit_architecture(folder, num_classes=len(names))
        set_manifest(folder, class_names=names)
        assert load_model(Config(model=str(folder))).class_names == names
    names = ('a.txt', 'b', 'c', 'd', 'e')
    edit_architecture(folder, num_classes=5)
    set_manifest(folder, class_names=names)
    assert load_model(Config(model=str(folder))).class_names == names
    set_manifest(folder, class_names=names[:2])
    with pytest.raises(CheckpointError, match=r'manifest\.json: .*expected 5 names'):
        load_model(Config(model=str(folder)))


# --- an earlier export


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'nncf', None)


def interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    """End the comparison, when all programs are written."""

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(export_run._Job, '_compare', end)


FAILURES: dict[str, tuple[dict[str, Any], Callable[[pytest.MonkeyPatch], None], str]] = {
    'no picture of the size': ({'shapes': ((200, 150),)}, lambda _: None, '--calibrate'),
    'one size without': ({'shapes': (HW, (200, 150))}, lambda _: None, '--calibrate'),
    'no library': ({}, no_library, 'nncf'),
    'interrupted': ({}, interrupt, '^$'),
}


@pytest.mark.parametrize(
    'failure',
    [
        # It ends when INT8 has been written.
        pytest.param(name, marks=needs_new_torch) if name == 'interrupted' else name
        for name in FAILURES
    ],
)
def test_an_export_that_fails_leaves_the_earlier_one(
    failure: str,
    model: NativeModel,
    folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changes, break_it, problem = FAILURES[failure]
    break_it(monkeypatch)
    old, new = tmp_path / 'old', tmp_path / 'new'
    shutil.copytree(folders['openvino'], old)
    before = contents(old)
    for folder in (old, new):
        wanted = request(
            'openvino',
            folder,
            precision='int8',
            calibration=Calibration(pictures=render_frames(HW, 1), sha256='f' * 64),
            **changes,
        )
        with pytest.raises((ConfigError, KeyboardInterrupt), match=problem):
            made(model, wanted)
    assert contents(old) == before
    assert not new.exists()
    Engine(Config(model=str(old)))


def test_an_export_replaces_an_earlier_one(
    model: NativeModel, folders: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(folders['openvino'], tmp_path / 'e')
    # What a run that was killed has left.
    (tmp_path / 'e' / '.segnode-0123.part').mkdir()
    made(model, request('onnx', tmp_path / 'e'))
    assert set(contents(tmp_path / 'e')) == set(contents(folders['onnx']))
    assert Engine(Config(model=str(tmp_path / 'e'))).precision == 'fp32'


# --- the command


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = main(['export', *args])
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.mark.parametrize(
    ('args', 'problem'),
    [
        (['--format', 'onnx', '--precision', 'bf16'], 'no bf16'),
        (['--format', 'onnx', '--precision', 'fp16'], 'expected fp32, bf16, int8, found fp16'),
        (['--format', 'openvino', '--precision', 'int8'], '--calibrate'),
        (['--format', 'openvino', '--calibrate', '.'], '--calibrate'),
        (['--format', 'onnx', '--shapes', '480'], '--shapes: expected height x width'),
        (['--format', 'onnx', '--shapes', '480x640,x'], "in 480x640, found 'x'"),
        (['--format', 'onnx', '--whole'], 'one size of --shapes'),
        (['--format', 'onnx', '--annotations', 'a.json'], '--check'),
        (['--format', 'tensorrt'], 'invalid choice'),
        (['--format', 'onnx', '--model', 'null'], 'expected'),
    ],
)
def test_wrong_use_is_one_line(
    args: list[str], problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, said = run(capsys, *args, '--output', str(tmp_path / 'e'))
    assert code == 2
    assert problem in said
    errors = [line for line in said.splitlines() if 'error:' in line]
    assert len(errors) == 1
    assert not (tmp_path / 'e').exists()


@pytest.mark.parametrize(
    ('shapes', 'found'),
    [('64x96,96x64,', ((64, 96), (96, 64))), (', ', ()), ('64x96', ((64, 96),))],
)
def test_sizes_are_read_once(
    shapes: str,
    found: tuple[tuple[int, int], ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Request] = []

    def stop(_: Config, __: NativeModel, wanted: Request, *___: object) -> None:
        asked.append(wanted)
        raise ConfigError('expected to end here')

    monkeypatch.setattr(export_run, 'export', stop)
    args = ('--format', 'onnx', '--shapes', shapes, '--output', str(tmp_path / 'e'))
    _, _, said = run(capsys, *args)
    assert 'expected to end here' in said
    (wanted,) = asked
    assert wanted.shapes == found
    sizes = {(picture.height, picture.width) for picture in wanted.check}
    assert sizes == set(found or [(480, 640)])


def test_a_converter_that_fails_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class ConversionError(Exception):
        pass

    def fail(*_: object) -> None:
        raise ConversionError('no rule for aten.gelu\nand much more')

    monkeypatch.setattr(type(select_writer('onnx')), 'convert', fail)
    folder = tmp_path / 'e'
    code, _, said = run(capsys, '--format', 'onnx', '--output', str(folder))
    assert code == 1
    assert f'trunk: expected that torch {torch.__version__} and onnx' in said
    assert 'found ConversionError: no rule for aten.gelu; take another release' in said
    assert 'much more' not in said
    assert not folder.exists()


def test_a_folder_of_somebody_else_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / 'trunk.onnx').write_text('mine')
    code, _, said = run(capsys, '--format', 'onnx', '--output', str(tmp_path))
    assert code == 2
    assert 'found other files' in said
    assert (tmp_path / 'trunk.onnx').read_text() == 'mine'
