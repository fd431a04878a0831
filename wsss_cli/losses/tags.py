"""Image tags: the loss of a classifier, and logits of pixels that keep to the tags."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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
