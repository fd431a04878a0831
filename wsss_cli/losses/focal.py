"""Focal loss: cross-entropy in which pixels that are classified well count less."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_cli.labels import IGNORE
from wsss_cli.losses.pixels import Average, at_size, divisor


def focal_loss(
    logits: Tensor, target: Tensor, gamma: float = 2.0, average: Average = "all", *, weight: Tensor | None = None
) -> Tensor:
    """Sum over pixels of -(1 - p)^gamma log p, p being the softmax probability of the pixel's class.

    Args:
        logits: float [B, K, h, w]; upsampled bilinearly to [H, W] first.
        target: class indices in 0..K-1, or 255 = ignored; uint8 or int64 [B, H, W].
        gamma: at 0 it is the cross-entropy.
        average: 'all' divides by all pixels; 'valid' by those that are not 255.
        weight: factor on each pixel's loss, float [B, H, W]; not part of the divisor.
    Returns:
        A scalar, float32; 0 with a zero gradient when every pixel is ignored.
    Source: Lin et al., ICCV 2017, equation 4, with softmax over the classes in place of their sigmoid of one class.
        MMSegmentation's `FocalLoss` is another thing: a sigmoid for each class.
    """
    logits, target = at_size(logits, target), target.long()
    cost = F.cross_entropy(logits, target, ignore_index=IGNORE, reduction="none")
    doubt = -torch.expm1(-cost)  # 1 - p, exact also where p is nearly 1
    loss = doubt.clamp(min=1e-12) ** gamma * cost  # the slope of a power below 1 has no bound at 0
    if weight is not None:
        loss = loss * weight
    return loss.sum() / divisor(target, average)
