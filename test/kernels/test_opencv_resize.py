# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""MMDetection's network input against OpenCV and PyTorch, bit for bit, on every path of a CPU.

Triton's kernel is held against the plain twin in ``test_kernels.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fake_gpu import needs_fake_gpu
from seeds import fresh_seeds
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from segnode.image import Image
from segnode.kernels import preprocess as preprocess_module
from segnode.kernels.cpu import CpuKernels, cpu_kernels, cpu_plan
from segnode.kernels.plain.preprocess import preprocess_static
from segnode.kernels.preprocess import preprocess, resized_hw
from segnode.kernels.resampling import PreprocessPlan, prepare_preprocess
from segnode.model.architecture import MMDETECTION, Architecture, Semantics

CPU = torch.device('cpu')
PYTORCH_STYLE = Architecture(
    semantics=MMDETECTION,
    color='RGB',
    pixel_mean=(123.675, 116.28, 103.53),
    pixel_std=(58.395, 57.12, 57.375),
)
CAFFE_STYLE = Architecture(semantics=MMDETECTION)
# Height and width of an image and of what it becomes: a pixel, one row or column, both axes or one
# halved, one axis kept, both kept, enlarged and shrunk far, wider than a block, and the usual.
SIZES = [
    ((1, 1), (1, 1)),
    ((1, 1), (9, 70)),
    ((2, 2), (1, 1)),
    ((1, 130), (33, 1)),
    ((90, 1), (1, 40)),
    ((128, 192), (64, 96)),
    ((128, 192), (64, 192)),
    ((128, 192), (128, 96)),
    ((50, 60), (50, 91)),
    ((50, 60), (21, 60)),
    ((77, 65), (77, 65)),
    ((7, 9), (211, 300)),
    ((240, 320), (6, 5)),
    ((96, 64), (192, 128)),
    ((240, 321), (96, 128)),
    ((321, 200), (128, 80)),
    ((61, 83), (96, 131)),
]


def random_sizes(rng: np.random.Generator, count: int) -> Iterator[tuple[tuple[int, int], ...]]:
    """Yield the sizes above, then others."""
    yield from SIZES
    for sides in rng.integers(1, 160, (count, 4)).tolist():
        yield (sides[0], sides[1]), (sides[2], sides[3])


def random_pixels(rng: np.random.Generator, image_hw: tuple[int, int]) -> np.ndarray:
    """Return noise, of which a half is the darkest and brightest there is."""
    pixels = rng.integers(0, 256, (*image_hw, 3), dtype=np.uint8)
    extreme = rng.integers(0, 2, pixels.shape, dtype=np.uint8) * 255
    return np.where(rng.random(pixels.shape) < 0.5, pixels, extreme).astype(np.uint8)


def mmdetections_input(
    pixels: np.ndarray, order: str, size_hw: tuple[int, int], architecture: Architecture
) -> Tensor:
    """Return what MMDetection 3 makes of an image: OpenCV's resize, then floats of PyTorch."""
    resized = cv2.resize(
        np.ascontiguousarray(pixels), size_hw[::-1], interpolation=cv2.INTER_LINEAR
    )
    x = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))
    if order.upper() != architecture.color:
        x = x[[2, 1, 0]]
    mean, std = (
        torch.tensor(values).view(3, 1, 1)
        for values in (architecture.pixel_mean, architecture.pixel_std)
    )
    step = architecture.size_divisibility
    padding = (0, -size_hw[1] % step, 0, -size_hw[0] % step)
    return F.pad((x.float() - mean) / std, padding)


def plan_of(image_hw: tuple[int, int], size_hw: tuple[int, int]) -> PreprocessPlan:
    return prepare_preprocess(image_hw, size_hw, CPU, resize='mmdetection')


@pytest.fixture(params=[1, 3], ids=['one thread', 'three threads'])
def kernels(request: pytest.FixtureRequest) -> Iterator[CpuKernels]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    found = cpu_kernels()
    assert found is not None
    yield found
    torch.set_num_threads(before)


# Sizes


