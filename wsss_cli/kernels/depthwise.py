"""3x3 depthwise convolution at stride 1, any dilation, size-preserving, on NHWC activations; sums in float32.

The input gradient is the same kernel with mirrored weights. For the weight gradient a program sums a chunk of rows for
a block of channels, and the chunks are added in a fixed order: the same bits in every run.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from wsss_cli.kernels.layout import empty_like_nchw, nhwc

CHANNELS = 64  # of a program: 128 bytes of bfloat16, one line of the cache
PIXELS = 16  # of a program, side by side
LAUNCH = {"num_warps": 2}  # on an H100 0.30 ms where four take 0.44
CHUNK_PIXELS = 16  # the same for the weight gradient, which has nine sums for each
PROGRAMS = 528  # of the weight gradient, about: the four that fit each multiprocessor of an H100 at once


class DepthwiseConv3x3(nn.Conv2d):
    """A bias-free depthwise `nn.Conv2d`, 3x3, stride 1, padding = dilation, on the kernels.

    In evaluation mode one without dilation is the convolution that it was, as the library's is no slower then: on an
    H200, 16 images, 0.25 ms beside 0.32 (560 channels of 128x128); dilated 6.2 beside 0.28 (2,048 of 64x64). Under
    autocast activations have the type of autocast, as in `nn.Conv2d`; the weight and its gradient stay in float32.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training and self.dilation[0] == 1:
            return super().forward(x)
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        return depthwise3x3(x, self.weight, int(self.dilation[0]))


def fits(conv: nn.Module) -> bool:
    """Whether a module is a convolution that `DepthwiseConv3x3` can stand for."""
    return (
        type(conv) is nn.Conv2d
        and 1 < conv.groups == conv.in_channels == conv.out_channels
        and conv.kernel_size == (3, 3)
        and conv.stride == (1, 1)
        and conv.padding == conv.dilation
        and conv.dilation[0] == conv.dilation[1]
        and conv.bias is None
        and conv.padding_mode == "zeros"
    )


