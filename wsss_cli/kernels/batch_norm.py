"""Training-mode batch norm, with the ReLU, or the residual sum and the ReLU, that follow it, on NHWC activations.

Forward: one pass for the statistics (Welford's recurrence in float32, chunk by chunk, merged in a fixed order) and one
that normalises, adds and clips. Backward: one pass for the two sums over pixels, and one for the gradient of the input.
The ReLU's mask comes from the input again, which saves reading the output; with a residual it comes from the output,
and the first pass writes the masked gradient, which is the residual's.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
import triton
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from wsss_cli.kernels.batch_norm_passes import (
    batch_norm_apply,
    batch_norm_finish,
    batch_norm_gradient,
    batch_norm_reduce,
    batch_norm_statistics,
)
from wsss_cli.kernels.layout import empty_like_nchw, nchw, nhwc

ROWS = 32  # pixels of a tile
CHANNELS = 64  # of a tile: 128 bytes of bfloat16, one line of the cache
PROGRAMS = 660  # of a pass that sums, about: the five of `batch_norm_reduce` that fit each multiprocessor of an H100
FINISH_ROWS, FINISH_CHANNELS = 64, 16


class FusedBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d`, same state, that adds and clips too; on the kernels in training mode, else as it was.

    Attributes:
        relu: clip the result at 0.
    """

    relu = False

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """x, float [B, C, H, W], normalised; plus `residual` of the same shape; clipped where `relu` says so."""
        if not self.training or x.numel() <= self.num_features:  # one value a channel: torch says what is wrong
            out = super().forward(x)
            out = out if residual is None else out + residual
            return F.relu(out) if self.relu else out
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        if residual is not None:
            residual = residual.to(x.dtype)
        moved = (self.running_mean, self.running_var, self.momentum)
        normalised: Tensor = _BatchNorm.apply(x, residual, self.weight, self.bias, *moved, self.eps, self.relu)
        return normalised


def fits(norm: nn.Module) -> bool:
    """Whether a module is a batch norm that `FusedBatchNorm2d` can stand for."""
    return type(norm) is nn.BatchNorm2d and norm.affine and norm.track_running_stats and norm.momentum is not None


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        residual: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        momentum: float,
        eps: float,
        relu: bool,
    ) -> Tensor:
        x = nhwc(x)
        residual = None if residual is None else nhwc(residual)
        mean, scale = _statistics(x, running_mean, running_var, momentum, eps)
        out = empty_like_nchw(x)
        batch_norm_apply[_tiles(x)](
            x,
            residual,
            mean,
            scale,
            weight,
            bias,
            out,
            *_sizes(x),
            RELU=relu,
            RESIDUAL=residual is not None,
            ROWS=ROWS,
            CHANNELS=CHANNELS,
        )
        ctx.save_for_backward(x, out if relu and residual is not None else None, weight, bias, mean, scale)
        ctx.relu, ctx.residual = relu, residual is not None
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, out, weight, bias, mean, scale = ctx.saved_tensors
        grad = nhwc(grads[0])
        clipped = ctx.relu and out is None  # the mask comes from x
        masked = grad if out is None else torch.empty_like(grad)
        rows, chunks = _chunks(x)
        partial = x.new_empty((chunks, 2, x.shape[-1]), dtype=torch.float32)
        parameters = (mean, scale, weight, bias)
        batch_norm_reduce[(chunks * triton.cdiv(x.shape[-1], CHANNELS),)](
            grad,
            x,
            out,
            masked,
            *parameters,
            partial,
            *_sizes(x),
            rows,
            FROM_INPUT=clipped,
            FROM_OUTPUT=out is not None,
            ROWS=ROWS,
            CHANNELS=CHANNELS,
        )
        sums = partial.sum(0)
        grad_x = torch.empty_like(x)
        batch_norm_gradient[_tiles(x)](
            masked, x, *parameters, sums, grad_x, *_sizes(x), FROM_INPUT=clipped, ROWS=ROWS, CHANNELS=CHANNELS
        )
        grad_residual = nchw(masked) if ctx.residual else None
        grad_weight, grad_bias = sums[1].to(weight.dtype), sums[0].to(bias.dtype)
        return nchw(grad_x), grad_residual, grad_weight, grad_bias, None, None, None, None, None


def _sizes(x: Tensor) -> tuple[int, int]:
    return x.numel() // x.shape[-1], x.shape[-1]


def _tiles(x: Tensor) -> tuple[int]:
    pixels, channels = _sizes(x)
    return (triton.cdiv(pixels, ROWS) * triton.cdiv(channels, CHANNELS),)


def _chunks(x: Tensor) -> tuple[int, int]:
    """Pixels of a chunk, a multiple of a tile's, and how many chunks there are."""
    pixels, channels = _sizes(x)
    wanted = max(PROGRAMS // triton.cdiv(channels, CHANNELS), 1)
    rows = triton.cdiv(triton.cdiv(pixels, wanted), ROWS) * ROWS
    return rows, triton.cdiv(pixels, rows)


def _statistics(
    x: Tensor, running_mean: Tensor, running_var: Tensor, momentum: float, eps: float
) -> tuple[Tensor, Tensor]:
    """Mean and 1 / sqrt(variance + eps) of each channel, float32 [C]; moves the running statistics."""
    pixels, channels = _sizes(x)
    rows, chunks = _chunks(x)
    partial = x.new_empty((2, chunks, channels), dtype=torch.float32)
    batch_norm_statistics[(chunks * triton.cdiv(channels, CHANNELS),)](
        x, partial[0], partial[1], pixels, channels, rows, ROWS=ROWS, CHANNELS=CHANNELS
    )
    statistics = x.new_empty((2, channels), dtype=torch.float32)
    batch_norm_finish[(triton.cdiv(channels, FINISH_CHANNELS),)](
        partial[0],
        partial[1],
        statistics[0],
        statistics[1],
        running_mean,
        running_var,
        pixels,
        channels,
        rows,
        chunks,
        float(momentum),
        float(eps),
        ROWS=FINISH_ROWS,
        CHANNELS=FINISH_CHANNELS,
    )
    return statistics[0], statistics[1]
