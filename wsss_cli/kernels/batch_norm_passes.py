"""The passes over NHWC activations of which `batch_norm` makes a training-mode batch norm.

Pointers are to contiguous memory; pixels, channels: of the activations; rows: pixels of a chunk.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def batch_norm_statistics(x, means, squares, pixels, channels, rows, ROWS: tl.constexpr, CHANNELS: tl.constexpr):
    """Mean, and sum of squared distances from it, of each chunk."""
    program = tl.program_id(0)
    blocks = tl.cdiv(channels, CHANNELS)
    chunk = program // blocks
    channel = (program % blocks * CHANNELS + tl.arange(0, CHANNELS))[None, :]
    real = channel < channels
    last = tl.minimum((chunk + 1) * rows, pixels)
    mean = tl.zeros([ROWS, CHANNELS], tl.float32)
    square = tl.zeros([ROWS, CHANNELS], tl.float32)
    number = tl.zeros([ROWS, 1], tl.float32)
    for first in range(chunk * rows, last, ROWS):
        row = first + tl.arange(0, ROWS)[:, None]
        inside = row < last
        value = tl.load(x + row.to(tl.int64) * channels + channel, mask=inside & real, other=0.0).to(tl.float32)
        number += tl.where(inside, 1.0, 0.0)
        distance = tl.where(inside, value - mean, 0.0)
        mean += distance * (1.0 / tl.maximum(number, 1.0))
        square += distance * (value - mean)
    count = tl.sum(number, 0)[None, :]
    middle = (tl.sum(number * mean, 0)[None, :]) / count
    total = tl.sum(square + number * (mean - middle) * (mean - middle), 0)[None, :]
    tl.store(means + chunk * channels + channel, middle, mask=real)
    tl.store(squares + chunk * channels + channel, total, mask=real)


@triton.jit
def batch_norm_finish(
    means,
    squares,
    mean_out,
    scale_out,
    running_mean,
    running_var,
    pixels,
    channels,
    rows,
    chunks,
    momentum,
    eps,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Merge the chunks (Chan, Golub and LeVeque, 1979), and move the running statistics as `nn.BatchNorm2d` does."""
    channel = (tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS))[None, :]
    real = channel < channels
    total = tl.zeros([ROWS, CHANNELS], tl.float32)
    for first in range(0, chunks, ROWS):
        chunk = first + tl.arange(0, ROWS)[:, None]
        there = (chunk < chunks) & real
        number = tl.minimum(rows, pixels - chunk * rows)
        total += number * tl.load(means + chunk * channels + channel, mask=there, other=0.0)
    mean = (tl.sum(total, 0) / pixels)[None, :]
    total = tl.zeros([ROWS, CHANNELS], tl.float32)
    for first in range(0, chunks, ROWS):
        chunk = first + tl.arange(0, ROWS)[:, None]
        there = (chunk < chunks) & real
        number = tl.minimum(rows, pixels - chunk * rows)
        distance = tl.load(means + chunk * channels + channel, mask=there, other=0.0) - mean
        square = tl.load(squares + chunk * channels + channel, mask=there, other=0.0)
        total += tl.where(there, square + number * distance * distance, 0.0)
    square = tl.sum(total, 0)[None, :]
    tl.store(mean_out + channel, mean, mask=real)
    tl.store(scale_out + channel, 1.0 / tl.sqrt(square / pixels + eps), mask=real)
    before = tl.load(running_mean + channel, mask=real).to(tl.float32)
    tl.store(running_mean + channel, before + momentum * (mean - before), mask=real)
    before = tl.load(running_var + channel, mask=real).to(tl.float32)
    tl.store(running_var + channel, before + momentum * (square / (pixels - 1) - before), mask=real)