def test_sizes_are_mmcvs() -> None:
    """What mmcv 2.1's ``rescale_size`` gives for (1333, 800); Detectron2's is a pixel off."""
    for image_hw, expected in (
        ((480, 640), (800, 1067)),
        ((720, 1280), (750, 1333)),
        ((427, 640), (800, 1199)),
        ((207, 1426), (194, 1333)),
        ((222, 372), (796, 1333)),
        ((231, 1302), (236, 1333)),
        ((235, 430), (729, 1333)),
    ):
        assert resized_hw(image_hw, 800, 1333, 'mmdetection') == expected
        assert resized_hw(image_hw[::-1], 800, 1333, 'mmdetection') == expected[::-1]
    assert resized_hw((207, 1426), 800, 1333, 'detectron2') == (193, 1333)
    assert resized_hw((481, 77), 0, 100, 'mmdetection') == (481, 77)
    assert resized_hw((1, 3000), 800, 1333, 'mmdetection') == (1, 1333)


@pytest.mark.parametrize('seed', fresh_seeds(1))
def test_sides_are_rounded_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(2000):
        image_hw = tuple(rng.integers(1, 4000, 2).tolist())
        short = int(rng.integers(1, 1400))
        long = int(rng.integers(short, 2000))
        scale = min(Fraction(long, max(image_hw)), Fraction(short, min(image_hw)))
        found = resized_hw(image_hw, short, long, 'mmdetection')
        for side, new in zip(image_hw, found, strict=True):
            # Half a pixel falls on either side by rounding.
            exact = side * scale
            assert abs(new - exact) <= Fraction(1, 2) + Fraction(1, 10**9) or (exact < 1 == new)


# Pixels


