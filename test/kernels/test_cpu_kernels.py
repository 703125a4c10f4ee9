# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The compiled steps of a CPU against Pillow, torchvision and NumPy, and their build."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from pictures import rendered
from random_boxes import random_boxes
from seeds import fresh_seeds
from torch import Tensor

from segnode.config import Config
from segnode.engine import Engine
from segnode.kernels import cpu
from segnode.kernels.cpu import CpuKernels, CpuPlan, cpu_kernels, cpu_plan, load_cpu_kernels
from segnode.kernels.mask_crops import MaskCrop, axis_weights, label_image, paste_mask, paste_masks
from segnode.kernels.plain.roi_align import roi_align
from segnode.kernels.resampling import prepare_preprocess
from segnode.model.architecture import Pooler
from segnode.model.pooler import assign_levels

CHECKOUT = Path(__file__).resolve().parents[2]
CPU = torch.device('cpu')
STRIDES = Pooler(resolution=7).strides
SCALES = [1 / stride for stride in STRIDES]
NETWORK_HW = (320, 448)


@pytest.fixture(params=[1, 3], ids=['one thread', 'three threads'])
def kernels(request: pytest.FixtureRequest) -> Iterator[CpuKernels]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    found = cpu_kernels()
    assert found is not None
    yield found
    torch.set_num_threads(before)


# Resize


def random_plans(
    rng: np.random.Generator,
) -> Iterator[tuple[tuple[int, int], tuple[int, int], CpuPlan]]:
    """Yield pairs of sizes, enlarged, shrunk, kept, lopsided and tiny, with their plans.

    Sizes for which Pillow resizes the height first have no plan, and are passed over.
    """
    fixed = [
        ((1, 1), (1, 1)),
        ((1, 1), (40, 70)),
        ((2, 3), (3, 2)),
        ((300, 5), (17, 5)),
        ((64, 64), (64, 64)),
        ((64, 64), (64, 31)),
        ((200, 64), (150, 64)),
        ((40, 400), (40, 20)),
    ]
    plans = 0
    while plans < 40:
        image_hw, size_hw = fixed.pop() if fixed else rng.integers(1, 300, (2, 2)).tolist()
        plan = cpu_plan(prepare_preprocess(tuple(image_hw), tuple(size_hw), CPU))
        if plan is not None:
            plans += 1
            yield tuple(image_hw), tuple(size_hw), plan


