"""Sums over all pairs of points under a Gaussian kernel, without a matrix of pairs: what an exact dense CRF needs.

Points come in an order in which a tile of them is small in feature space (`crf.order`). A program takes a block of
queries and goes over the tiles of keys near it. Of a pair of tiles it makes the exponents by a product on the tensor
cores, 2 q k - |q|^2 - |k|^2 about the middle of the queries, each factor in two parts of TF32 (their product is right
to 21 bits); exp2; and the product with the values, float16, summed in float32. Nothing of size n^2 is in memory but
the list of near tiles.

By arithmetic, on an H100 SXM (132 multiprocessors at 1.7 GHz, 16 exp2 a clock in each): of the 3.5e10 pairs of a
375x500 image 12 % are near (mean of three photographs, sxy 50, srgb 5), and their exp2 take 1.2 ms. Compiled for it, a
program takes 70 registers and 18 KB of shared memory, so 28 warps fit a multiprocessor. An
H100 took 1.5 ms for the sums of 32 columns (docs/benchmarks/gpu.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

QUERIES = 64  # queries of a program
KEYS = 64  # points of a tile of keys; QUERIES is a multiple; on an H100 and an H200 1.17 times as fast as 32
TILES_AT_ONCE = 256  # that the search for near tiles looks at
LAUNCH = {"num_warps": 4, "num_stages": 5}  # the tile that is fetched is named by memory, which takes two stages itself
STRIDE = 16  # floats of a point's features in memory: 5, and the same again from the eighth on


@dataclass(frozen=True)
class Near:
    """Which tiles of keys each block of queries is near to.

    Attributes:
        offsets: int32 [programs + 1], where the tiles of a block begin in `tiles`.
        tiles: int32 [pairs].
        dropped: float32 [programs], at most how much each row of the kernel has lost with the tiles left out: the sum
            over them of KEYS times the kernel's value at the distance of the two boxes.
    """

    offsets: Tensor
    tiles: Tensor
    dropped: Tensor


def near_tiles(boxes: Tensor, images: Tensor, tolerance: float) -> Near:
    """Pairs of tiles whose kernel may be above `tolerance` somewhere.

    Waits for the device once, to learn how many there are.

    Args:
        boxes: lowest and highest corner of each tile's points, scaled so that the kernel is 2^-|a - b|^2, float32
            [tiles, 10].
        images: first tile and the one after the last of the image of each block of QUERIES points, int32 [blocks, 2].
        tolerance: in (0, 1); 0 keeps all pairs of an image.
    """
    blocks = len(images)
    limit = float("inf") if tolerance <= 0 else -math.log2(tolerance)
    counts = torch.zeros(blocks + 1, dtype=torch.int32, device=boxes.device)
    dropped = torch.empty(blocks, dtype=torch.float32, device=boxes.device)
    options = {"QUERY_TILES": QUERIES // KEYS, "KEYS": KEYS, "BLOCK": TILES_AT_ONCE}
    _near[(blocks,)](boxes, images, counts, dropped, counts, counts, limit, FILL=False, **options)
    offsets = torch.zeros_like(counts)
    offsets[1:] = counts[:-1].cumsum(0)
    tiles = torch.empty(int(offsets[-1]), dtype=torch.int32, device=boxes.device)
    _near[(blocks,)](boxes, images, counts, dropped, offsets, tiles, limit, FILL=True, **options)
    return Near(offsets, tiles, dropped)


def gaussian_sums(features: Tensor, centres: Tensor, values: Tensor, near: Near) -> Tensor:
    """sum_j 2^-|f_i - f_j|^2 v_j for every point i, over the near tiles.

    Args:
        features: float32 [points, STRIDE], points a multiple of QUERIES; see `crf.order.Order`.
        centres: the middle of each block's features, float32 [points / QUERIES, STRIDE].
        values: float16 [points, columns]; columns 16, 32, or a multiple of 64; 0 for points that only fill up.
    Returns:
        float32 [points, columns]. The same bits every time.
    Raises:
        ValueError: shapes that do not fit, or more than 2^31 values.
    """
    points, columns = values.shape
    width = min(columns, 64)
    if points % QUERIES or columns % width or width not in (16, 32, 64) or features.shape != (points, STRIDE):
        raise ValueError(f"features {list(features.shape)} and values {list(values.shape)} do not fit")
    if values.numel() >= 2**31:
        raise ValueError(f"{points} points of {columns} values are too many for 32-bit offsets")
    out = torch.empty((points, columns), dtype=torch.float32, device=values.device)
    _spread[(points // QUERIES, columns // width)](
        features,
        centres,
        values,
        near.offsets,
        near.tiles,
        out,
        columns,
        WIDTH=width,
        QUERIES=QUERIES,
        KEYS=KEYS,
        **LAUNCH,
    )
    return out


@triton.jit
def _near(
    boxes,
    images,
    counts,
    dropped,
    offsets,
    tiles,
    limit,
    FILL: tl.constexpr,
    QUERY_TILES: tl.constexpr,
    KEYS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Count the near tiles of a block of queries, and what the others hold at most; or (FILL) write them, in order."""
    program = tl.program_id(0)
    first, last = tl.load(images + 2 * program), tl.load(images + 2 * program + 1)
    place = tl.load(offsets + program) if FILL else 0
    left_out = 0.0
    query_boxes = boxes + program * QUERY_TILES * 10
    for start in range(first, last, BLOCK):
        tile = start + tl.arange(0, BLOCK)
        inside = tile < last
        squared = tl.zeros([BLOCK], tl.float32)
        for dim in tl.static_range(5):
            low, high = tl.load(query_boxes + dim), tl.load(query_boxes + 5 + dim)
            for other in tl.static_range(1, QUERY_TILES):
                low = tl.minimum(low, tl.load(query_boxes + other * 10 + dim))
                high = tl.maximum(high, tl.load(query_boxes + other * 10 + 5 + dim))
            key_low = tl.load(boxes + tile * 10 + dim, mask=inside, other=0.0)
            key_high = tl.load(boxes + tile * 10 + 5 + dim, mask=inside, other=0.0)
            gap = tl.maximum(tl.maximum(key_low - high, low - key_high), 0.0)
            squared += gap * gap
        near = inside & (squared <= limit)
        if FILL:
            tl.store(tiles + place + tl.cumsum(near.to(tl.int32), 0) - 1, tile, mask=near)
        else:
            left_out += tl.sum(tl.where(inside & (squared > limit), tl.exp2(-squared) * KEYS, 0.0), 0)
        place += tl.sum(near.to(tl.int32), 0)
    if not FILL:
        tl.store(counts + program, place)
        tl.store(dropped + program, left_out)


