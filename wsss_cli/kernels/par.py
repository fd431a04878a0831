"""Pixel-adaptive refinement on a GPU: no neighbours and no affinities in memory.

The weight of neighbour n is 2^(m - e_n) / s (+ position), e_n = sum_c q_c (I_nc - I_c)^2 with q_c = log2(e) / (3 (std_c
+ 1e-8)^2 w1^2), m the lowest e and s the sum of the powers. `par_scales` finds q, m and s once; `par_step` computes e_n
anew in every iteration. That takes three loads and a dozen operations for all classes of a block, and 20 bytes a pixel
in memory in place of the 192 of 48 weights: of a 250 x 188 image 0.9 MB, not 9 MB (arithmetic, not measured).

e_n may be 1e20 (neighbours of one colour, not that of the pixel), so both kernels must find the same bits, or m - e_n
would be anything: they share `_energy` and are compiled without fused multiply-add, which a compiler may use in one
and not in the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS, COLUMNS = 4, 16  # of a tile
SCALES_BLOCK = 128
UNROLL = 4  # neighbours whose loads are in flight together
LOG2E = tl.constexpr(math.log2(math.e))


def par(
    image: Tensor,
    planes: Tensor,
    offsets: Sequence[tuple[int, int]],
    position: Sequence[float],
    *,
    iterations: int,
    w1: float,
    w2: float,
) -> Tensor:
    """Pixel-adaptive refinement; see `pseudo.par.par`, which has the same result up to rounding.

    The same input gives the same bits.

    Args:
        image: RGB in [0, 255], float [B, 3, H, W], on a CUDA device (on the CPU in Triton's interpreter).
        planes: float [B, C, H, W] on the same device.
        offsets: (dy, dx) of each neighbour.
        position: weight of each neighbour by its distance; they sum to one.
        iterations, w1, w2: as there.
    Returns:
        float32 [B, C, H, W].
    """
    batch, classes, height, width = planes.shape
    count = height * width
    block = 4 if classes <= 4 else 8  # a thread has 4 classes of a pixel: loads of 16 bytes
    blocks = max(triton.cdiv(classes, block), 1)
    with torch.cuda.device_of(planes):
        image = image.float().contiguous()
        steps = torch.tensor(offsets, dtype=torch.int32).t().contiguous().to(planes.device)
        shares = torch.tensor([w2 * share / (1 + w2) for share in position], dtype=torch.float32).to(planes.device)
        scales = image.new_empty(batch, 5, count)
        par_scales[(triton.cdiv(count, SCALES_BLOCK), batch)](
            image, steps, scales, height, width, len(offsets), w1, 1 / (1 + w2),
            BLOCK=SCALES_BLOCK, enable_fp_fusion=False,
        )  # fmt: skip
        now = image.new_zeros(batch, count, blocks * block)
        now[..., :classes] = planes.flatten(2).mT
        new = torch.empty_like(now)
        grid = (triton.cdiv(width, COLUMNS), triton.cdiv(height, ROWS), batch * blocks)
        for _ in range(iterations):
            par_step[grid](
                now, new, image, scales, steps, shares, height, width, len(offsets),
                CLASSES=blocks * block, BLOCK=block, ROWS=ROWS, COLUMNS=COLUMNS, UNROLL=UNROLL,
                num_warps=ROWS * COLUMNS * block // 128, num_stages=1, enable_fp_fusion=False,
            )  # fmt: skip
            now, new = new, now
        return now[..., :classes].mT.contiguous().view(planes.shape)


@triton.jit
def _neighbour(steps, index, neighbours, y, x, height, width):
    """Place in a plane of the neighbour of each pixel; beyond the edge the outermost pixel."""
    there = tl.minimum(tl.maximum(y + tl.load(steps + index), 0), height - 1)
    return there * width + tl.minimum(tl.maximum(x + tl.load(steps + neighbours + index), 0), width - 1)


@triton.jit
def _energy(image, count, there, red, green, blue, q_red, q_green, q_blue):
    """e_n of a neighbour: the same bits wherever it is compiled."""
    d_red = tl.load(image + there) - red
    d_green = tl.load(image + count + there) - green
    d_blue = tl.load(image + 2 * count + there) - blue
    return d_red * d_red * q_red + d_green * d_green * q_green + d_blue * d_blue * q_blue


@triton.jit
def _scale(image, steps, y, x, height, width, neighbours, w1):
    """q of one plane of the image."""
    total = tl.zeros(y.shape, tl.float32)
    for index in range(neighbours):
        total += tl.load(image + _neighbour(steps, index, neighbours, y, x, height, width))
    mean = total / neighbours
    squares = tl.zeros(y.shape, tl.float32)
    for index in range(neighbours):
        difference = tl.load(image + _neighbour(steps, index, neighbours, y, x, height, width)) - mean
        squares += difference * difference
    width_of_kernel = (tl.sqrt(squares / (neighbours - 1)) + 1e-8) * w1
    return LOG2E / 3 / (width_of_kernel * width_of_kernel)


@triton.jit(do_not_specialize=["height", "width", "neighbours"])
def par_scales(
    image, steps, scales, height, width, neighbours, w1, share, BLOCK: tl.constexpr
):  # fmt: skip
    """q of red, green and blue, m, and share / s: `scales` [B, 5, H * W] of `image` [B, 3, H * W]."""
    count = height * width
    image += tl.program_id(1).to(tl.int64) * 3 * count
    scales += tl.program_id(1).to(tl.int64) * 5 * count
    pixels = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = pixels < count
    here = tl.minimum(pixels, count - 1)  # those past the end do the last pixel's work and store nothing
    y, x = here // width, here % width
    red, green, blue = tl.load(image + here), tl.load(image + count + here), tl.load(image + 2 * count + here)
    q_red = _scale(image, steps, y, x, height, width, neighbours, w1)
    q_green = _scale(image + count, steps, y, x, height, width, neighbours, w1)
    q_blue = _scale(image + 2 * count, steps, y, x, height, width, neighbours, w1)
    lowest = tl.full([BLOCK], float("inf"), tl.float32)
    for index in range(neighbours):
        there = _neighbour(steps, index, neighbours, y, x, height, width)
        lowest = tl.minimum(lowest, _energy(image, count, there, red, green, blue, q_red, q_green, q_blue))
    total = tl.zeros([BLOCK], tl.float32)
    for index in range(neighbours):
        there = _neighbour(steps, index, neighbours, y, x, height, width)
        total += tl.exp2(lowest - _energy(image, count, there, red, green, blue, q_red, q_green, q_blue))
    tl.store(scales + pixels, q_red, mask=inside)
    tl.store(scales + count + pixels, q_green, mask=inside)
    tl.store(scales + 2 * count + pixels, q_blue, mask=inside)
    tl.store(scales + 3 * count + pixels, lowest, mask=inside)
    tl.store(scales + 4 * count + pixels, share / total, mask=inside)


@triton.jit(do_not_specialize=["height", "width", "neighbours"])
def par_step(
    now, new, image, scales, steps, shares, height, width, neighbours,
    CLASSES: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    """One iteration from `now` to `new`, both [B, H * W, CLASSES]; `BLOCK` classes of a tile of pixels a program."""
    blocks: tl.constexpr = CLASSES // BLOCK
    item = (tl.program_id(2) // blocks).to(tl.int64)
    count = height * width
    image += item * 3 * count
    scales += item * 5 * count
    tile = tl.arange(0, ROWS * COLUMNS)
    y = tl.program_id(1) * ROWS + tile // COLUMNS
    x = tl.program_id(0) * COLUMNS + tile % COLUMNS
    inside = (y < height) & (x < width)
    y, x = tl.minimum(y, height - 1), tl.minimum(x, width - 1)
    here = y * width + x
    q_red, q_green, q_blue = tl.load(scales + here), tl.load(scales + count + here), tl.load(scales + 2 * count + here)
    lowest, share = tl.load(scales + 3 * count + here), tl.load(scales + 4 * count + here)
    red, green, blue = tl.load(image + here), tl.load(image + count + here), tl.load(image + 2 * count + here)
    cells = item * count * CLASSES + tl.program_id(2) % blocks * BLOCK
    classes = tl.arange(0, BLOCK)
    spread = tl.zeros([ROWS * COLUMNS, BLOCK], tl.float32)
    for index in tl.range(0, neighbours, loop_unroll_factor=UNROLL):
        there = _neighbour(steps, index, neighbours, y, x, height, width)
        energy = _energy(image, count, there, red, green, blue, q_red, q_green, q_blue)
        weight = tl.exp2(lowest - energy) * share + tl.load(shares + index)
        score = tl.load(now + cells + there[:, None] * CLASSES + classes[None, :])
        spread = tl.fma(tl.broadcast_to(weight[:, None], score.shape), score, spread)
    tl.store(new + cells + here[:, None] * CLASSES + classes[None, :], spread, mask=inside[:, None])