@pytest.mark.parametrize('seed', fresh_seeds(1))
def test_the_resize_is_pillows(kernels: CpuKernels, seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Every pixel becomes its own number, the channels told apart.
    values = (np.arange(256) + np.array([[0], [1000], [2000]])).astype(np.float32)
    for image_hw, size_hw, plan in random_plans(rng):
        wide = rng.integers(0, 256, (image_hw[0], image_hw[1] + 7, 3), dtype=np.uint8)
        for pixels in (wide[:, : image_hw[1]], wide[:, : image_hw[1]][..., ::-1]):
            planes = kernels.preprocess(pixels, plan, values, False).numpy()
            resized = PIL.Image.fromarray(np.ascontiguousarray(pixels)).resize(
                size_hw[::-1], PIL.Image.Resampling.BILINEAR
            )
            expected = np.zeros((3, *plan.padded_hw), np.float32)
            expected[:, : size_hw[0], : size_hw[1]] = (
                np.asarray(resized).transpose(2, 0, 1) + np.array([0, 1000, 2000])[:, None, None]
            )
            case = (image_hw, size_hw)
            np.testing.assert_array_equal(planes, expected, err_msg=str(case))
            swapped = kernels.preprocess(pixels, plan, values, True).numpy()
            np.testing.assert_array_equal(swapped, expected[::-1], err_msg=str(case))


def test_a_plan_is_for_one_size(kernels: CpuKernels) -> None:
    plan = cpu_plan(prepare_preprocess((40, 50), (20, 25), CPU))
    assert plan is not None
    values = np.zeros((3, 256), np.float32)
    with pytest.raises(ValueError, match=r'\(40, 50\) was given pixels of \(40, 49, 3\)'):
        kernels.preprocess(np.zeros((40, 49, 3), np.uint8), plan, values, False)


# RoIAlign


def pyramid(seed: int, images: int, channels: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sizes = [(NETWORK_HW[0] // s, NETWORK_HW[1] // s) for s in STRIDES]
    return [torch.randn((images, channels, h, w), generator=generator) for h, w in sizes]


def some_rois(seed: int, images: int, count: int = 60) -> tuple[Tensor, Tensor]:
    """Return boxes of all sizes, the last ones extreme or beyond the image, and their images."""
    generator = torch.Generator().manual_seed(seed)
    height, width = NETWORK_HW
    extreme = [
        (0, 0, width, height),
        (0, 100, width, 101),
        (50, 0, 50.5, height),
        (17.2, 30.1, 17.2, 30.1),
        (width - 1, height - 1, width, height),
        (-200, -90, 20, 30),
        (width - 5, 10, width + 300, 90),
        (3 * width, 0, 4 * width, 50),
        (60, 80, 40, 30),
    ]
    boxes = torch.cat((random_boxes(generator, count, NETWORK_HW), torch.tensor(extreme)))
    return boxes, torch.randint(images, (len(boxes),), generator=generator)


@pytest.mark.parametrize(
    ('resolution', 'sampling_ratio', 'aligned'),
    [(7, 0, True), (14, 0, True), (7, 2, False), (14, 0, False), (1, 3, True)],
)
@pytest.mark.parametrize(('images', 'channels'), [(1, 256), (3, 80), (2, 5)])
@pytest.mark.parametrize('seed', fresh_seeds(1))
def test_roi_align_is_torchvisions(
    kernels: CpuKernels,
    seed: int,
    images: int,
    channels: int,
    resolution: int,
    sampling_ratio: int,
    aligned: bool,
) -> None:
    features = pyramid(seed, images, channels)
    boxes, image_index = some_rois(seed, images)
    how = {'resolution': resolution, 'sampling_ratio': sampling_ratio, 'aligned': aligned}
    pooler = Pooler(**how)
    levels = assign_levels(boxes, pooler)
    expected = roi_align(features, boxes, image_index, pooler)
    for layout in (torch.contiguous_format, torch.channels_last):
        maps = [f.contiguous(memory_format=layout) for f in features]
        pooled = kernels.roi_align(maps, SCALES, boxes, image_index, levels, **how)
        assert pooled.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(pooled, expected, rtol=1e-5, atol=1e-5)
        assert torch.equal(kernels.pool(maps, boxes, image_index, pooler), pooled)
    halves = [f.bfloat16() for f in features]
    pooled = kernels.roi_align(halves, SCALES, boxes, image_index, levels, **how)
    exact = roi_align([h.float() for h in halves], boxes, image_index, pooler)
    assert pooled.dtype == torch.bfloat16
    # Computed in float32 and rounded once, to the nearest; a sum in another order can be a tie.
    torch.testing.assert_close(pooled.float(), exact, rtol=2**-8, atol=1e-5)
    rounded = pooled == exact.bfloat16()
    assert rounded.float().mean() > 0.99


def test_pooling_nothing(kernels: CpuKernels) -> None:
    index = torch.zeros(0, dtype=torch.long)
    pooled = kernels.roi_align(
        pyramid(0, 1, 5),
        SCALES,
        torch.zeros((0, 4)),
        index,
        index,
        resolution=7,
        sampling_ratio=0,
        aligned=True,
    )
    assert pooled.shape == (0, 5, 7, 7)


@pytest.mark.parametrize('dtypes', [('bfloat16', 'float32'), ('float16', 'float16')])
def test_features_of_other_dtypes_are_refused(
    kernels: CpuKernels, dtypes: tuple[str, str]
) -> None:
    maps = [f.to(getattr(torch, dtypes[i > 0])) for i, f in enumerate(pyramid(0, 1, 5))]
    index = torch.zeros(1, dtype=torch.long)
    boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0]])
    how = {'resolution': 7, 'sampling_ratio': 0, 'aligned': True}
    with pytest.raises(ValueError, match='float32 or in bfloat16'):
        kernels.roi_align(maps, SCALES, boxes, index, index, **how)


def test_rois_that_are_no_numbers_pool_nothing(kernels: CpuKernels) -> None:
    nan, inf = torch.nan, torch.inf
    boxes = torch.tensor(
        [[nan] * 4, [-inf, -inf, inf, inf], [inf] * 4, [0, 0, nan, 10], [-3e38, 0, 3e38, 9]]
    )
    levels = torch.arange(5) % 4
    pooled = kernels.roi_align(
        pyramid(0, 1, 64),
        SCALES,
        boxes,
        torch.zeros(5, dtype=torch.long),
        levels,
        resolution=7,
        sampling_ratio=0,
        aligned=True,
    )
    assert (pooled == 0).all()


def test_what_is_no_number_stays_in_its_cells(kernels: CpuKernels) -> None:
    features = pyramid(0, 1, 64)
    features[0][0, :, 10, 10] = torch.nan
    boxes = torch.tensor([[30.0, 30.0, 50.0, 50.0], [100.0, 100.0, 120.0, 120.0]])
    zeros = torch.zeros(2, dtype=torch.long)
    for dtype in (torch.float32, torch.bfloat16):
        pooled = kernels.roi_align(
            [f.to(dtype) for f in features],
            SCALES,
            boxes,
            zeros,
            zeros,
            resolution=7,
            sampling_ratio=0,
            aligned=True,
        )
        assert pooled[0].isnan().any()
        assert pooled[1].isfinite().all()


# Paste


@pytest.mark.parametrize('paste', ['detectron2', 'torchvision'])
@pytest.mark.parametrize('seed', fresh_seeds(1))
def test_pasted_masks_are_numpys(kernels: CpuKernels, seed: int, paste: str) -> None:
    rng = np.random.default_rng(seed)
    image_hw = (151, 203)
    generator = torch.Generator().manual_seed(seed)
    boxes = random_boxes(generator, 80, image_hw).numpy()
    boxes[:3] = [[-50, -50, 400, 400], [300, 10, 320, 30], [5, 5, 5, 5]]
    masks = rng.random((80, 28, 28), dtype=np.float32)
    masks[40:] = masks[40:].mean((1, 2), keepdims=True) > 0.5
    ours = paste_masks(masks, boxes, image_hw, 0.5, paste)
    compared = 0
    for crop, mask, box in zip(ours, masks, boxes, strict=True):
        assert crop.area == np.count_nonzero(crop.pixels)
        if (box[2:] <= box[:2]).any():
            continue
        plain = paste_mask(mask, box, image_hw, 0.5, paste)
        if plain.pixels.size == 0:
            assert crop.area == 0
            continue
        assert (crop.top, crop.left) == (plain.top, plain.left)
        # A value at the threshold falls on either side by rounding.
        _, x_weights = axis_weights(box[0], box[2], image_hw[1], 28, paste, 0.5)
        _, y_weights = axis_weights(box[1], box[3], image_hw[0], 28, paste, 0.5)
        decided = np.abs(y_weights @ mask @ x_weights.T - 0.5) > 1e-5
        np.testing.assert_array_equal(crop.pixels[decided], plain.pixels[decided])
        compared += int(decided.sum())
    assert compared > 10_000
    painted = np.zeros(image_hw, np.uint16)
    for k in range(len(ours) - 1, -1, -1):
        crop = ours[k]
        height, width = crop.pixels.shape
        region = painted[crop.top : crop.top + height, crop.left : crop.left + width]
        if crop.pixels.size:
            region[crop.pixels] = k + 1
    np.testing.assert_array_equal(label_image(ours, image_hw), painted)


def test_boxes_that_are_no_numbers_paste_nothing_outside(kernels: CpuKernels) -> None:
    nan, inf = np.nan, np.inf
    boxes = np.float32(
        [[nan] * 4, [-inf, -inf, inf, inf], [inf, 0, inf, 9], [0, nan, 50, 50], [9, 9, 3, 3]]
    )
    masks = np.ones((5, 28, 28), np.float32)
    masks[1] = np.nan
    for paste in ('detectron2', 'torchvision'):
        extents, crops, areas = kernels.paste_masks(masks, boxes, (40, 60), 0.5, paste)
        assert (extents >= 0).all()
        assert (extents[:, :2] + extents[:, 2:] <= (60, 40)).all()
        assert areas.tolist() == [int(np.count_nonzero(crop)) for crop in crops]


def test_each_mask_has_a_box(kernels: CpuKernels) -> None:
    masks, boxes = np.ones((3, 28, 28), np.float32), np.zeros((2, 4), np.float32)
    with pytest.raises(ValueError, match=r'boxes \(3, 4\) for the masks, found \(2, 4\)'):
        kernels.paste_masks(masks, boxes, (40, 60), 0.5, 'detectron2')


def test_crops_out_of_the_image_are_refused(kernels: CpuKernels) -> None:
    crop = MaskCrop(35, 0, np.ones((10, 10), np.bool_), 100)
    with pytest.raises(ValueError, match='do not fit an image'):
        label_image([crop], (40, 60))
    with pytest.raises(ValueError, match='do not fit an image'):
        kernels.paint_labels(np.array([[0, 0, 10, 11]]), [crop.pixels], (40, 60))


# The whole


@pytest.mark.parametrize('precision', ['fp32', 'bf16'])
def test_the_engine_finds_the_same_without_them(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = rendered(3, (480, 640))
    config = Config(device='cpu', precision=precision)
    said: list[str] = []
    (compiled,) = Engine(config, said.append).segment([image])
    assert not any('CPU kernels' in line for line in said)
    with monkeypatch.context() as patch:
        patch.setenv('SEGNODE_NATIVE', '0')
        load_cpu_kernels.cache_clear()
        try:
            (plain,) = Engine(config, said.append).segment([image])
        finally:
            load_cpu_kernels.cache_clear()
    assert any('CPU kernels (SEGNODE_NATIVE is 0)' in line for line in said)
    ours, theirs = compiled.detections, plain.detections
    assert len(ours) >= 5
    np.testing.assert_array_equal(ours.class_ids, theirs.class_ids)
    # bfloat16 rounds what was pooled, and what is added in another order falls otherwise.
    pixels, score = (1e-3, 1e-5) if precision == 'fp32' else (0.5, 0.01)
    np.testing.assert_allclose(ours.boxes_xyxy, theirs.boxes_xyxy, rtol=0, atol=pixels)
    np.testing.assert_allclose(ours.scores, theirs.scores, rtol=0, atol=score)
    assert np.mean(compiled.label_image == plain.label_image) > 0.999


# Build


def test_what_cannot_be_loaded_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Spec:
        origin = str(tmp_path / '_cpu.so')

    monkeypatch.setattr(cpu.importlib.util, 'find_spec', lambda name: Spec)
    Path(Spec.origin).write_bytes(b'no library')
    load = load_cpu_kernels.__wrapped__
    assert str(load()).startswith('cannot be loaded (')
    monkeypatch.setattr(cpu.importlib.util, 'find_spec', lambda name: None)
    assert load() == 'not built'


def test_another_interface_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        @staticmethod
        def segnode_interface() -> int:
            return 999

    monkeypatch.setattr(ctypes, 'CDLL', lambda path: Library)
    assert load_cpu_kernels.__wrapped__() == f'built for interface 999, expected {cpu.INTERFACE}'


@pytest.mark.parametrize(('compiler', 'built'), [('cc', True), ('false', False)])
def test_a_package_is_built_with_or_without_a_compiler(
    compiler: str, built: bool, tmp_path: Path
) -> None:
    run = subprocess.run(
        [
            *(sys.executable, 'setup.py', '--quiet', 'build_ext'),
            *('--build-lib', str(tmp_path / 'lib'), '--build-temp', str(tmp_path / 'temp')),
        ],
        cwd=CHECKOUT,
        env={**os.environ, 'CC': compiler},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert len(list((tmp_path / 'lib').rglob('_cpu.*'))) == built
    if built:
        assert 'warning' not in run.stderr
    else:
        assert 'segnode.kernels._cpu' in run.stderr
