"""Dice loss: overlap of probabilities and labels."""

from __future__ import annotations

import torch
from torch import Tensor

from wsss_cli.labels import IGNORE
from wsss_cli.losses.pixels import at_size
from wsss_cli.ranks.sums import total

EPSILON = 1e-3


def dice_loss(logits: Tensor, target: Tensor, per_class: bool = False, *, weight: Tensor | None = None) -> Tensor:
    """1 - 2 sum p y / (sum p^2 + sum y^2 + 2e-3), the mean over images.

    p is the softmax, y is 1 at a pixel's class and 0 elsewhere; sums are over the classes and the pixels of an image
    that are not 255. Images without such pixels are left out of the mean.

    Args:
        logits: float [B, K, h, w]; upsampled bilinearly to [H, W] first.
        target: class indices in 0..K-1, or 255 = ignored; uint8 or int64 [B, H, W].
        per_class: sums over pixels alone, and the mean over the classes that an image's target has, so that a small
            class counts as much as a large one; then over all such pairs of image and class.
        weight: how often a pixel counts in each sum, float [B, H, W].
    Returns:
        A scalar, float32; 0 with a zero gradient when every pixel is ignored.
    Source: Milletari et al. (V-Net), 3DV 2016; one Dice over all classes, and the 1e-3 with each sum, are those of
        MMSegmentation 1.2.2's `DiceLoss` with softmax, which differs in that ignored pixels count as if of no class.
    """
    p = at_size(logits, target).softmax(1)
    hot = target[:, None] == torch.arange(p.shape[1], device=p.device)[:, None, None]
    share = (target != IGNORE).float() if weight is None else (target != IGNORE) * weight
    over = (2, 3) if per_class else (1, 2, 3)
    both, predicted, labelled = ((part * share[:, None]).sum(over) for part in (p * hot, p * p, hot))
    present = hot.sum(over) > 0
    loss = 1 - 2 * both / (predicted + labelled + 2 * EPSILON)
    return (loss * present).sum() / total(present.sum()).clamp(min=1)
