# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Every Triton kernel compiled for GPUs that need not be there, as a real network launches it."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import io
import itertools
import multiprocessing
import os
import pkgutil
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import torch
from fake_gpu import needs_fake_gpu
from seeds import fresh_seeds
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from triton_launches import Launch, record_launches, variant, variants

import segnode.kernels
from segnode.kernels.resampling import prepare_preprocess
from segnode.model.architecture import SEMANTICS, Architecture, Pooler, Rule
from segnode.model.box_head import BoxDetections, Limits
from segnode.model.rpn import JOINED

Family = Literal['detectron2', 'torchvision']

META = torch.device('meta')
TARGETS = ('sm_75', 'sm_80', 'sm_87', 'sm_89', 'sm_90', 'sm_100', 'sm_120', 'gfx942')
# Of all but the oldest, a robot's, the first that spills and AMD's, a run compiles any third.
WHOLE = ('sm_75', 'sm_87', 'sm_90', 'gfx942')
THIRDS = 3
# Frames and the network's input before padding, of 480x640, 480x864 and 800x1344: kept as they
# are, and resized along both axes.
SIZES = [((480, 640), (480, 640)), ((720, 1280), (480, 853)), ((1080, 1800), (800, 1333))]
CHANNELS = 256
CELLS = 28
# Bytes of a block that any GPU gives without being asked for more.
SHARED_BYTES = 48 * 1024
# Bytes that registers spill into, stored and loaded. Up to sm_89 and on gfx942 no kernel spills.
# From sm_90 on ptxas saves registers: with Triton 3.8 at most 40 bytes, for RoIAlign of 14x14 in
# fp32 on sm_90 and for NMS of 6000 boxes on sm_120.
SPILLED_BYTES = dict.fromkeys(('sm_90', 'sm_100', 'sm_120'), 48)
# Programs along the axes of a grid, on NVIDIA's GPUs.
GRID = (2**31 - 1, 2**16 - 1, 2**16 - 1)


def launch_everything(device: torch.device) -> None:
    """Launch all kernels as ResNet-50 Mask R-CNNs of every family do."""
    for images in (1, 2):
        launch_nms(device, images)
        launch_paste(device, images)
        launch_choose(device, images)
        for dtype in (torch.float16, torch.float32, torch.bfloat16):
            launch_maps(device, images, dtype)
            for image_hw, size_hw in SIZES:
                launch_network(device, images, dtype, image_hw, size_hw)


def launch_nms(device: torch.device, images: int) -> None:
    """Launch the RPN's, of five levels, and the box head's, of as many groups as classes."""
    from segnode.kernels.triton.nms import nms

    for count in (1000, 2000, 6000):
        for sets, grouped in (((images, 5), False), ((images,), True)):
            boxes = torch.empty((*sets, count, 4), device=device)
            valid = torch.empty((*sets, count), dtype=torch.bool, device=device)
            groups = torch.empty((*sets, count), dtype=torch.int64, device=device)
            for threshold in (0.7, torch.empty((), device=device)):
                nms(boxes, valid, threshold, groups if grouped else None)


def launch_paste(device: torch.device, images: int) -> None:
    from segnode.kernels.triton.paste import paste_labels

    families: tuple[Family, ...] = ('detectron2', 'torchvision')
    for family, count in itertools.product(families, (8, 16, 32, 64, 100)):
        for image_hw, _ in SIZES:
            paste_labels(
                torch.empty((images, count, CELLS, CELLS), device=device),
                torch.empty((images, count, 4), device=device),
                torch.empty((images, count), dtype=torch.bool, device=device),
                image_hw,
                threshold=torch.empty((), device=device),
                min_area=torch.empty((), dtype=torch.int64, device=device),
                max_area=torch.empty((), dtype=torch.int64, device=device),
                paste=family,
            )


