"""Which of two ways a method is computed: with torch, or with a Triton kernel of this room."""

from __future__ import annotations

import importlib.util
from typing import Literal

import torch
from torch import Tensor

from wsss_cli.kernels.trials import Check, usable

Backend = Literal["auto", "torch", "triton"]


def takes_triton(backend: Backend, x: Tensor, check: Check) -> bool:
    """Whether a kernel is meant: `triton`; or `auto` with float32 on a CUDA device where Triton can be imported, and
    where the kernel has passed its trial.

    Args:
        check: how the kernel is tried.
    """
    if backend == "auto":
        fits = x.is_cuda and x.dtype == torch.float32 and importlib.util.find_spec("triton") is not None
        return fits and usable(check, x.device)
    return backend == "triton"