@pytest.mark.parametrize('seed', fresh_seeds(1))
def test_the_twin_resizes_as_opencv(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for image_hw, size_hw in random_sizes(rng, 250):
        frames = np.stack([random_pixels(rng, image_hw) for _ in range(2)])
        plan = plan_of(image_hw, size_hw)
        nothing, one = torch.zeros(3), torch.ones(3)
        x = preprocess_static(torch.from_numpy(frames), plan, nothing, one, False, torch.float32)
        ours = x[..., : size_hw[0], : size_hw[1]].permute(0, 2, 3, 1).numpy()
        for frame, resized in zip(frames, ours, strict=True):
            expected = cv2.resize(frame, size_hw[::-1], interpolation=cv2.INTER_LINEAR)
            np.testing.assert_array_equal(resized, expected, err_msg=f'{image_hw} {size_hw}')


@pytest.mark.parametrize('seed', fresh_seeds(1))
def test_the_compiled_kernel_resizes_as_opencv(kernels: CpuKernels, seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Every pixel becomes its own number, the channels told apart.
    values = (np.arange(256) + np.array([[0], [1000], [2000]])).astype(np.float32)
    for image_hw, size_hw in random_sizes(rng, 250):
        wide = random_pixels(rng, (image_hw[0], image_hw[1] + 7))
        # The end of these is the end of their memory.
        pixels = np.ascontiguousarray(wide[:, : image_hw[1]])
        plan = cpu_plan(plan_of(image_hw, size_hw))
        assert plan is not None
        resized = cv2.resize(pixels, size_hw[::-1], interpolation=cv2.INTER_LINEAR)
        expected = np.zeros((3, *plan.padded_hw), np.float32)
        expected[:, : size_hw[0], : size_hw[1]] = resized.transpose(2, 0, 1)
        expected[:, : size_hw[0], : size_hw[1]] += np.array([0, 1000, 2000])[:, None, None]
        for given in (pixels, wide[:, : image_hw[1]]):
            planes = kernels.preprocess(given, plan, values, False).numpy()
            np.testing.assert_array_equal(planes, expected, err_msg=f'{image_hw} {size_hw}')
            planes = kernels.preprocess(given, plan, values, True).numpy()
            np.testing.assert_array_equal(planes, expected[::-1], err_msg=f'{image_hw} {size_hw}')


@pytest.mark.usefixtures('steps')
@pytest.mark.parametrize(
    'architecture', [PYTORCH_STYLE, CAFFE_STYLE], ids=['pytorch style', 'caffe style']
)
@pytest.mark.parametrize('order', ['bgr', 'rgb'])
@pytest.mark.parametrize('seed', fresh_seeds(1))
def test_pixels_are_mmdetections(seed: int, order: Any, architecture: Architecture) -> None:
    rng = np.random.default_rng(seed)
    for image_hw, size_hw in SIZES:
        pixels = random_pixels(rng, image_hw)
        expected = mmdetections_input(pixels, order, size_hw, architecture)
        padded = np.zeros((image_hw[0], image_hw[1] + 5, 3), np.uint8)
        view = padded[:, : image_hw[1]]
        view[:] = pixels
        view.flags.writeable = False
        reversed_channels = np.ascontiguousarray(pixels[..., ::-1])[..., ::-1]
        turned = np.ascontiguousarray(pixels[::-1, ::-1])[::-1, ::-1]
        for given in (pixels, view, reversed_channels, turned):
            ours = preprocess(Image(given, order), size_hw, architecture)
            assert ours.dtype == torch.float32
            assert torch.equal(ours, expected), (image_hw, size_hw)


@pytest.mark.usefixtures('steps')
def test_padding_is_zero_to_any_multiple() -> None:
    pixels = np.full((33, 50, 3), 255, dtype=np.uint8)
    for size_hw in ((33, 50), (40, 61)):
        for step in (1, 32, 64):
            architecture = Architecture(semantics=MMDETECTION, size_divisibility=step)
            expected = mmdetections_input(pixels, 'bgr', size_hw, architecture)
            assert torch.equal(preprocess(Image(pixels, 'bgr'), size_hw, architecture), expected)
            assert expected.shape == (3, *(-(-side // step) * step for side in size_hw))


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize('seed', fresh_seeds(1))
def test_the_static_input_is_mmdetections(seed: int, dtype: torch.dtype) -> None:
    rng = np.random.default_rng(seed)
    mean, std = (
        torch.tensor(values) for values in (PYTORCH_STYLE.pixel_mean, PYTORCH_STYLE.pixel_std)
    )
    for image_hw, size_hw in SIZES:
        frames = np.stack([random_pixels(rng, image_hw) for _ in range(2)])
        x = preprocess_static(
            torch.from_numpy(frames), plan_of(image_hw, size_hw), mean, std, True, dtype
        )
        assert x.is_contiguous(memory_format=torch.channels_last)
        for ours, pixels in zip(x, frames, strict=True):
            expected = mmdetections_input(pixels, 'bgr', size_hw, PYTORCH_STYLE)
            assert torch.equal(ours, expected.to(dtype)), (image_hw, size_hw)


@needs_fake_gpu
def test_the_twin_never_asks_its_device_for_a_number() -> None:
    """Fake tensors have none: what stops for one raises."""
    device = torch.device('cuda', 1)
    with FakeTensorMode():
        plan = prepare_preprocess((61, 83), (96, 131), device, resize='mmdetection')
        frames = torch.empty((2, 61, 83, 3), dtype=torch.uint8, device=device)
        three = torch.empty(3, device=device)
        x = preprocess_static(frames, plan, three, three, True, torch.float16)
    assert (x.device, x.dtype, x.shape) == (device, torch.float16, (2, 3, 96, 160))


# Rules that nobody has written


@pytest.mark.usefixtures('steps')
def test_an_unknown_rule_is_refused_everywhere() -> None:
    rule: Any = 'nobody'
    named = {name: getattr(MMDETECTION, name) for name in MMDETECTION.__slots__}
    semantics = Semantics(**{**named, 'resize': rule})
    image = Image(np.zeros((9, 9, 3), np.uint8), 'bgr')
    match = "one of .*'mmdetection'.*, found 'nobody'"
    for size_hw in ((9, 9), (18, 12)):
        with pytest.raises(ValueError, match=match):
            prepare_preprocess((9, 9), size_hw, CPU, resize=rule)
        with pytest.raises(ValueError, match=match):
            preprocess(image, size_hw, Architecture(semantics=semantics))
    with pytest.raises(ValueError, match=match):
        resized_hw((9, 9), 18, 30, rule)
    three = torch.ones(3)
    frames = torch.zeros((1, 9, 9, 3), dtype=torch.uint8)
    plan = PreprocessPlan((9, 9), (9, 9), (32, 32), rule)
    assert cpu_plan(plan) is None
    with pytest.raises(ValueError, match=match):
        preprocess_static(frames, plan, three, three, False, torch.float32)


def test_opencv_itself_runs_only_where_nothing_is_compiled(
    steps: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    class Spy(ModuleType):
        @staticmethod
        def resize(*args: Any) -> Any:
            calls.append(args)
            return cv2.resize(*args)

    monkeypatch.setattr(preprocess_module, 'cv2', Spy('cv2'))
    preprocess(Image(np.zeros((9, 9, 3), np.uint8), 'bgr'), (20, 20), CAFFE_STYLE)
    assert len(calls) == (steps == 'plain')
