"""Which of two ways a method is computed: with torch, or with a Triton kernel of this room."""

from __future__ import annotations

import importlib.util
from typing import Literal

import torch
from torch import Tensor

Backend = Literal["auto", "torch", "triton"]


def takes_triton(backend: Backend, x: Tensor) -> bool:
    """Whether a kernel is meant: `triton`, or `auto` with float32 on a CUDA device where Triton can be imported."""
    if backend == "auto":
        return x.is_cuda and x.dtype == torch.float32 and importlib.util.find_spec("triton") is not None
    return backend == "triton"
