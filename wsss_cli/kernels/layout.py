"""The layout that the training kernels work on: NHWC, which `torch.channels_last` tensors have in memory."""

from __future__ import annotations

import torch
import triton
from torch import Tensor


def nhwc(x: Tensor) -> Tensor:
    """[B, C, H, W] -> the same as a contiguous [B, H, W, C]; copied only where the memory is not laid out so.

    Raises:
        ValueError: a tensor that no kernel can be launched on: not on a GPU, and Triton's interpreter is off.
    """
    if x.device.type != "cuda" and not triton.knobs.runtime.interpret:
        raise ValueError(f"kernels run on CUDA tensors; this one is on {x.device}")
    return x.permute(0, 2, 3, 1).contiguous()


def empty_like_nchw(x: Tensor) -> Tensor:
    """A channels_last [B, C, H, W] for the results of a kernel that reads `x`, [B, H, W, C].

    Not a view, so that layers that work in place may follow.
    """
    batch, height, width, channels = x.shape
    size = (batch, channels, height, width)
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def nchw(x: Tensor) -> Tensor:
    """[B, H, W, C] -> a view [B, C, H, W]."""
    return x.permute(0, 3, 1, 2)
