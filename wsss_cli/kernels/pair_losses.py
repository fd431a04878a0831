"""The losses of affinity networks over all pairs of near pixels: value and gradient in one or two launches.

`pair_counts` counts the pairs of each kind, from which their weights come. `boundary_pairs` (IRN) walks the path of
each pair, keeps the highest logit and where it is, and adds the pair's slope there: as an integer in units of 2^-60,
so that the sum has the same bits in any order. No sum of slopes is above 1 as the weights add up to 1. `feature_pairs`
(PSA) writes the slope of each pair; `feature_gradient` then gathers from both directions of all pairs of a pixel.

Programs take tiles of pixels in reading order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain

import torch
import triton
import triton.language as tl
from torch import Tensor

Offset = tuple[int, int]
PIXELS = 128  # of a tile; IRN and counts
FEATURE_PIXELS, CHANNELS = 64, 16  # of a tile; PSA
GROUP = 19  # offsets of a program; IRN
UNIT = 2.0**-60
IGNORE = tl.constexpr(255)
EPS = tl.constexpr(1e-5)  # as in `pseudo.affinity_loss`


def pair_numbers(labels: Tensor, offsets: Sequence[Offset]) -> Tensor:
    """How many pairs are both background, both of one object class, of two labels: int64 [3].

    Args:
        labels: class indices, 255 = unsure, uint8 or int64 [B, H, W], on a CUDA device (or in Triton's interpreter).
        offsets: as `pairs.half_disc` gives them.
    """
    labels = labels.contiguous()
    batch, height, width = labels.shape
    grid = (triton.cdiv(height * width, PIXELS), batch)
    counts = torch.empty(grid[0] * grid[1], 3, dtype=torch.int32, device=labels.device)
    with torch.cuda.device_of(labels):
        table = _table(tuple(offsets), labels.device)
        pair_counts[grid](labels, table, counts, len(offsets), height, width, PIXELS=PIXELS)
    return counts.sum(0, dtype=torch.int64)


def boundary(
    logits: Tensor, labels: Tensor, offsets: Sequence[Offset], path: Callable[[Offset], list[Offset]], shares: Tensor
) -> tuple[Tensor, Tensor]:
    """IRN's loss and its gradient; see `pseudo.affinity_loss.boundary_loss`.

    Of several pixels on a path that are the highest the first in reading order gets the gradient.

    Args:
        logits: float32 [B, H, W], on a CUDA device (on the CPU in Triton's interpreter).
        labels, offsets: as for `pair_numbers`.
        path: the pixels between (0, 0) and an offset, as `pairs.path` gives them.
        shares: weight of a pair of each kind, float32 [3]; over all pairs of all kinds no more than 1.
    Returns:
        (scalar, [B, H, W]), float32. The same input gives the same bits.
    """
    logits, labels = logits.contiguous(), labels.contiguous()
    batch, height, width = logits.shape
    grid = (triton.cdiv(height * width, PIXELS), triton.cdiv(len(offsets), GROUP), batch)
    losses = logits.new_empty(grid[0] * grid[1] * grid[2])
    slopes = torch.zeros(logits.shape, dtype=torch.int64, device=logits.device)
    with torch.cuda.device_of(logits):
        tables = _table(tuple(offsets), logits.device), *_paths(tuple(offsets), path, width, logits.device)
        boundary_pairs[grid](
            logits, labels, *tables, shares, slopes, losses, len(offsets), height, width, 1 / UNIT,
            GROUP=GROUP, PIXELS=PIXELS,
        )  # fmt: skip
    return losses.sum(dtype=torch.float64).float(), slopes.float() * UNIT


def feature(features: Tensor, labels: Tensor, offsets: Sequence[Offset], shares: Tensor) -> tuple[Tensor, Tensor]:
    """PSA's loss and its gradient; see `pseudo.affinity_loss.feature_loss`.

    Args:
        features: float32 [B, D, H, W], on a CUDA device (on the CPU in Triton's interpreter).
        labels, offsets, shares: as for `boundary`.
    Returns:
        (scalar, [B, D, H, W]), float32. The same input gives the same bits.
    """
    features, labels = features.contiguous(), labels.contiguous()
    batch, channels, height, width = features.shape
    tiles = triton.cdiv(height * width, FEATURE_PIXELS)
    slopes = features.new_empty(batch, len(offsets), height, width)
    losses = features.new_empty(tiles * len(offsets) * batch)
    gradient = torch.empty_like(features)
    sizes = {"PIXELS": FEATURE_PIXELS, "CHANNELS": CHANNELS}
    with torch.cuda.device_of(features):
        table = _table(tuple(offsets), features.device)
        feature_pairs[(tiles, len(offsets), batch)](
            features, labels, table, shares, slopes, losses, channels, height, width, **sizes
        )
        feature_gradient[(tiles, triton.cdiv(channels, CHANNELS), batch)](
            features, table, slopes, gradient, len(offsets), channels, height, width, **sizes
        )
    return losses.sum(dtype=torch.float64).float(), gradient


@lru_cache(8)
def _table(offsets: tuple[Offset, ...], device: torch.device) -> Tensor:
    """(dy, dx) of each offset, int32 [N, 2]."""
    return torch.tensor(offsets, dtype=torch.int32).to(device)


@lru_cache(8)
def _paths(
    offsets: tuple[Offset, ...], path: Callable[[Offset], list[Offset]], width: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Where in `steps` the path of each offset begins, int32 [N + 1]; `steps`: distances from a pixel in its plane."""
    paths = [[dy * width + dx for dy, dx in path(offset)] for offset in offsets]
    begins = torch.tensor([0, *map(len, paths)], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    return begins.to(device), torch.tensor([*chain(*paths)], dtype=torch.int32).to(device)


@triton.jit
def _place(height, width, PIXELS: tl.constexpr):
    """Place in a plane of a tile's pixels, their rows and columns, and whether there are such."""
    place = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    return place, place // width, place % width, place < height * width


@triton.jit
def _step(table, index, y, x, height, width):
    """Distance of an offset in a plane, and whether its far end, and its mirror image's, lie on the grid."""
    dy, dx = tl.load(table + 2 * index), tl.load(table + 2 * index + 1)
    forth = (y + dy < height) & (x + dx >= 0) & (x + dx < width)
    return dy * width + dx, forth, (y - dy >= 0) & (x - dx >= 0) & (x - dx < width)


@triton.jit
def _share(labels, label, there, pair, shares):
    """Weight of each pair, and whether its labels are the same."""
    other = tl.load(labels + there, mask=pair, other=IGNORE).to(tl.int32)
    same = label == other
    share = tl.where(label == 0, tl.load(shares), tl.load(shares + 1))
    share = tl.where(same, share, tl.load(shares + 2))
    return tl.where((label != IGNORE) & (other != IGNORE), share, 0.0), same


@triton.jit
def _term(affinity, share, same):
    """Loss of each pair and its derivative by the affinity."""
    likely = tl.where(same, affinity + EPS, 1.0 + EPS - affinity)
    return -share * tl.log(likely), tl.where(same, -share, share) / likely


@triton.jit
def _store_sum(sums, values):
    """The sum of a program."""
    program = (tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)) * tl.num_programs(0) + tl.program_id(0)
    tl.store(sums + program, tl.sum(values, 0))


@triton.jit(do_not_specialize=["offsets", "height", "width"])
def pair_counts(labels, table, counts, offsets, height, width, PIXELS: tl.constexpr):
    """`counts` [programs, 3]: pairs of background, of one object class, of two labels."""
    labels += tl.program_id(1).to(tl.int64) * height * width
    place, y, x, inside = _place(height, width, PIXELS)
    label = tl.load(labels + place, mask=inside, other=IGNORE).to(tl.int32)
    alike, unlike = tl.zeros([PIXELS], tl.int32), tl.zeros([PIXELS], tl.int32)
    for index in range(offsets):
        distance, forth, _ = _step(table, index, y, x, height, width)
        other = tl.load(labels + place + distance, mask=inside & forth, other=IGNORE).to(tl.int32)
        known = (label != IGNORE) & (other != IGNORE)
        alike += (known & (label == other)).to(tl.int32)
        unlike += (known & (label != other)).to(tl.int32)
    counts += 3 * (tl.program_id(1) * tl.num_programs(0) + tl.program_id(0))
    tl.store(counts, tl.sum(tl.where(label == 0, alike, 0), 0))
    tl.store(counts + 1, tl.sum(tl.where(label == 0, 0, alike), 0))
    tl.store(counts + 2, tl.sum(unlike, 0))


@triton.jit(do_not_specialize=["offsets", "height", "width"])
def boundary_pairs(
    logits, labels, table, begins, steps, shares, slopes, losses, offsets, height, width, scale,
    GROUP: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """`GROUP` offsets of a tile of pixels a program; `slopes` int64 [B, H, W] in units of 1 / `scale`."""
    item = tl.program_id(2).to(tl.int64) * height * width
    labels += item
    logits += item
    place, y, x, inside = _place(height, width, PIXELS)
    label = tl.load(labels + place, mask=inside, other=IGNORE).to(tl.int32)
    total = tl.zeros([PIXELS], tl.float32)
    first = tl.program_id(1) * GROUP
    for index in range(first, tl.minimum(first + GROUP, offsets)):
        distance, forth, _ = _step(table, index, y, x, height, width)
        share, same = _share(labels, label, place + distance, inside & forth, shares)
        counted = share > 0
        highest, top = tl.full([PIXELS], float("-inf"), tl.float32), place
        for step in range(tl.load(begins + index), tl.load(begins + index + 1)):
            there = place + tl.load(steps + step)
            value = tl.load(logits + there, mask=counted, other=float("-inf"))
            higher = (value > highest) | (value != value)  # what is not a number stays
            highest, top = tl.where(higher, value, highest), tl.where(higher, there, top)
        affinity = 1.0 / (1.0 + tl.exp(highest))
        loss, slope = _term(affinity, share, same)
        total += tl.where(counted, loss, 0.0)
        slope *= affinity * (affinity - 1.0)  # d affinity / d logit
        tl.atomic_add(slopes + item + top, (slope * scale).to(tl.int64), mask=counted, sem="relaxed")
    _store_sum(losses, total)


@triton.jit(do_not_specialize=["channels", "height", "width"])
def feature_pairs(
    features, labels, table, shares, slopes, losses, channels, height, width,
    PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """One offset of a tile of pixels a program; `slopes` [B, N, H, W], to be multiplied by the sign of f_i - f_j."""
    count, item, index = height * width, tl.program_id(2).to(tl.int64), tl.program_id(1)
    labels += item * count
    features += item * channels * count
    place, y, x, inside = _place(height, width, PIXELS)
    label = tl.load(labels + place, mask=inside, other=IGNORE).to(tl.int32)
    distance, forth, _ = _step(table, index, y, x, height, width)
    share, same = _share(labels, label, place + distance, inside & forth, shares)
    counted = share > 0
    apart = tl.zeros([CHANNELS, PIXELS], tl.float32)
    for start in range(0, channels, CHANNELS):
        k = start + tl.arange(0, CHANNELS)
        known = (k < channels)[:, None] & counted[None, :]
        here = features + (k * count)[:, None] + place[None, :]
        apart += tl.abs(tl.load(here, mask=known, other=0.0) - tl.load(here + distance, mask=known, other=0.0))
    affinity = tl.exp(-tl.sum(apart, 0) / channels)
    loss, slope = _term(affinity, share, same)
    slope = tl.where(counted, slope * affinity / -channels, 0.0)
    tl.store(slopes + (item * tl.num_programs(1) + index) * count + place, slope, mask=inside)
    _store_sum(losses, tl.where(counted, loss, 0.0))


@triton.jit(do_not_specialize=["offsets", "channels", "height", "width"])
def feature_gradient(
    features, table, slopes, gradient, offsets, channels, height, width,
    PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """`CHANNELS` channels of a tile of pixels a program."""
    count, item = height * width, tl.program_id(2).to(tl.int64)
    slopes += item * offsets * count
    place, y, x, inside = _place(height, width, PIXELS)
    k = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    known = (k < channels)[:, None] & inside[None, :]
    here = item * channels * count + (k * count)[:, None] + place[None, :]
    centre = tl.load(features + here, mask=known, other=0.0)
    total = tl.zeros([CHANNELS, PIXELS], tl.float32)
    for index in range(offsets):
        distance, forth, back = _step(table, index, y, x, height, width)
        slope = tl.load(slopes + place, mask=inside & forth, other=0.0)[None, :]
        apart = centre - tl.load(features + here + distance, mask=known & forth[None, :], other=0.0)
        total += tl.where(apart > 0, slope, tl.where(apart < 0, -slope, 0.0))
        slope = tl.load(slopes + place - distance, mask=inside & back, other=0.0)[None, :]
        apart = centre - tl.load(features + here - distance, mask=known & back[None, :], other=0.0)
        total += tl.where(apart > 0, slope, tl.where(apart < 0, -slope, 0.0))
        slopes += count
    tl.store(gradient + here, total, mask=known)
