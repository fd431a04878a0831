"""Each kernel of ours on a small input beside what it stands for, on this device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss_cli.losses.cross_entropy import cross_entropy
from wsss_cli.pseudo.pairs import half_disc
from wsss_cli.pseudo.par import par
from wsss_cli.pseudo.walk import random_walk


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


def try_kernels(device: torch.device) -> list[Trial]:
    """Run every kernel, forward and backward where it has both, in float32.

    Args:
        device: CUDA, or the CPU where Triton interprets its kernels.
    """
    return [_trial(name, limit, check, device) for name, limit, check in CHECKS]


Check = Callable[[torch.device, torch.Generator], list[tuple[Tensor, Tensor]]]


def _trial(name: str, limit: float, check: Check, device: torch.device) -> Trial:
    try:
        pairs = check(device, torch.Generator().manual_seed(0))
        error = max(float((one - other).abs().max() / other.abs().max().clamp(min=1e-6)) for one, other in pairs)
    except Exception as fault:  # a compiler, a driver, a package that is not there: each has errors of its own
        return Trial(name, None, limit, " ".join(f"{type(fault).__name__}: {fault}".split())[:200])
    return Trial(name, error, limit)


def _cross_entropy(device: torch.device, numbers: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    logits = torch.randn(2, 5, 6, 7, generator=numbers).to(device)
    target = torch.randint(0, 5, (2, 24, 28), generator=numbers, dtype=torch.uint8).to(device)
    target[:, :3] = 255

    def loss(kernels: str) -> tuple[Tensor, Tensor]:
        x = logits.clone().requires_grad_()
        value = cross_entropy(x, target, kernels=kernels)  # type: ignore[arg-type]
        return value.detach(), torch.autograd.grad(value, x)[0]

    return list(zip(loss("fused"), loss("plain"), strict=True))


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


def _walk(device: torch.device, numbers: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    offsets = half_disc(2)
    maps = torch.rand(2, 9, 10, generator=numbers).to(device)
    affinities = torch.rand(len(offsets), 9, 10, generator=numbers)
    for plane, (dy, dx) in zip(affinities, offsets, strict=True):  # none to neighbours off the grid
        plane[9 - dy :] = 0
        plane[:, 10 - dx if dx > 0 else 10 :] = 0
        plane[:, : max(-dx, 0)] = 0
    affinities = affinities.to(device)
    ours, plain = (random_walk(maps, affinities, offsets, 8, backend=way) for way in ("triton", "torch"))
    return [(ours, plain)]


def _par(device: torch.device, numbers: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    image = (255 * torch.rand(1, 3, 12, 13, generator=numbers)).to(device)
    planes = torch.rand(1, 3, 12, 13, generator=numbers).to(device)
    ours, plain = (
        par(image, planes, dilations=(1, 2), iterations=2, w1=0.3, w2=0.01, backend=way) for way in ("triton", "torch")
    )
    return [(ours, plain)]


def _crf(device: torch.device, numbers: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    from wsss_cli.crf.mean_field import mean_field

    image = torch.randint(0, 256, (10, 12, 3), generator=numbers, dtype=torch.uint8).to(device)
    energy = torch.rand(1, 3, 10, 12, generator=numbers).to(device)
    kernels = {"gauss_sxy": 3.0, "gauss_compat": 3.0, "bilateral_sxy": 20.0, "bilateral_srgb": 15.0}
    kernels |= {"bilateral_compat": 10.0}
    ours, plain = (
        mean_field([image], [energy], **kernels, iterations=2, tolerance=tolerance)[0] for tolerance in (1e-4, None)
    )
    return [(ours, plain)]


CHECKS: tuple[tuple[str, float, Check], ...] = (
    ("cross-entropy of upsampled logits", 1e-4, _cross_entropy),
    ("depthwise convolution", 1e-4, _depthwise),
    ("batch norm with sum and ReLU", 1e-3, _batch_norm),
    ("random walk", 1e-4, _walk),
    ("PAR", 1e-3, _par),
    ("dense CRF", 1e-2, _crf),
)