def depthwise3x3(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """Convolve each channel with its own 3x3 kernel.

    Args:
        x: float [B, C, H, W], of any float type; without a copy where the memory is channels_last.
        weight: float [C, 1, 3, 3]; need not have the type of `x`.
        dilation: pixels between taps, and padding on each side.
    Returns:
        [B, C, H, W] like `x`, channels_last. The gradients have the types of `x` and `weight`.
    Raises:
        ValueError: tensors that are not on a GPU.
    """
    out: Tensor = _Depthwise.apply(x, weight, dilation)
    return out


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dilation: int) -> Tensor:
        x = nhwc(x)
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        return _convolve(x, weight, dilation, mirror=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        grad = nhwc(grads[0])
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = _convolve(grad, weight, ctx.dilation, mirror=True)
        if ctx.needs_input_grad[1]:
            grad_weight = _weight_gradient(x, grad, ctx.dilation).to(weight.dtype).view_as(weight)
        return grad_x, grad_weight, None


def _convolve(x: Tensor, weight: Tensor, dilation: int, *, mirror: bool) -> Tensor:
    batch, height, width, channels = x.shape
    out = empty_like_nchw(x)
    tiles, blocks = triton.cdiv(width, PIXELS), triton.cdiv(channels, CHANNELS)
    depthwise_forward[(batch * height * tiles * blocks,)](
        x,
        weight.reshape(channels, 9).t().contiguous(),  # read side by side, as the activations are
        out,
        height,
        width,
        channels,
        dilation,
        tiles,
        blocks,
        MIRROR=mirror,
        PIXELS=PIXELS,
        CHANNELS=CHANNELS,
        **LAUNCH,
    )
    return out


def _weight_gradient(x: Tensor, grad: Tensor, dilation: int) -> Tensor:
    """[C, 9], float32."""
    batch, height, width, channels = x.shape
    blocks = triton.cdiv(channels, CHANNELS)
    rows = triton.cdiv(batch * height, max(PROGRAMS // blocks, 1))  # of a chunk
    chunks = triton.cdiv(batch * height, rows)
    sums = x.new_empty((chunks, channels, 9), dtype=torch.float32)
    depthwise_weight[(chunks * blocks,)](
        x,
        grad,
        sums,
        batch * height,
        height,
        width,
        channels,
        dilation,
        rows,
        blocks,
        PIXELS=CHUNK_PIXELS,
        CHANNELS=CHANNELS,
    )
    return sums.sum(0)


@triton.jit
def depthwise_forward(
    x,
    weight,
    out,
    height,
    width,
    channels,
    dilation,
    tiles,
    blocks,
    MIRROR: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    program = tl.program_id(0)
    channel = program % blocks * CHANNELS + tl.arange(0, CHANNELS)
    column = program // blocks % tiles * PIXELS + tl.arange(0, PIXELS)
    row = program // (blocks * tiles)  # of all images, one below the other
    y = row % height
    real = channel < channels
    total = tl.zeros([PIXELS, CHANNELS], tl.float32)
    for tap in tl.static_range(9):
        tap_y = y + (tap // 3 - 1) * dilation
        tap_x = column + (tap % 3 - 1) * dilation
        seen = (tap_y >= 0) & (tap_y < height) & (tap_x >= 0) & (tap_x < width)
        start = x + (row - y + tap_y).to(tl.int64) * width * channels
        value = tl.load(start + (tap_x * channels)[:, None] + channel, mask=seen[:, None] & real, other=0.0)
        factor = tl.load(weight + ((8 - tap) if MIRROR else tap) * channels + channel, mask=real, other=0.0)
        total += value.to(tl.float32) * factor.to(tl.float32)
    here = out + row.to(tl.int64) * width * channels + (column * channels)[:, None] + channel
    tl.store(here, total.to(out.dtype.element_ty), mask=(column < width)[:, None] & real)


@triton.jit
def depthwise_weight(
    x,
    grad,
    sums,
    all_rows,
    height,
    width,
    channels,
    dilation,
    rows,
    blocks,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    program = tl.program_id(0)
    channel = program % blocks * CHANNELS + tl.arange(0, CHANNELS)
    first = (program // blocks).to(tl.int64) * rows
    real = channel < channels
    # a sum for each tap and pixel, [PIXELS, CHANNELS]: nine names, as a list is not carried through a loop
    above_left = tl.zeros([PIXELS, CHANNELS], tl.float32)
    above_here = tl.zeros([PIXELS, CHANNELS], tl.float32)
    above_right = tl.zeros([PIXELS, CHANNELS], tl.float32)
    level_left = tl.zeros([PIXELS, CHANNELS], tl.float32)
    level_here = tl.zeros([PIXELS, CHANNELS], tl.float32)
    level_right = tl.zeros([PIXELS, CHANNELS], tl.float32)
    below_left = tl.zeros([PIXELS, CHANNELS], tl.float32)
    below_here = tl.zeros([PIXELS, CHANNELS], tl.float32)
    below_right = tl.zeros([PIXELS, CHANNELS], tl.float32)
    for step in range(rows):
        row = first + step
        y = row % height
        slopes = grad + row * width * channels + channel
        for start in range(0, width, PIXELS):
            column = start + tl.arange(0, PIXELS)
            inside = (column < width)[:, None] & real & (row < all_rows)
            slope = tl.load(slopes + (column * channels)[:, None], mask=inside, other=0.0).to(tl.float32)
            for tap in tl.static_range(9):
                tap_y = y + (tap // 3 - 1) * dilation
                tap_x = column + (tap % 3 - 1) * dilation
                seen = (tap_y >= 0) & (tap_y < height) & (tap_x >= 0) & (tap_x < width)
                values = x + (row - y + tap_y) * width * channels + channel
                value = tl.load(values + (tap_x * channels)[:, None], mask=seen[:, None] & inside, other=0.0)
                product = slope * value.to(tl.float32)
                if tap == 0:
                    above_left += product
                elif tap == 1:
                    above_here += product
                elif tap == 2:
                    above_right += product
                elif tap == 3:
                    level_left += product
                elif tap == 4:
                    level_here += product
                elif tap == 5:
                    level_right += product
                elif tap == 6:
                    below_left += product
                elif tap == 7:
                    below_here += product
                else:
                    below_right += product
    block_sums = sums + (program // blocks).to(tl.int64) * channels * 9 + channel * 9
    tl.store(block_sums + 0, tl.sum(above_left, 0), mask=real)
    tl.store(block_sums + 1, tl.sum(above_here, 0), mask=real)
    tl.store(block_sums + 2, tl.sum(above_right, 0), mask=real)
    tl.store(block_sums + 3, tl.sum(level_left, 0), mask=real)
    tl.store(block_sums + 4, tl.sum(level_here, 0), mask=real)
    tl.store(block_sums + 5, tl.sum(level_right, 0), mask=real)
    tl.store(block_sums + 6, tl.sum(below_left, 0), mask=real)
    tl.store(block_sums + 7, tl.sum(below_here, 0), mask=real)
    tl.store(block_sums + 8, tl.sum(below_right, 0), mask=real)
