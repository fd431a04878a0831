"""Cross-entropy of bilinearly upsampled logits in one kernel; the upsampled logits are never in memory.

Forward: a program takes a tile of output pixels, interpolates their logits in registers, and writes the logarithm of
the softmax's denominator of each pixel and the sum and count of its tile. Backward: a program takes a tile of low-res
cells and gathers from all output pixels that a cell touches, in a fixed order, so that the gradient has the same bits
in every run.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from wsss_cli.kernels.layout import nchw, nhwc

IGNORE = tl.constexpr(255)
TILE_WIDTH = 16


def upsampled_cross_entropy(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Sum of the pixels' cross-entropies, and how many pixels have a label.

    Args:
        logits: float [B, K, h, w] of any float type; upsampled bilinearly (`align_corners=False`) to [H, W].
        target: class indices in 0..K-1, or 255 = ignored; integers [B, H, W]. Any other value makes the sum NaN.
        weight: factor on each pixel's loss, float [B, H, W]; gets no gradient.
    Returns:
        (sum, float32 scalar; pixels that are not 255, int64 scalar). The gradient of `logits` has their type and is
        accumulated in float32.
    Raises:
        ValueError: tensors that are not on a GPU.
    """
    sum_and_count: tuple[Tensor, Tensor] = _UpsampledCrossEntropy.apply(logits, target, weight)
    return sum_and_count