def launch_choose(device: torch.device, images: int) -> None:
    from segnode.kernels.triton.choose import choose

    for count, semantics in itertools.product((100, 300, 1000), SEMANTICS.values()):
        choose(
            BoxDetections(
                torch.empty((images, count, 4), device=device),
                torch.empty((images, count), device=device),
                torch.empty((images, count), dtype=torch.int64, device=device),
                torch.empty((images, count), dtype=torch.bool, device=device),
                torch.empty(images, dtype=torch.int64, device=device),
                torch.empty(images, dtype=torch.bool, device=device),
            ),
            *SIZES[-1],
            min_mask_area=torch.empty((), dtype=torch.int64, device=device),
            cells=CELLS,
            mask_threshold=torch.empty((), device=device),
            semantics=semantics,
        )


def launch_selection(
    device: torch.device, images: int, dtype: torch.dtype, size_hw: tuple[int, int]
) -> None:
    """Launch the choice of proposals and of detections as every family has it."""
    from segnode.kernels.triton.detections import select_detections
    from segnode.kernels.triton.proposals import select_proposals

    # Families differ in a few instructions, formats in how numbers are read.
    for semantics in list(SEMANTICS.values())[: None if dtype == torch.float16 else 1]:
        architecture = Architecture(semantics=semantics)
        sizes = [tuple(-(-side // stride) for side in size_hw) for stride in architecture.strides]
        anchors = torch.empty((3 * sum(h * w for h, w in sizes), 4), device=device)
        # Of one layer that has both, and, once, of two.
        first = semantics.resize == 'detectron2' and dtype == torch.float16
        for pitch in (4, JOINED) if first else (JOINED,):
            rows = [
                torch.empty((images, 3 * h * w, pitch), dtype=dtype, device=device)
                for h, w in sizes
            ]
            logits, deltas = [x[..., -1] for x in rows], [x[..., :4] for x in rows]
            proposals = select_proposals(logits, deltas, anchors, size_hw, architecture, 1000)
        count, classes = proposals.valid.shape[1], architecture.num_classes
        limits = Limits(
            proposals=count,
            capacity=100,
            candidates=1000,
            score_threshold=torch.empty((), device=device),
            nms_threshold=torch.empty((), device=device),
            allowed=torch.empty(classes, dtype=torch.bool, device=device),
            max_instances=torch.empty((), dtype=torch.int64, device=device),
        )
        for columns in (4, 4 * classes) if first else (4 * classes,):
            select_detections(
                torch.empty((images, count, classes + 1), dtype=dtype, device=device),
                torch.empty((images, count, columns), dtype=dtype, device=device),
                proposals,
                size_hw,
                architecture,
                limits,
            )


def launch_maps(device: torch.device, images: int, dtype: torch.dtype) -> None:
    """Launch the stem's pooling, that of the pyramid's last level, and its way down."""
    from segnode.kernels.triton.maps import add_enlarged, max_pool

    stem = torch.empty((images, 64, 400, 672), dtype=dtype, device=device)
    max_pool(stem, kernel=3, stride=2, padding=1)
    p5, c4 = (
        torch.empty((images, CHANNELS, *hw), dtype=dtype, device=device)
        for hw in ((25, 42), (50, 84))
    )
    max_pool(p5, kernel=1, stride=2, padding=0)
    add_enlarged(c4, p5)


def launch_network(
    device: torch.device,
    images: int,
    dtype: torch.dtype,
    image_hw: tuple[int, int],
    size_hw: tuple[int, int],
) -> None:
    """Launch every resize that has a kernel, and both heads' RoIAlign on what its input gives."""
    from segnode.kernels.triton.preprocess import preprocess
    from segnode.kernels.triton.roi_align import roi_align

    frames = torch.empty((images, *image_hw, 3), dtype=torch.uint8, device=device)
    three = torch.empty(3, device=device)
    resizes: tuple[Rule, ...] = ('mmdetection', 'detectron2')
    plans = [prepare_preprocess(image_hw, size_hw, device, resize=rule) for rule in resizes]
    launch_selection(device, images, dtype, size_hw)
    # What is wider differs little, by its format and its channels.
    widths = (8, 3) if dtype == torch.float16 else (3,)
    for width, plan in itertools.product(widths, plans):
        x = preprocess(frames, plan, three, three, True, dtype, width)
    features = [
        torch.empty(
            (images, CHANNELS, -(-x.shape[2] // stride), -(-x.shape[3] // stride)),
            dtype=dtype,
            device=device,
            memory_format=torch.channels_last,
        )
        for stride in Pooler(resolution=7).strides
    ]
    heads = [(7, 1000), *((14, count) for count in (8, 16, 32, 64, 100))]
    for (resolution, count), sampling_ratio, aligned in itertools.product(
        heads, (0, 2), (True, False)
    ):
        # No more of bfloat16 than what either family has by default: it differs by conversions.
        if dtype == torch.bfloat16 and aligned != (sampling_ratio == 0):
            continue
        roi_align(
            features,
            torch.empty((images * count, 4), device=device),
            None,
            Pooler(
                resolution=resolution,
                sampling_ratio=sampling_ratio,
                aligned=aligned,
                levels='detectron2' if aligned else 'torchvision',
            ),
        )


@functools.cache
def everything_launched() -> list[Launch]:
    with pytest.MonkeyPatch.context() as patch:
        launches = record_launches(patch)
        launch_everything(META)
    return launches


@dataclass(frozen=True, slots=True)
class Compiled:
    """What came of one kernel for one target.

    Attributes:
        name: of the kernel, with its types and constants.
        error: why it does not compile, '' if it does.
        shared: bytes of shared memory of a block.
        registers: of a thread; None where the assembler did not say.
        spilled: bytes stored and loaded for want of registers; None where it did not say.
    """

    name: str
    error: str
    shared: int = 0
    registers: int | None = None
    spilled: int | None = None


def compile_for(target: str, third: int) -> list[Compiled]:
    """Compile what is launched; what Triton prints is caught, so one thread at a time."""
    from triton import compile as triton_compile
    from triton.backends.compiler import GPUTarget
    from triton.errors import TritonError

    if target.startswith('sm_'):
        gpu = GPUTarget('cuda', int(target[3:]), 32)
    else:
        gpu = GPUTarget('hip', target, 64)
    launched = variants(everything_launched())
    compiled = []
    for each in launched if target in WHOLE else launched[third::THIRDS]:
        log = io.StringIO()
        try:
            with contextlib.redirect_stdout(log):
                kernel = triton_compile(each.source(), target=gpu, options=dict(each.options))
        except (TritonError, RuntimeError, OSError, subprocess.SubprocessError) as error:
            compiled.append(Compiled(str(each), f'{type(error).__name__}: {error}'))
            continue
        text = kernel.asm['amdgcn'] if gpu.backend == 'hip' else log.getvalue()
        compiled.append(Compiled(str(each), '', kernel.metadata.shared, *read_log(text)))
    return compiled


def read_log(text: str) -> tuple[int | None, int | None]:
    """Return registers and spilled bytes from ptxas's log, or from AMD's assembly."""
    registers = re.search(r'Used (\d+) registers|\.vgpr_count:\s+(\d+)', text)
    spills = re.findall(r'(\d+) bytes spill|\.private_segment_fixed_size:\s+(\d+)', text)
    return (
        int(registers[1] or registers[2]) if registers else None,
        sum(int(a or b) for a, b in spills) if spills else None,
    )


def obstacle(target: str) -> str | None:
    """Return why nothing can be compiled for a target here, or None."""
    found = importlib.util.find_spec('triton')
    if found is None or not found.submodule_search_locations:
        return 'this PyTorch comes without Triton'
    backends = Path(found.submodule_search_locations[0]) / 'backends'
    if not target.startswith('sm_'):
        return None if (backends / 'amd').is_dir() else 'this Triton comes without its AMD part'
    tools = backends / 'nvidia' / 'bin'
    newer = tools / 'ptxas-blackwell'
    tool = newer if int(target[3:]) >= 100 and newer.exists() else tools / 'ptxas'
    if not tool.exists():
        return 'this Triton comes without ptxas'
    known = subprocess.run([tool, '--help'], capture_output=True, text=True, check=True).stdout
    return None if f"'{target}'" in known else f'the ptxas of this Triton does not know {target}'


needs_triton = pytest.mark.skipif(
    importlib.util.find_spec('triton') is None, reason='this PyTorch comes without Triton'
)


@pytest.fixture(scope='module')
def compiling(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[list[Compiled]]]]:
    """Every target that a test is run for, each compiled by one of as many processes as cores."""
    run = [item for item in request.session.items if item.path == request.path]
    names = {item.callspec.params.get('target') for item in run if hasattr(item, 'callspec')}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('TRITON_CACHE_DIR', str(tmp_path_factory.mktemp('triton')))
        patch.setenv('TRITON_DUMP_PTXAS_LOG', '1')
        patch.delenv('TRITON_INTERPRET', raising=False)
        pool = ProcessPoolExecutor(
            min(len(os.sched_getaffinity(0)), len(TARGETS)),
            multiprocessing.get_context('spawn'),
        )
        try:
            yield {
                target: pool.submit(compile_for, target, fresh_seeds(1)[0] % THIRDS)
                for target in TARGETS
                if target in names and obstacle(target) is None
            }
        finally:
            pool.shutdown(cancel_futures=True)


@needs_triton
@pytest.mark.parametrize('target', TARGETS)
def test_every_kernel_compiles(target: str, compiling: dict[str, Future[list[Compiled]]]) -> None:
    # That of Triton 3.1, of PyTorch 2.5, is called in another way.
    pytest.importorskip('triton', minversion='3.2')
    if reason := obstacle(target):
        pytest.skip(reason)
    compiled = compiling[target].result()
    assert compiled
    limit = SPILLED_BYTES.get(target, 0)
    wrong = []
    for each in compiled:
        if each.error:
            wrong.append(f'{each.name}: {each.error}')
        if each.shared > SHARED_BYTES:
            wrong.append(f'{each.name}: {each.shared} bytes shared, at most {SHARED_BYTES}')
        if (each.spilled or 0) > limit:
            wrong.append(
                f'{each.name}: {each.spilled} bytes spilled, at most {limit}, '
                f'with {each.registers} registers'
            )
    assert not wrong, f'{target}:\n' + '\n'.join(wrong)
    if any(each.spilled is None for each in compiled):
        import triton

        told = tuple(int(n) for n in triton.__version__.split('.')[:2]) >= (3, 8)
        assert not told, f'{target}: nothing is known of spills any more'
        pytest.skip('all compiles, but this Triton does not hand on what ptxas says of spills')


@needs_triton
def test_every_kernel_is_launched() -> None:
    from triton.runtime.jit import JITFunction

    kernels = set()
    for module in pkgutil.walk_packages(segnode.kernels.__path__, 'segnode.kernels.'):
        if module.name.endswith('._cpu'):  # a library in C, and no module of Python
            continue
        content = vars(importlib.import_module(module.name)).items()
        kernels |= {
            name
            for name, value in content
            if isinstance(value, JITFunction) and name.endswith('_kernel')
        }
    assert kernels == {launch.kernel.__name__ for launch in everything_launched()}
    assert len(kernels) == 19


@needs_triton
def test_a_launch_fits_any_device() -> None:
    for launch in everything_launched():
        name = str(variant(launch))
        pairs = zip(launch.grid, GRID, strict=False)
        assert all(0 < programs <= most for programs, most in pairs), (name, launch.grid)
        for parameter in launch.kernel.params:
            value = launch.arguments[parameter.name]
            if parameter.is_constexpr or not isinstance(value, int):
                continue
            # A specialised integer would be compiled anew for other sizes of a frame.
            assert parameter.do_not_specialize, (name, parameter.name)
            assert abs(value) < 2**31, (name, parameter.name, value)


@needs_triton
@needs_fake_gpu
def test_fake_tensors_of_a_gpu_launch_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    launches = record_launches(monkeypatch)
    with FakeTensorMode():
        launch_everything(torch.device('cuda', 1))
    assert [launch.grid for launch in launches] == [x.grid for x in everything_launched()]
    assert variants(launches) == variants(everything_launched())
    tensors = [x for launch in launches for x in launch.args if isinstance(x, Tensor)]
    assert {x.device for x in tensors} == {torch.device('cuda', 1)}
