"""Losses of affinity networks, computed a pair of offsets at a time together with their gradients.

A label map gives 152 * H * W pairs at radius 10; automatic differentiation would keep several values of each pair and
of each pixel on its path. Here the gradient is added up as the loss is, in memory for one offset at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, Literal

import torch
from torch import Tensor

from wsss_cli.kernels.trials import Check, Pairs, usable
from wsss_cli.labels import IGNORE
from wsss_cli.pseudo.pairs import Offset, half_disc, path, shifted, windows
from wsss_cli.ranks.sums import total

EPS = 1e-5  # both papers' released code
WEIGHTS = (0.25, 0.25, 0.5)  # of background, of one object class, of two labels
Kernels = Literal["plain", "fused"]


def boundary_loss(logits: Tensor, labels: Tensor, offsets: Sequence[Offset], kernels: Kernels = "plain") -> Tensor:
    """How badly boundaries tell pairs of one label from pairs of two.

    The affinity of a pair is a = 1 - max sigmoid(logit) over the path between its pixels. The loss is
    mean(-log a) / 4 over pairs of background, the same over pairs of one object class, and mean(-log(1 - a)) / 2 over
    pairs of different labels. All pairs of the grid are taken whose pixels both have a label; IRN leaves out pairs that
    begin within `radius` of the sides.

    Args:
        logits: boundary logits, float [B, H, W].
        labels: class indices, 0 = background, 255 = unsure, uint8 or int64 [B, H, W].
        offsets: as `pairs.half_disc` gives them.
        kernels: 'fused' computes with `kernels.pair_losses`, where that passes its trial on the device.
    Returns:
        A scalar, float32; 0 where there is no pair.
    Source: Ahn et al. (IRN), CVPR 2019; weights as in the released code.
    """
    fused = kernels == "fused" and usable(BOUNDARY_TRIAL, logits.device)
    return _loss(_fused_boundary if fused else _boundary, logits, labels, offsets, fused)


def feature_loss(features: Tensor, labels: Tensor, offsets: Sequence[Offset], kernels: Kernels = "plain") -> Tensor:
    """Like `boundary_loss`, with the affinity a = exp(-mean_c |f_i - f_j|) of two pixels' features.

    Args:
        features: float [B, D, H, W].
        labels: class indices, 0 = background, 255 = unsure, uint8 or int64 [B, H, W].
        offsets: as `pairs.half_disc` gives them.
        kernels: as for `boundary_loss`.
    Returns:
        A scalar, float32; 0 where there is no pair.
    Source: Ahn and Kwak (PSA), CVPR 2018; weights as in the released code.
    """
    fused = kernels == "fused" and usable(FEATURE_TRIAL, features.device)
    return _loss(_fused_feature if fused else _feature, features, labels, offsets, fused)


Compute = Callable[..., tuple[Tensor, Tensor]]


def _loss(compute: Compute, x: Tensor, labels: Tensor, offsets: Sequence[Offset], fused: bool) -> Tensor:
    numbers = total((_fused_numbers if fused else _numbers)(labels, offsets)).clamp(min=1)
    shares = _weights(labels.device) / numbers
    loss: Tensor = _WithGradient.apply(x.float(), partial(compute, labels=labels, offsets=offsets, shares=shares))
    return loss


@lru_cache(8)
def _weights(device: torch.device) -> Tensor:
    return torch.tensor(WEIGHTS).to(device)  # made once: while it is copied the host waits for the device


class _WithGradient(torch.autograd.Function):
    """A scalar function that returns its own gradient beside its value."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, compute: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
        loss, gradient = compute(x)
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return outer[0] * gradient, None


def _boundary(logits: Tensor, *, labels: Tensor, offsets: Sequence[Offset], shares: Tensor) -> tuple[Tensor, Tensor]:
    batch, height, width = logits.shape
    # ranks say both how high a logit is and where: their maximum over a path costs one operation a pixel of the path
    values, order = logits.reshape(batch, -1).sort(1)
    rank = torch.empty_like(order).scatter_(
        1, order, torch.arange(height * width, device=order.device).expand_as(order)
    )
    rank = rank.int().view(batch, height, width)
    loss, slopes = logits.new_zeros(()), torch.zeros_like(values)
    for offset in offsets:
        window = windows(offset, height, width)
        first, *others = path(offset)
        highest = shifted(rank, window, first)
        for step in others:
            highest = torch.maximum(highest, shifted(rank, window, step))
        top = highest.reshape(batch, -1).long()
        affinity = torch.sigmoid(-values.gather(1, top)).view(highest.shape)
        value, slope = _pair_terms(affinity, _kinds(labels, offset), shares)
        loss += value
        slope *= affinity * (affinity - 1.0)  # d affinity / d logit
        slopes.scatter_add_(1, top, slope.view(batch, -1))
    return loss, torch.zeros_like(values).scatter_(1, order, slopes).view(logits.shape)