@triton.jit
def _spread(
    features,
    centres,
    values,
    offsets,
    near,
    out,
    columns,
    WIDTH: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
):
    """See `gaussian_sums`. Columns 5 and 6 of the features take |q|^2 and |k|^2 into the product."""
    program = tl.program_id(0)
    row = program * QUERIES + tl.arange(0, QUERIES)
    column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    dim = tl.arange(0, 16)[None, :]
    half = dim % 8
    centre = tl.load(centres + program * 16 + dim)
    q = tl.load(features + row[:, None] * 16 + dim) - centre
    norm = tl.sum(tl.where(dim < 8, q * q, 0.0), 1)[:, None]
    q = tl.where(half == 5, -norm, tl.where(half == 6, -1.0, 2 * q))
    # its upper 10 bits in the first half, which TF32 holds, the rest in the second
    q_high = (q.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)
    q = tl.where(dim < 8, q_high, q - q_high)
    total = tl.zeros([QUERIES, WIDTH], tl.float32)
    for entry in range(tl.load(offsets + program), tl.load(offsets + program + 1)):
        key = (tl.load(near + entry) * KEYS + tl.arange(0, KEYS))[:, None]
        value = tl.load(values + key * columns + column[None, :])
        k = tl.load(features + key * 16 + dim) - centre
        key_norm = tl.sum(tl.where(dim < 8, k * k, 0.0), 1)[:, None]
        k = tl.where(half == 5, 1.0, tl.where(half == 6, key_norm, k))
        high = (k.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)
        low = tl.where(dim < 8, k - high, 0.0)
        power = tl.dot(q, tl.trans(low), input_precision="tf32")
        power = tl.dot(q, tl.trans(high), power, input_precision="tf32")
        total = tl.dot(tl.exp2(power).to(tl.float16), value, total)
    tl.store(out + row[:, None] * columns + column[None, :], total)