class _UpsampledCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        logits, target = nhwc(logits), target.contiguous()
        weight = None if weight is None else weight.contiguous()
        batch, height, width, classes = logits.shape
        out_height, out_width = target.shape[-2:]
        padded = triton.next_power_of_2(classes)
        tile_height = min(max(2048 // padded, TILE_WIDTH), 256) // TILE_WIDTH
        tiles = (triton.cdiv(out_height, tile_height), triton.cdiv(out_width, TILE_WIDTH))
        programs = batch * tiles[0] * tiles[1]
        log_sum = logits.new_empty(target.shape, dtype=torch.float32)
        sums = logits.new_empty(programs, dtype=torch.float32)
        counts = logits.new_empty(programs, dtype=torch.int32)
        sizes = (classes, height, width, out_height, out_width, height / out_height, width / out_width)
        cross_entropy_forward[(programs,)](
            logits,
            target,
            weight,
            log_sum,
            sums,
            counts,
            *sizes,
            *tiles,
            CLASSES=padded,
            ROWS=tile_height,
            COLUMNS=TILE_WIDTH,
            WEIGHTED=weight is not None,
        )
        ctx.save_for_backward(logits, target, weight, log_sum)
        ctx.sizes = sizes
        total, count = sums.sum(dtype=torch.float64).float(), counts.sum(dtype=torch.int64)
        ctx.mark_non_differentiable(count)
        return total, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        logits, target, weight, log_sum = ctx.saved_tensors
        classes, height, width, out_height, out_width, *_ = ctx.sizes
        padded = triton.next_power_of_2(classes)
        cells = min(max(512 // padded, 4), 64)
        tiles = triton.cdiv(width, cells)
        grad = torch.empty_like(logits)
        cross_entropy_backward[(logits.shape[0] * height * tiles,)](
            logits,
            target,
            weight,
            log_sum,
            upstream[0],
            grad,
            *ctx.sizes,
            triton.cdiv(2 * out_height, height),  # a cell reaches one cell to either side
            triton.cdiv(2 * out_width, width),
            tiles,
            CLASSES=padded,
            COLUMNS=cells,
            WEIGHTED=weight is not None,
        )
        return nchw(grad), None, None


@triton.jit
def _source(place, scale, size):
    """Cell before an output pixel, cell after it, and the weight of the latter, as `F.interpolate` has them."""
    source = tl.maximum((place + 0.5) * scale - 0.5, 0.0)
    before = tl.minimum(source.to(tl.int32), size - 1)
    after = tl.minimum(before + 1, size - 1)
    return before, after, source - before


@triton.jit
def cross_entropy_forward(
    logits,
    target,
    weight,
    log_sum,
    sums,
    counts,
    classes,
    height,
    width,
    out_height,
    out_width,
    scale_y,
    scale_x,
    tiles_y,
    tiles_x,
    CLASSES: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WEIGHTED: tl.constexpr,
):
    program = tl.program_id(0)
    image = (program // (tiles_y * tiles_x)).to(tl.int64)
    pixel = tl.arange(0, ROWS * COLUMNS)
    y = program // tiles_x % tiles_y * ROWS + pixel // COLUMNS
    x = program % tiles_x * COLUMNS + pixel % COLUMNS
    inside = (y < out_height) & (x < out_width)
    top, bottom, down = _source(y, scale_y, height)
    left, right, along = _source(x, scale_x, width)
    k = tl.arange(0, CLASSES)[None, :]
    there = inside[:, None] & (k < classes)
    corner = logits + image * height * width * classes + k
    top, bottom = top * width, bottom * width
    down, along = down[:, None], along[:, None]
    z = (1 - along) * tl.load(corner + ((top + left) * classes)[:, None], mask=there, other=0.0).to(tl.float32)
    z += along * tl.load(corner + ((top + right) * classes)[:, None], mask=there, other=0.0).to(tl.float32)
    below = (1 - along) * tl.load(corner + ((bottom + left) * classes)[:, None], mask=there, other=0.0).to(tl.float32)
    below += along * tl.load(corner + ((bottom + right) * classes)[:, None], mask=there, other=0.0).to(tl.float32)
    z = tl.where(k < classes, (1 - down) * z + down * below, float("-inf"))
    largest = tl.max(z, 1)
    log_total = largest + tl.log(tl.sum(tl.exp(z - largest[:, None]), 1))
    place = image * out_height * out_width + y * out_width + x
    label = tl.load(target + place, mask=inside, other=IGNORE).to(tl.int32)
    cost = log_total - tl.sum(tl.where(k == label[:, None], z, 0.0), 1)
    cost = tl.where((label >= 0) & (label < classes), cost, float("nan"))
    if WEIGHTED:
        cost *= tl.load(weight + place, mask=inside, other=0.0).to(tl.float32)
    labelled = label != IGNORE
    tl.store(log_sum + place, log_total, mask=inside)
    tl.store(sums + program, tl.sum(tl.where(labelled, cost, 0.0), 0))
    tl.store(counts + program, tl.sum(labelled.to(tl.int32), 0))


@triton.jit
def _first_pixel(cell, size, out_size):
    """The first output pixel whose source lies after the cell before `cell`; integers, as rounding must lose none."""
    return tl.maximum((2 * cell - 1) * out_size + size, 0) // (2 * size)


@triton.jit
def cross_entropy_backward(
    logits,
    target,
    weight,
    log_sum,
    upstream,
    grad,
    classes,
    height,
    width,
    out_height,
    out_width,
    scale_y,
    scale_x,
    steps_y,
    steps_x,
    tiles,
    CLASSES: tl.constexpr,
    COLUMNS: tl.constexpr,
    WEIGHTED: tl.constexpr,
):
    program = tl.program_id(0)
    image = (program // (tiles * height)).to(tl.int64)
    cell_y = program // tiles % height
    cell_x = program % tiles * COLUMNS + tl.arange(0, COLUMNS)
    first_y = _first_pixel(cell_y, height, out_height)
    first_x = _first_pixel(cell_x, width, out_width)
    k = tl.arange(0, CLASSES)[None, :]
    there = (cell_x < width)[:, None] & (k < classes)
    cell = (cell_x * classes)[:, None]
    before = (tl.maximum(cell_x - 1, 0) * classes)[:, None]
    after = (tl.minimum(cell_x + 1, width - 1) * classes)[:, None]
    maps = logits + image * height * width * classes + k
    total = tl.zeros([COLUMNS, CLASSES], tl.float32)
    for step_y in range(steps_y):
        y = first_y + step_y
        row = image * out_height * out_width + y * out_width
        within = (cell_x < width) & (y < out_height)
        top, bottom, down = _source(y, scale_y, height)
        reach_y = tl.where(top == cell_y, 1 - down, 0.0) + tl.where(bottom == cell_y, down, 0.0)
        # logits of this output row above the cell's two neighbours and the cell itself
        first, second = maps + top * width * classes, maps + bottom * width * classes
        z_before = (1 - down) * tl.load(first + before, mask=there, other=0.0).to(tl.float32)
        z_before += down * tl.load(second + before, mask=there, other=0.0).to(tl.float32)
        z_cell = (1 - down) * tl.load(first + cell, mask=there, other=0.0).to(tl.float32)
        z_cell += down * tl.load(second + cell, mask=there, other=0.0).to(tl.float32)
        z_after = (1 - down) * tl.load(first + after, mask=there, other=0.0).to(tl.float32)
        z_after += down * tl.load(second + after, mask=there, other=0.0).to(tl.float32)
        for step_x in range(steps_x):
            x = first_x + step_x
            source = tl.maximum((x + 0.5) * scale_x - 0.5, 0.0)  # as in _source
            left = tl.minimum(source.to(tl.int32), width - 1)
            along = source - left
            reach = tl.where(left == cell_x, 1 - along, 0.0)
            reach = reach_y * (reach + tl.where(tl.minimum(left + 1, width - 1) == cell_x, along, 0.0))
            touched = within & (x < out_width) & (reach > 0)
            place = row + x
            label = tl.load(target + place, mask=touched, other=IGNORE).to(tl.int32)
            if WEIGHTED:
                reach *= tl.load(weight + place, mask=touched, other=0.0).to(tl.float32)
            # the pixel lies between the cell and one of its neighbours
            back = left < cell_x
            z = tl.where(back, along, 1 - along)[:, None] * z_cell
            z += tl.where(back, 1 - along, along)[:, None] * tl.where(back[:, None], z_before, z_after)
            # infinity: exp gives 0 where nothing is touched, however large the logits of the wrong place are
            log_total = tl.load(log_sum + place, mask=touched, other=float("inf"))
            slope = tl.exp(z - log_total[:, None]) - tl.where(k == label[:, None], 1.0, 0.0)
            total += tl.where(label != IGNORE, reach, 0.0)[:, None] * slope
    total *= tl.load(upstream)
    here = grad + image * height * width * classes + (cell_y * width + cell_x)[:, None] * classes + k
    tl.store(here, total.to(grad.dtype.element_ty), mask=there)