def _feature(features: Tensor, *, labels: Tensor, offsets: Sequence[Offset], shares: Tensor) -> tuple[Tensor, Tensor]:
    channels, height, width = features.shape[1:]
    loss, gradient = features.new_zeros(()), torch.zeros_like(features)
    for offset in offsets:
        window = windows(offset, height, width)
        difference = shifted(features, window, (0, 0)) - shifted(features, window, offset)
        affinity = torch.exp(-difference.abs().mean(1))
        value, slope = _pair_terms(affinity, _kinds(labels, offset), shares)
        loss += value
        change = difference.sign_().mul_((slope * affinity / -channels).unsqueeze(1))
        shifted(gradient, window, (0, 0)).add_(change)
        shifted(gradient, window, offset).sub_(change)
    return loss, gradient


Kinds = tuple[Tensor, Tensor, Tensor]


def _kinds(labels: Tensor, offset: Offset) -> Kinds:
    """Which pairs are both background, both of one object class, of two labels: bool [B, h, w]."""
    window = windows(offset, *labels.shape[1:])
    first, second = shifted(labels, window, (0, 0)), shifted(labels, window, offset)
    same = (first == second) & (first != IGNORE)
    background = same & (first == 0)
    return background, same & (first != 0), (first != second) & (first != IGNORE) & (second != IGNORE)


def _numbers(labels: Tensor, offsets: Sequence[Offset]) -> Tensor:
    """How many pairs there are of each kind: int64 [3]."""
    counts = torch.zeros(3, dtype=torch.int64, device=labels.device)
    for offset in offsets:
        counts += torch.stack([kind.sum() for kind in _kinds(labels, offset)])
    return counts


def _pair_terms(affinity: Tensor, kinds: Kinds, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Loss of the pairs of one offset, a scalar, and its derivative by their affinity.

    Args:
        shares: weight of each pair of a kind, float32 [3].
    """
    background, object_, different = kinds
    alike = background * shares[0] + object_ * shares[1]
    unlike = different * shares[2]
    near, far = affinity + EPS, 1.0 + EPS - affinity
    loss = -(alike * near.log() + unlike * far.log()).sum()
    return loss, unlike / far - alike / near


def _fused_boundary(logits: Tensor, **keywords: Any) -> tuple[Tensor, Tensor]:
    from wsss_cli.kernels.pair_losses import boundary  # here, as not every machine has Triton

    return boundary(logits, path=path, **keywords)


def _fused_feature(features: Tensor, **keywords: Any) -> tuple[Tensor, Tensor]:
    from wsss_cli.kernels.pair_losses import feature

    return feature(features, **keywords)


def _fused_numbers(labels: Tensor, offsets: Sequence[Offset]) -> Tensor:
    from wsss_cli.kernels.pair_losses import pair_numbers

    return pair_numbers(labels, offsets)


def _tried(plain: Compute, fused: Compute, size: tuple[int, ...]) -> Callable[..., Pairs]:
    def pairs(device: torch.device, numbers: torch.Generator) -> Pairs:
        x = torch.randn(size, generator=numbers).to(device)
        labels = torch.randint(0, 3, (size[0], *size[-2:]), generator=numbers, dtype=torch.uint8).to(device)
        labels[:, :2] = IGNORE
        offsets, shares = half_disc(3), torch.tensor([1e-4, 2e-4, 3e-4]).to(device)
        ours, right = (way(x, labels=labels, offsets=offsets, shares=shares) for way in (fused, plain))
        counts = [count(labels, offsets).double() for count in (_fused_numbers, _numbers)]
        return [*zip(ours, right, strict=True), (counts[0], counts[1])]

    return pairs


BOUNDARY_TRIAL = Check("boundary loss of pairs", 1e-4, _tried(_boundary, _fused_boundary, (2, 9, 11)))
FEATURE_TRIAL = Check("feature loss of pairs", 1e-4, _tried(_feature, _fused_feature, (2, 5, 9, 11)))
