"""A teacher, the moving average of the network (`models/average.py`): it fills ignored pixels and weighs the others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from wsss_cli.labels import IGNORE


def fill_ignored(
    target: Tensor, weight: Tensor, probability: Tensor, valid: Tensor, *, threshold: float, strength: float
) -> tuple[Tensor, Tensor]:
    """Give ignored pixels (255) the teacher's class where it is sure.

    Args:
        target: class indices or 255, int64 [B, H, W].
        weight: of each pixel's loss, float [B, H, W].
        probability: the teacher's, within the image's tags, float [B, K, H, W].
        valid: bool [B, H, W], False where padded: there is nothing to fill.
        threshold: least probability that fills a pixel.
        strength: weight of a filled pixel at certainty 1.
    Returns:
        (target, weight): filled pixels have the most probable class and the weight `strength` * its probability.
    Source: Jo et al. (MARS), ICCV 2023: targets from a teacher where the pseudo label is open, weighted by certainty.
    """
    certainty, best = probability.max(1)
    filled = (target == IGNORE) & valid & (certainty >= threshold)
    return torch.where(filled, best, target), torch.where(filled, strength * certainty, weight)


def steadiness(probability: Tensor, scales: Sequence[float]) -> Tensor:
    """Weight in [0, 1] of each pixel: how little it changes when the responses of all objects are scaled.

    With foreground responses times s, class c has p_s(c) = s q_c / (q_0 + s (1 - q_0)) and the background
    p_s(0) = q_0 / (q_0 + s (1 - q_0)). The uncertainty is u = sum_c Var_s p_s(c), and the weight 1 - u / u_even, at
    least 0, where u_even is the u of a pixel that is half background and half one object. Doubt between two objects
    alone does not show in u: both are scaled alike.

    Args:
        probability: q, float [B, K, H, W], background first, summing to 1.
        scales: values of s; two different ones or more.
    Returns:
        float [B, H, W].
    Source: after Li et al. (URN), AAAI 2022: the variance of a pixel under response scaling is its uncertainty. Their
        masks are made off line, with a CRF at each scale; this is their idea in closed form, on line.
    """
    background = probability[:, 0]
    s = torch.tensor(scales, dtype=probability.dtype, device=probability.device)
    objects = probability[:, 1:].square().sum(1)
    uncertainty = background.square() * _variance(1.0, s, background) + objects * _variance(s, s, background)
    half = torch.full((1, 1, 1), 0.5, dtype=s.dtype, device=s.device)
    even = 0.25 * (_variance(1.0, s, half) + _variance(s, s, half))
    return (1 - uncertainty / even).clamp(min=0)


def _variance(over: Tensor | float, s: Tensor, background: Tensor) -> Tensor:
    """Population variance over s of `over` / (q_0 + s (1 - q_0)), [B, H, W]."""
    shares = over / (background[..., None] + s * (1 - background[..., None]))
    return shares.var(-1, correction=0)
