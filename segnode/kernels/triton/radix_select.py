# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""The K best of each of several long rows of scores: radix select (Alabi et al., 2012).

Scores become integers that order as they do. Digit by digit, from the highest on, all programs
count how often each digit comes among the keys that are still in question, and whoever reads the
counts finds the digit of the K-th best key. It takes a launch for each 8 bits, whatever the number
of rows, and one more that gathers what was chosen. Counts are made in a program first, so that
equal scores, of which half precision has many, do not meet in one place of the memory.

Of keys that equal the K-th best the first ones are chosen, by index: each program knows how many
come before its own. What is chosen is gathered in any order; the rank of each is then counted.

Shapes: N images, L parts of a row (a level each, or one), S keys of a row, K chosen of a part, B
blocks of a part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
import triton
import triton.language as tl
from torch import Tensor

# Parts of a row that the kernels tell apart.
MOST_PARTS = 5
# Keys of a program.
BLOCK = 2048
# Values of a digit, of 8 bits; kernels, which read no globals, have the number itself.
BINS = 256
# Chosen keys that a program ranks.
RANKED = 64


@dataclass(frozen=True, slots=True)
class Selection:
    """The memory of one selection.

    Attributes:
        keys: (N, S) int16 or int32, see ``ordered``; to be written, as are ``counts``' first.
        counts: (N, L, digits + 1, BINS) int32: how often each value of a digit comes. In the last
            row are single numbers, the first of which is of the keys that beat the K-th.
        sizes: of the L parts, S together.
        k: how many to choose of each part, or all where it has fewer.
    """

    keys: Tensor
    counts: Tensor
    sizes: tuple[int, ...]
    k: int

    @property
    def bits(self) -> int:
        """Bits of a key."""
        return 8 * self.keys.element_size()

    @property
    def ends(self) -> list[int]:
        """Where each of ``MOST_PARTS`` parts ends; those that there are not are empty."""
        return list(accumulate([*self.sizes, *[0] * (MOST_PARTS - len(self.sizes))]))

    @property
    def spare(self) -> Tensor:
        """Numbers (N, L) int32, 0 at first, of which a selection makes no use; aligned."""
        return self.counts[:, :, -1, 4]

    @property
    def grid(self) -> tuple[int, int, int]:
        """A program for every block of the largest part, part and image."""
        n, parts = self.counts.shape[:2]
        return triton.cdiv(max(self.sizes), BLOCK), parts, n


