"""What the losses of pixels share."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_cli.labels import IGNORE
from wsss_cli.ranks.sums import total, total_count

Average = Literal["all", "valid"]


def at_size(logits: Tensor, target: Tensor) -> Tensor:
    """Logits of any float type, [B, K, h, w], in float32 and at the size of `target`, [B, H, W]: bilinear, with
    `align_corners=False`."""
    logits = logits.float()
    if logits.shape[-2:] == target.shape[-2:]:
        return logits
    return F.interpolate(logits, size=target.shape[-2:], mode="bilinear", align_corners=False)


def divisor(target: Tensor, average: Average) -> int | Tensor:
    """All pixels of an int64 target, or those that are not 255 and at least 1; of all ranks."""
    if average == "all":
        return total_count(target.numel(), target.device)
    return total((target != IGNORE).sum()).clamp(min=1)


def weighted_divisor(target: Tensor, average: Average, class_weights: Tensor) -> Tensor:
    """`divisor` where a pixel counts by the weight of its class, float32 [K], and one that is 255 as 1."""
    labelled = target != IGNORE
    over = class_weights[torch.where(labelled, target, 0)].mul(labelled).sum()
    if average == "all":
        over = over + (~labelled).sum()
    over = total(over)
    return torch.where(over > 0, over, 1.0)
