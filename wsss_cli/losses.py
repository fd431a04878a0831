"""Training losses: pure functions of logits and targets."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_cli.labels import IGNORE


def segmentation_loss(
    logits: Tensor,
    target: Tensor,
    average: Literal["all", "valid"] = "all",
    *,
    weight: Tensor | None = None,
    balance: Literal["none", "fg-bg"] = "none",
    kernels: Literal["plain", "fused"] = "plain",
) -> Tensor:
    """Pixel cross-entropy of logits that are upsampled to the size of the target.

    With `balance="fg-bg"` the loss is 0.5 * (mean over background pixels) + 0.5 * (mean over object pixels) of the
    whole batch; a side without pixels counts 0 and the other keeps its 0.5. `average="all"` then multiplies by the
    share of pixels that are not 255, as it does, in effect, without balance.

    Args:
        logits: float [B, K, h, w]; upsampled bilinearly (`align_corners=False`) to [H, W] first.
        target: class indices in 0..K-1, or 255 = ignored; uint8 or int64 [B, H, W].
        average: 'all' divides the sum by all B*H*W pixels, ignored ones included; 'valid' by those that are not 255.
        weight: factor on each pixel's loss, float [B, H, W]; not part of the divisor, so doubt makes the loss smaller.
        balance: 'fg-bg' gives background and objects the same share.
        kernels: 'fused' never has the upsampled logits in memory; CUDA only, and without balance.
    Returns:
        A scalar, float32; 0 with a (zero) gradient when every pixel is ignored.
    Source: 'all' is MMSegmentation 1.2.2's default (`avg_non_ignore=False`), 'valid' is PyTorch's mean; balance is that
        of Huang et al. (DSRG), CVPR 2018, with all objects as one side, as Ru et al. (ToCo), CVPR 2023, have it.
    """
    if kernels == "fused" and balance == "none":
        from wsss_cli.kernels.cross_entropy import upsampled_cross_entropy  # here, as not every machine has Triton

        total, labelled = upsampled_cross_entropy(logits, target, weight)
        return total / (target.numel() if average == "all" else labelled.clamp(min=1))
    logits = logits.float()
    if logits.shape[-2:] != target.shape[-2:]:
        logits = F.interpolate(logits, size=target.shape[-2:], mode="bilinear", align_corners=False)
    target = target.long()
    if weight is None and balance == "none":
        total = F.cross_entropy(logits, target, ignore_index=IGNORE, reduction="sum")
        return total / _divisor(target, average)
    cost = F.cross_entropy(logits, target, ignore_index=IGNORE, reduction="none")
    if weight is not None:
        cost = cost * weight
    if balance == "none":
        return cost.sum() / _divisor(target, average)
    labelled, background = target != IGNORE, target == 0
    sides = [(cost * side).sum() / side.sum().clamp(min=1) for side in (background, labelled & ~background)]
    return 0.5 * (sides[0] + sides[1]) * (labelled.sum() / _divisor(target, average))


def _divisor(target: Tensor, average: Literal["all", "valid"]) -> int | Tensor:
    return target.numel() if average == "all" else (target != IGNORE).sum().clamp(min=1)


def within_tags(logits: Tensor, tags: Tensor) -> Tensor:
    """Logits with the classes that an image is not tagged with at -inf.

    Resize before, not after: interpolation makes NaN of -inf.

    Args:
        logits: float [B, K, h, w], background first.
        tags: 0 or 1, any dtype, [B, K]; the background counts as tagged whatever stands there.
    Returns:
        A new tensor like `logits`.
    """
    allowed = tags.bool()
    allowed = torch.cat([torch.ones_like(allowed[:, :1]), allowed[:, 1:]], 1)
    return logits.masked_fill(~allowed[:, :, None, None], float("-inf"))


def multilabel_soft_margin(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean binary cross-entropy of independent sigmoids.

    Args:
        logits: float [B, C], one column for each foreground class.
        targets: 0 or 1, any dtype, [B, C].
    Returns:
        A scalar, float32: the mean over images and classes.
    """
    return F.multilabel_soft_margin_loss(logits.float(), targets.float())
