"""Whether kernels can run on a type of device, and what a setting of `kernels` means there. No torch here."""

from __future__ import annotations

import importlib.util
from typing import Literal


def chosen_kernels(kernels: str, device: str) -> Literal["plain", "fused"]:
    """What a setting of `kernels` means on a type of device: 'auto' is 'fused' where such kernels can run."""
    if kernels == "auto":
        return "plain" if why_no_kernels(device) else "fused"
    return "fused" if kernels == "fused" else "plain"


def why_no_kernels(device: str) -> str:
    """Why own kernels cannot run on a type of device; empty: they can."""
    if device != "cuda":
        return f"they run on CUDA, and the device is {device}"
    if importlib.util.find_spec("triton") is None:
        return "they need Triton, which comes with the CUDA builds of torch for Linux and is not installed"
    return ""