def prepare(
    n: int, sizes: Sequence[int], k: int, dtype: torch.dtype, device: torch.device
) -> Selection:
    """Return memory for scores of a format; half precision has keys of 16 bits."""
    bits = torch.finfo(dtype).bits
    return Selection(
        torch.empty((n, sum(sizes)), dtype=getattr(torch, f'int{bits}'), device=device),
        torch.zeros((n, len(sizes), bits // 8 + 1, BINS), dtype=torch.int32, device=device),
        tuple(sizes),
        k,
    )


def select(selection: Selection) -> Tensor:
    """Return (N, L, K) int64, see ``rank_key``, of the best keys of each part, in any order.

    Slots beyond a part's size are not written. ``keys`` and the counts of their first digit have
    to be there, see ``count_first_digit``.
    """
    keys, counts, k = selection.keys, selection.counts, selection.k
    blocks, parts, n = selection.grid
    tied = torch.empty((n, parts, blocks, BINS), dtype=torch.int32, device=keys.device)
    chosen = torch.empty((n, parts, k), dtype=torch.int64, device=keys.device)
    digits = keys.element_size()
    given = (*selection.ends, k)
    for digit in range(1, digits):
        _count_kernel[selection.grid](
            keys, counts, tied, *given, digit=digit, digits=digits, block=BLOCK, num_warps=8
        )
    _gather_kernel[selection.grid](
        keys, counts, tied, chosen, *given, digits=digits, block=BLOCK, num_warps=8
    )
    return chosen


@triton.jit
def ordered(score, bits: tl.constexpr):
    """Return int32 that order as scores of 16 or 32 bits; NaN is as -inf.

    Zeros are equal, whatever their sign, see ``segnode.model.boxes.top_k_of_parts``. What comes of
    16 bits fits into as many.
    """
    wide = score.to(tl.float32)
    lowest = tl.full(score.shape, float('-inf'), tl.float32).to(score.dtype)
    score = tl.where(wide == wide, score, lowest)
    if bits == 16:
        pattern = score.to(tl.int16, bitcast=True).to(tl.int32)
        key = tl.where(pattern < 0, -32768 - pattern, pattern)
    else:
        pattern = score.to(tl.int32, bitcast=True)
        key = tl.where(pattern < 0, -2147483648 - pattern, pattern)
    return key


@triton.jit
def score_of(key, bits: tl.constexpr, dtype: tl.constexpr):
    """Return the float32 score that ``ordered`` made int32 of, in a format; zero has no sign."""
    if bits == 16:
        pattern = tl.where(key < 0, -32768 - key, key)
        score = pattern.to(tl.int16).to(dtype, bitcast=True).to(tl.float32)
    else:
        pattern = tl.where(key < 0, -2147483648 - key, key)
        score = pattern.to(tl.float32, bitcast=True)
    return score


@triton.jit
def rank_key(key, index):
    """Return int64 that order as keys do, of equal ones the lower index first."""
    return (key.to(tl.int64) << 32) - index


@triton.jit
def unpack(packed):
    """Return key and index of what ``rank_key`` made, int32 each."""
    index = (-packed) & 0xFFFFFFFF
    return ((packed + index) >> 32).to(tl.int32), index.to(tl.int32)


@triton.jit
def rank_among(packed, chosen, count, block: tl.constexpr):
    """Return how many of the ``count`` numbers at ``chosen`` are beyond each of (block,)."""
    beyond = tl.zeros([block, 16], tl.int32)
    for start in range(0, count, 16):
        other = start + tl.arange(0, 16)
        value = tl.load(chosen + other, mask=other < count, other=-9223372036854775808)
        beyond += (value[None, :] > packed[:, None]).to(tl.int32)
    return tl.sum(beyond, axis=1)


@triton.jit
def part_of(part, end_1, end_2, end_3, end_4, end_5):
    """Return where a part of a row begins, and its size."""
    start = tl.where(part > 0, end_1, 0)
    start = tl.where(part > 1, end_2, start)
    start = tl.where(part > 2, end_3, start)
    start = tl.where(part > 3, end_4, start)
    end = tl.where(part > 0, end_2, end_1)
    end = tl.where(part > 1, end_3, end)
    end = tl.where(part > 2, end_4, end)
    end = tl.where(part > 3, end_5, end)
    return start, end - start


@triton.jit
def count_first_digit(counts, of_part, key, there, bits: tl.constexpr, size: tl.constexpr):
    """Count the highest digit of (size,) keys of ``bits``, which are signed, of one part."""
    counts += of_part * (bits // 8 + 1) * 256
    _count_digit(counts, (key >> (bits - 8)) + 128, there, size, 256)


@triton.jit
def _count_digit(counts, digit, there, size: tl.constexpr, bins: tl.constexpr):
    """Add how often each value of (size,) digits comes, and return that: (bins,) int32."""
    value = tl.arange(0, bins)
    found = tl.histogram(tl.where(there, digit, 0), bins).to(tl.int32)
    # What is not there was counted as a zero.
    found -= tl.where(value == 0, size - tl.sum(there.to(tl.int32), axis=0), 0)
    tl.atomic_add(counts + value, found, mask=found != 0, sem='relaxed')
    return found


@triton.jit
def _find(counts, wanted, digits: tl.constexpr, bins: tl.constexpr):
    """Return the first digits of the ``wanted``-th best key, and its place among all with them."""
    value = tl.arange(0, bins)
    found = 0
    for digit in tl.static_range(digits):
        count = tl.load(counts + digit * bins + value)
        beyond = tl.sum(count, axis=0) - tl.cumsum(count, axis=0)
        here = (beyond < wanted) & (beyond + count >= wanted)
        wanted -= tl.sum(tl.where(here, beyond, 0), axis=0)
        found = found * bins + tl.sum(tl.where(here, value, 0), axis=0)
        if digit == 0:
            found -= bins // 2
    return found, wanted


@triton.jit(do_not_specialize=['end_1', 'end_2', 'end_3', 'end_4', 'end_5', 'k'])
def _count_kernel(
    keys,
    counts,
    tied,
    end_1,
    end_2,
    end_3,
    end_4,
    end_5,
    k,
    digit: tl.constexpr,
    digits: tl.constexpr,
    block: tl.constexpr,
):
    """Count a digit of the keys that begin as the K-th best does; the last by block as well."""
    part = tl.program_id(1)
    row = tl.program_id(2).to(tl.int64)
    start, size = part_of(part, end_1, end_2, end_3, end_4, end_5)
    index = tl.program_id(0) * block + tl.arange(0, block)
    if tl.program_id(0) * block < size:
        bins: tl.constexpr = 256
        of_part = row * tl.num_programs(1) + part
        counts += of_part * (digits + 1) * bins
        first, _ = _find(counts, tl.minimum(k, size), digit, bins)
        there = index < size
        key = tl.load(keys + row * end_5 + start + index, mask=there, other=0).to(tl.int32)
        rest = key >> (8 * (digits - 1 - digit))
        there = there & ((rest >> 8) == first)
        found = _count_digit(counts + digit * bins, rest - first * bins, there, block, bins)
        if digit == digits - 1:
            place = of_part * tl.num_programs(0) + tl.program_id(0)
            tl.store(tied + place * bins + tl.arange(0, bins), found)


@triton.jit(do_not_specialize=['end_1', 'end_2', 'end_3', 'end_4', 'end_5', 'k'])
def _gather_kernel(
    keys,
    counts,
    tied,
    chosen,
    end_1,
    end_2,
    end_3,
    end_4,
    end_5,
    k,
    digits: tl.constexpr,
    block: tl.constexpr,
):
    """Gather what is better than the K-th best key, and of what equals it as much as is wanted."""
    part = tl.program_id(1)
    row = tl.program_id(2).to(tl.int64)
    start, size = part_of(part, end_1, end_2, end_3, end_4, end_5)
    index = tl.program_id(0) * block + tl.arange(0, block)
    if tl.program_id(0) * block < size:
        bins: tl.constexpr = 256
        of_part = row * tl.num_programs(1) + part
        counts += of_part * (digits + 1) * bins
        count = tl.minimum(k, size)
        last, wanted = _find(counts, count, digits, bins)
        there = index < size
        key = tl.load(keys + row * end_5 + start + index, mask=there, other=0).to(tl.int32)
        # Of those in front of this block, by the counts of its neighbours.
        tied += of_part * tl.num_programs(0) * bins + (last & (bins - 1))
        before = tl.zeros([64], tl.int32)
        for other in range(0, tl.program_id(0), 64):
            neighbour = other + tl.arange(0, 64)
            used = neighbour < tl.program_id(0)
            before += tl.load(tied + neighbour * bins, mask=used, other=0)
        equal = there & (key == last)
        place = tl.sum(before, axis=0) + tl.cumsum(equal.to(tl.int32), axis=0) - 1
        equal = equal & (place < wanted)
        # The others come first, in the order in which the programs do.
        better = there & (key > last)
        number = better.to(tl.int32)
        taken = tl.atomic_add(counts + digits * bins, tl.sum(number, axis=0), sem='relaxed')
        place = tl.where(better, taken + tl.cumsum(number, axis=0) - 1, count - wanted + place)
        tl.store(chosen + of_part * k + place, rank_key(key, index), mask=better | equal)
