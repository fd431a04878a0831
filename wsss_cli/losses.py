"""Training losses: pure functions of logits and targets."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

IGNORE = 255


def segmentation_loss(logits: Tensor, target: Tensor, average: Literal["all", "valid"] = "all") -> Tensor:
    """Pixel cross-entropy of logits that are upsampled to the size of the target.

    Args:
        logits: float [B, K, h, w]; upsampled bilinearly (`align_corners=False`) to [H, W] first.
        target: class indices in 0..K-1, or 255 = ignored; uint8 or int64 [B, H, W].
        average: 'all' divides the sum by all B*H*W pixels, ignored ones included; 'valid' by those that are not 255.
    Returns:
        A scalar, float32; 0 with a (zero) gradient when every pixel is ignored.
    Source: 'all' is MMSegmentation 1.2.2's default (`avg_non_ignore=False`), 'valid' is PyTorch's mean.
    """
    logits = logits.float()
    if logits.shape[-2:] != target.shape[-2:]:
        logits = F.interpolate(logits, size=target.shape[-2:], mode="bilinear", align_corners=False)
    target = target.long()
    total = F.cross_entropy(logits, target, ignore_index=IGNORE, reduction="sum")
    if average == "all":
        return total / target.numel()
    return total / (target != IGNORE).sum().clamp(min=1)


def multilabel_soft_margin(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean binary cross-entropy of independent sigmoids.

    Args:
        logits: float [B, C], one column for each foreground class.
        targets: 0 or 1, any dtype, [B, C].
    Returns:
        A scalar, float32: the mean over images and classes.
    """
    return F.multilabel_soft_margin_loss(logits.float(), targets.float())
