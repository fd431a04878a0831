"""Collision cross-entropy: labels that are doubted, as distributions over the classes that a pixel can have."""

from __future__ import annotations

import torch
from torch import Tensor

from wsss_cli.labels import IGNORE
from wsss_cli.losses.pixels import Average, at_size, divisor


def collision_cross_entropy(
    logits: Tensor, target: Tensor, certainty: Tensor, tags: Tensor, average: Average = "all"
) -> Tensor:
    """Mean over pixels of -log sum_c y_c p_c, p being the softmax and y the label softened by its certainty q.

    y is q for the label and (1 - q) / n for each of the n other classes that the image can have: those of its tags, and
    background. Where there is no other one the label is certain. A certain label costs its cross-entropy; the less
    certain it is the smaller its gradient, down to 0 where all of these classes are alike in y.

    Args:
        logits: float [B, K, h, w]; upsampled bilinearly to [H, W] first.
        target: class indices in 0..K-1, or 255 = ignored; uint8 or int64 [B, H, W].
        certainty: q, in [0, 1], float32 [B, H, W].
        tags: 0 or 1, any dtype, [B, K]; the background counts as tagged whatever stands there.
        average: 'all' divides by all pixels; 'valid' by those that are not 255.
    Returns:
        A scalar, float32; 0 with a zero gradient when every pixel is ignored.
    Source: Zhang and Boykov, "Collision Cross-entropy for Soft Class Labels and Deep Clustering", arXiv 2303.07321.
        That y is the confidence of a hard label and not a softmax of scores is this project's choice: the posterior of
        the CRF is kept beside each mask already.
    """
    logits, labels = at_size(logits, target), target.long()
    valid = labels != IGNORE
    label = torch.where(valid, labels, 0)[:, None]
    log_p = logits.log_softmax(1)
    allowed = tags.bool().clone()
    allowed[:, 0] = True
    others = allowed[:, :, None, None].expand_as(log_p).scatter(1, label, False)
    n = others.sum(1)
    q = torch.where(n == 0, 1.0, certainty)
    rest = log_p.masked_fill(~(others | (n == 0)[:, None]), float("-inf")).logsumexp(1)  # of all classes where n is 0
    share = (1 - q) / n.clamp(min=1)
    cost = -torch.logaddexp(q.log() + log_p.gather(1, label)[:, 0], share.log() + rest)
    return torch.where(valid, cost, 0.0).sum() / divisor(labels, average)
