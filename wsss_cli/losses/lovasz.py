"""Lovasz-softmax loss: a surrogate of 1 - IoU."""

from __future__ import annotations

import torch
from torch import Tensor

from wsss_cli.labels import IGNORE
from wsss_cli.losses.pixels import at_size
from wsss_cli.ranks.sums import concatenated, share_of_same, total


def lovasz_loss(logits: Tensor, target: Tensor, per_image: bool = False) -> Tensor:
    """Mean over the classes that the target has of the Lovasz extension of the Jaccard loss at the pixels' errors.

    The error of a pixel for class c is 1 - p_c where c is its class and p_c elsewhere, p being the softmax. With the
    errors in falling order, each is weighed by what its pixel adds to the Jaccard loss of those before it.

    Args:
        logits: float [B, K, h, w]; upsampled bilinearly to [H, W] first.
        target: class indices in 0..K-1, or 255 = ignored; uint8 or int64 [B, H, W].
        per_image: of each image alone, and the mean over images that have labels; else of all pixels of the batch.
    Returns:
        A scalar, float32; 0 with a zero gradient when every pixel is ignored.
    Source: Berman et al., The Lovasz-Softmax loss, CVPR 2018, equations 8, 9 and 12, over the classes that are present.
    """
    p, target = at_size(logits, target).softmax(1), target.long()
    if not per_image:
        pixels, _ = concatenated(p.permute(0, 2, 3, 1).flatten(0, 2))
        return share_of_same(_of_pixels(pixels, concatenated(target.flatten())[0]))
    images = [
        _of_pixels(q.permute(1, 2, 0).flatten(0, 1), labels.flatten()) for q, labels in zip(p, target, strict=True)
    ]
    labelled = total((target != IGNORE).flatten(1).any(1).sum())
    return torch.stack(images).sum() / labelled.clamp(min=1)


def _of_pixels(p: Tensor, target: Tensor) -> Tensor:
    """Of probabilities [N, K] and class indices or 255, [N]."""
    valid = target != IGNORE
    p, target = p[valid], target[valid]
    losses = [_of_class(p[:, label], target == label) for label in target.unique().tolist()]
    return torch.stack(losses).mean() if losses else p.sum()  # a sum of nothing: 0, with a gradient of 0


def _of_class(p: Tensor, belongs: Tensor) -> Tensor:
    """Of the class's probabilities [N] and whether pixels are of the class, bool [N], at least one True."""
    errors, order = torch.where(belongs, 1 - p, p).sort(descending=True)
    hits = belongs[order].cumsum(0)  # integers: a sum of so many ones in float32 would be rounded
    seen = torch.arange(1, len(hits) + 1, device=hits.device)
    jaccard = 1 - (hits[-1] - hits).float() / (hits[-1] + seen - hits).float()
    return (errors * jaccard.diff(prepend=jaccard.new_zeros(1))).sum()
