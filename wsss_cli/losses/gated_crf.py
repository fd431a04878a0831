"""Gated CRF loss: neighbouring pixels of like colour should get like probabilities."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_cli.kernels.trials import Check, Pairs, usable
from wsss_cli.ranks.sums import total, total_count

if TYPE_CHECKING:
    from wsss_cli.config.loss import GatedCrfConfig


def gated_crf_loss(
    logits: Tensor,
    image: Tensor,
    valid: Tensor,
    config: GatedCrfConfig,
    kernels: Literal["plain", "fused"] = "plain",
) -> Tensor:
    """Gated CRF energy of a batch of crops on a map reduced by `config.stride`, times `config.weight`.

    Args:
        logits: float [B, K, h, w]; resized bilinearly to the reduced map where they have another size.
        image: RGB in 0..255, any dtype [B, H, W, 3]; averaged over the pixels of a cell.
        valid: bool [B, H, W], False where padded; a cell counts where all its pixels do.
        kernels: 'fused' computes with `kernels.gated_crf`, where that passes its trial on the device.
    Returns:
        A scalar, float32, the energy a cell, of all or of those that count as `config.average` says; 0 with a zero
        gradient where no cell is valid.
    """
    size = [-(-side // config.stride) for side in valid.shape[-2:]]
    logits = logits.float()
    if list(logits.shape[-2:]) != size:
        logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
    colour = F.interpolate(image.permute(0, 3, 1, 2).float(), size=size, mode="area")
    gate = F.interpolate(valid[:, None].float(), size=size, mode="area")[:, 0] > 0.999
    fused = kernels == "fused" and usable(TRIAL, logits.device)
    energy = gated_crf_energy(logits.softmax(1), colour, gate, config.radius, config.sxy, config.srgb, fused=fused)
    if config.average == "all":
        return config.weight * energy / total_count(gate.numel(), gate.device)
    return config.weight * energy / total(gate.sum()).clamp(min=1)


def gated_crf_energy(
    probabilities: Tensor, image: Tensor, gate: Tensor, radius: int, sxy: float, srgb: float, *, fused: bool = False
) -> Tensor:
    """Sum over pixels i and the other pixels j of their window of k_ij g_i g_j (1 - sum_c p_ic p_jc).

    k_ij = exp(-|x_i - x_j|^2 / (2 sxy^2) - |I_i - I_j|^2 / (2 srgb^2)). This is the relaxed Potts energy: the chance
    that labels drawn from the two pixels differ. Pixels at the border have smaller windows.

    Args:
        probabilities: float [B, K, h, w], summing to 1 over K.
        image: RGB, same dtype [B, 3, h, w], in the units of `srgb`; gets no gradient.
        gate: bool [B, h, w]; a pair counts where it is True at both the source and the destination pixel.
        radius: the window has 2 radius + 1 pixels a side.
        sxy: standard deviation in space, pixels.
        srgb: standard deviation in colour.
        fused: by the Triton kernel, in float32; CUDA only.
    Returns:
        A scalar of the dtype of `probabilities`; differentiable once, in memory of one more map of probabilities.
    Source: Obukhov et al., Gated CRF Loss for Weakly Supervised Semantic Image Segmentation, 2019 (arXiv 1906.04651).
    """
    energy: Tensor = _Energy.apply(probabilities, fused, image, gate, radius, sxy, srgb)
    return energy


class _Energy(torch.autograd.Function):
    """The energy is quadratic in the probabilities, so its gradient is -2 times what every pixel's window sends it."""

    @staticmethod
    def forward(ctx: Any, probabilities: Tensor, fused: bool, *rest: Any) -> Tensor:
        if fused:
            from wsss_cli.kernels.gated_crf import messages_and_energy  # here, as not every machine has Triton

            messages, energy = messages_and_energy(probabilities, *rest)
        else:
            messages, energy = _messages_and_energy(probabilities, *rest)
        ctx.save_for_backward(messages)
        return energy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (messages,) = ctx.saved_tensors
        return -2 * grads[0] * messages, *[None] * 6


def _messages_and_energy(
    probabilities: Tensor, image: Tensor, gate: Tensor, radius: int, sxy: float, srgb: float
) -> tuple[Tensor, Tensor]:
    """Sum over j of k_ij g_i g_j p_j at every pixel i, and the energy."""
    messages, mass = torch.zeros_like(probabilities), torch.zeros_like(probabilities[:, :1])
    open_ = gate[:, None].to(probabilities.dtype)
    for dy, dx in _half_window(radius):
        a, b = _pairs(dy, dx, *gate.shape[-2:])
        if a is None or b is None:
            continue
        apart = (image[a] - image[b]).square().sum(1, keepdim=True) / (2 * srgb**2)
        kernel = torch.exp(-apart - (dy * dy + dx * dx) / (2 * sxy**2)) * open_[a] * open_[b]
        mass[a] += kernel
        mass[b] += kernel
        messages[a] += kernel * probabilities[b]
        messages[b] += kernel * probabilities[a]
    return messages, (mass[:, 0] - (probabilities * messages).sum(1)).sum()


def _half_window(radius: int) -> Iterator[tuple[int, int]]:
    """Offsets of a window without its centre, one of each opposite pair: a pair of pixels is met once."""
    for dy in range(radius + 1):
        for dx in range(-radius if dy else 1, radius + 1):
            yield dy, dx


def _pairs(dy: int, dx: int, height: int, width: int) -> tuple[Any, Any]:
    """Index of all pixels that have a neighbour at (dy, dx), and of those neighbours; None where there are none."""
    if dy >= height or abs(dx) >= width:
        return None, None
    left, right = max(-dx, 0), width - max(dx, 0)
    here = (slice(None), slice(None), slice(0, height - dy), slice(left, right))
    there = (slice(None), slice(None), slice(dy, height), slice(left + dx, right + dx))
    return here, there


def _tried(device: torch.device, numbers: torch.Generator) -> Pairs:
    from wsss_cli.kernels.gated_crf import messages_and_energy  # here, as not every machine has Triton

    probabilities = torch.randn(2, 9, 10, 11, generator=numbers).softmax(1).to(device)
    image = (40 * torch.randn(2, 3, 10, 11, generator=numbers)).to(device)
    gate = (torch.rand(2, 10, 11, generator=numbers) < 0.9).to(device)
    ways = messages_and_energy, _messages_and_energy
    ours, plain = (way(probabilities, image, gate, 2, 3.0, 30.0) for way in ways)
    return list(zip(ours, plain, strict=True))


TRIAL = Check("gated CRF", 1e-4, _tried)
