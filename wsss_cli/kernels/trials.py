"""Kernels of this room on a small input beside what they stand for, on this device: at their first use, and for doctor.

The check of a kernel stands where the method is that it computes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss_cli.talk import say

Pairs = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Check:
    """How a kernel is tried.

    Attributes:
        limit: of the greatest difference over the greatest value.
        pairs: (device, source of numbers) -> what the kernel gives and what is right, forward and backward where it
            has both, in float32.
    """

    kernel: str
    limit: float
    pairs: Callable[[torch.device, torch.Generator], Pairs]


@dataclass(frozen=True)
class Trial:
    """What came of a kernel.

    Attributes:
        error: greatest difference from the plain computation over the greatest value of that; None: it did not run.
        limit: of the error.
        reason: why it did not run, one line.
    """

    kernel: str
    error: float | None
    limit: float
    reason: str = ""

    @property
    def passed(self) -> bool:
        return self.error is not None and self.error <= self.limit


def attempt(check: Check, device: torch.device) -> Trial:
    """Run a kernel on CUDA, or on the CPU where Triton interprets it."""
    try:
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
            pairs = check.pairs(device, torch.Generator().manual_seed(0))
        error = max(float((one - other).abs().max() / other.abs().max().clamp(min=1e-6)) for one, other in pairs)
    except Exception as fault:  # a compiler, a driver, a package that is not there: each has errors of its own
        return Trial(check.kernel, None, check.limit, " ".join(f"{type(fault).__name__}: {fault}".split())[:200])
    return Trial(check.kernel, error, check.limit)


_usable: dict[tuple[str, str], bool] = {}
_one_at_a_time = threading.RLock()


def usable(check: Check, device: torch.device) -> bool:
    """Whether a kernel computes what it stands for on a device; tried when this is first asked.

    One that does not is named, with the reason, and that the plain computation takes its place.
    """
    key = check.kernel, str(device)
    with _one_at_a_time:
        if key not in _usable:
            trial = attempt(check, device)
            _usable[key] = trial.passed
            if not trial.passed:
                why = trial.reason or f"its results differ by {trial.error:.1e}, {check.limit:g} being the limit"
                say(f"kernel {check.kernel} is not used on this device: {why}; the plain computation takes its place")
        return _usable[key]


def _depthwise(device: torch.device, numbers: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    from wsss_cli.kernels.depthwise import depthwise3x3

    x = torch.randn(2, 70, 9, 11, generator=numbers).to(device).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(70, 1, 3, 3, generator=numbers).to(device)

    def convolved(convolve: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, ...]:
        inputs = x.clone().requires_grad_(), weight.clone().requires_grad_()
        out = convolve(*inputs)
        return out.detach(), *torch.autograd.grad(out.square().sum(), inputs)

    ours = convolved(lambda a, b: depthwise3x3(a, b, 2))
    plain = convolved(lambda a, b: F.conv2d(a, b, padding=2, dilation=2, groups=70))
    return list(zip(ours, plain, strict=True))


def _batch_norm(device: torch.device, numbers: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    from wsss_cli.kernels.batch_norm import FusedBatchNorm2d

    x, seed = (torch.randn(3, 20, 8, 9, generator=numbers).to(device) for _ in range(2))
    x = x.contiguous(memory_format=torch.channels_last)

    def normalised(norm: nn.BatchNorm2d) -> tuple[Tensor, ...]:
        value = x.clone().requires_grad_()
        out = norm.to(device)(value)
        gradient = torch.autograd.grad((out * seed).sum(), (value, norm.weight))
        return out.detach(), *gradient, norm.running_mean, norm.running_var

    return list(zip(normalised(FusedBatchNorm2d(20)), normalised(nn.BatchNorm2d(20)), strict=True))


DEPTHWISE = Check("depthwise convolution", 1e-4, _depthwise)
NORM = Check("batch norm with sum and ReLU", 1e-3, _batch_norm)