@triton.jit
def batch_norm_apply(
    x,
    residual,
    mean,
    scale,
    weight,
    bias,
    out,
    pixels,
    channels,
    RELU: tl.constexpr,
    RESIDUAL: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    program = tl.program_id(0)
    blocks = tl.cdiv(channels, CHANNELS)
    channel = (program % blocks * CHANNELS + tl.arange(0, CHANNELS))[None, :]
    row = program // blocks * ROWS + tl.arange(0, ROWS)[:, None]
    real = channel < channels
    there = (row < pixels) & real
    place = row.to(tl.int64) * channels + channel
    value = tl.load(x + place, mask=there, other=0.0).to(tl.float32)
    centre = tl.load(mean + channel, mask=real, other=0.0)
    factor = tl.load(scale + channel, mask=real, other=0.0)
    slope = tl.load(weight + channel, mask=real, other=0.0).to(tl.float32)
    value = (value - centre) * factor * slope + tl.load(bias + channel, mask=real, other=0.0).to(tl.float32)
    if RESIDUAL:
        value += tl.load(residual + place, mask=there, other=0.0).to(tl.float32)
    if RELU:
        value = tl.where(value <= 0, 0.0, value)  # NaN stays, as in torch; tl.maximum would drop it
    tl.store(out + place, value.to(out.dtype.element_ty), mask=there)


@triton.jit
def batch_norm_reduce(
    grad,
    x,
    out,
    masked,
    mean,
    scale,
    weight,
    bias,
    sums,
    pixels,
    channels,
    rows,
    FROM_INPUT: tl.constexpr,
    FROM_OUTPUT: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Of each chunk: the sum of the gradient behind the ReLU, and of its product with the normalised input."""
    program = tl.program_id(0)
    blocks = tl.cdiv(channels, CHANNELS)
    chunk = program // blocks
    channel = (program % blocks * CHANNELS + tl.arange(0, CHANNELS))[None, :]
    real = channel < channels
    last = tl.minimum((chunk + 1) * rows, pixels)
    centre = tl.load(mean + channel, mask=real, other=0.0)
    factor = tl.load(scale + channel, mask=real, other=0.0)
    if FROM_INPUT:
        slope = tl.load(weight + channel, mask=real, other=0.0).to(tl.float32)
        shift = tl.load(bias + channel, mask=real, other=0.0).to(tl.float32)
    plain = tl.zeros([ROWS, CHANNELS], tl.float32)
    product = tl.zeros([ROWS, CHANNELS], tl.float32)
    for first in range(chunk * rows, last, ROWS):
        row = first + tl.arange(0, ROWS)[:, None]
        there = (row < last) & real
        place = row.to(tl.int64) * channels + channel
        change = tl.load(grad + place, mask=there, other=0.0).to(tl.float32)
        normal = (tl.load(x + place, mask=there, other=0.0).to(tl.float32) - centre) * factor
        if FROM_INPUT:
            change = tl.where(normal * slope + shift <= 0, 0.0, change)
        if FROM_OUTPUT:
            change = tl.where(tl.load(out + place, mask=there, other=0.0) <= 0, 0.0, change)
            tl.store(masked + place, change.to(masked.dtype.element_ty), mask=there)
        plain += change
        product += change * normal
    start = sums + chunk * 2 * channels + channel
    tl.store(start, tl.sum(plain, 0)[None, :], mask=real)
    tl.store(start + channels, tl.sum(product, 0)[None, :], mask=real)


@triton.jit
def batch_norm_gradient(
    grad,
    x,
    mean,
    scale,
    weight,
    bias,
    sums,
    grad_x,
    pixels,
    channels,
    FROM_INPUT: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    program = tl.program_id(0)
    blocks = tl.cdiv(channels, CHANNELS)
    channel = (program % blocks * CHANNELS + tl.arange(0, CHANNELS))[None, :]
    row = program // blocks * ROWS + tl.arange(0, ROWS)[:, None]
    real = channel < channels
    there = (row < pixels) & real
    place = row.to(tl.int64) * channels + channel
    factor = tl.load(scale + channel, mask=real, other=0.0)
    slope = tl.load(weight + channel, mask=real, other=0.0).to(tl.float32)
    change = tl.load(grad + place, mask=there, other=0.0).to(tl.float32)
    value = tl.load(x + place, mask=there, other=0.0).to(tl.float32)
    normal = (value - tl.load(mean + channel, mask=real, other=0.0)) * factor
    if FROM_INPUT:
        shift = tl.load(bias + channel, mask=real, other=0.0).to(tl.float32)
        change = tl.where(normal * slope + shift <= 0, 0.0, change)
    plain = tl.load(sums + channel, mask=real, other=0.0) / pixels
    product = tl.load(sums + channels + channel, mask=real, other=0.0) / pixels
    change = slope * factor * (change - plain - normal * product)
    tl.store(grad_x + place, change.to(grad_x.dtype.element_ty), mask=there)
