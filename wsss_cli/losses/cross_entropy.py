"""Cross-entropy of pixels: averaged, balanced, weighted by class, or of the hardest pixels alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_cli.kernels.trials import Check, Pairs
from wsss_cli.labels import IGNORE
from wsss_cli.losses.pixels import Average, at_size, divisor, weighted_divisor
from wsss_cli.ranks.sums import concatenated, total, total_count

if TYPE_CHECKING:
    from wsss_cli.config.loss import OhemConfig


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    average: Average = "all",
    *,
    weight: Tensor | None = None,
    balance: Literal["none", "fg-bg"] = "none",
    class_weights: Sequence[float] = (),
    ohem: OhemConfig | None = None,
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
        balance: 'fg-bg' gives background and objects the same share; without class weights and OHEM.
        class_weights: K factors on the losses of the classes' pixels, in the divisor too; none: all 1.
        ohem: the loss of easy pixels counts 0; they stay in the divisor. Which are easy is asked without `weight`.
        kernels: 'fused' never has the upsampled logits in memory; CUDA only, and without balance, class weights, OHEM.
    Returns:
        A scalar, float32; 0 with a (zero) gradient when every pixel is ignored.
    Source: 'all' is MMSegmentation 1.2.2's default (`avg_non_ignore=False`), 'valid' is PyTorch's mean; balance is that
        of Huang et al. (DSRG), CVPR 2018, with all objects as one side, as Ru et al. (ToCo), CVPR 2023, have it; the
        divisor of class weights is that of both PyTorch and MMSegmentation.
    """
    plain = balance == "none" and not class_weights and ohem is None
    if kernels == "fused" and plain:
        from wsss_cli.kernels.cross_entropy import upsampled_cross_entropy  # here, as not every machine has Triton

        cost, count = upsampled_cross_entropy(logits, target, weight)
        return cost / (divisor(target, average) if average == "all" else total(count).clamp(min=1))
    logits, target = at_size(logits, target), target.long()
    if plain and weight is None:
        summed = F.cross_entropy(logits, target, ignore_index=IGNORE, reduction="sum")
        return summed / divisor(target, average)
    cost = F.cross_entropy(logits, target, ignore_index=IGNORE, reduction="none")
    chosen = None if ohem is None else hard_pixels(cost, target, ohem, class_weights)
    if class_weights:
        factors = torch.tensor(class_weights, device=logits.device)
        cost = cost * factors[torch.where(target == IGNORE, 0, target)]
    if weight is not None:
        cost = cost * weight
    if chosen is not None:
        cost = cost * chosen
    if balance == "none":
        over = weighted_divisor(target, average, factors) if class_weights else divisor(target, average)
        return cost.sum() / over
    labelled, background = target != IGNORE, target == 0
    sides = [(cost * side).sum() / total(side.sum()).clamp(min=1) for side in (background, labelled & ~background)]
    return 0.5 * (sides[0] + sides[1]) * (total(labelled.sum()) / divisor(target, average))


@torch.no_grad()
def hard_pixels(cost: Tensor, target: Tensor, config: OhemConfig, class_weights: Sequence[float] = ()) -> Tensor:
    """The pixels that online hard example mining leaves in the loss.

    With `thresh` those whose class has a probability below it; where they are fewer than `min_kept` times the images of
    the batch, the bound is raised to the probability that has so many below it. Without `thresh` as many pixels as
    that, those of highest loss, class weights included.

    Args:
        cost: cross-entropy of each pixel, float32 [B, H, W].
        target: class indices or 255, int64 [B, H, W].
    Returns:
        Bool [B, H, W], False where the target is 255.
    Source: Shrivastava et al. (OHEM), CVPR 2016; the selection is that of MMSegmentation 1.2.2's `OHEMPixelSampler`,
        which never takes the easiest pixel of all with `thresh`.
    """
    valid = target != IGNORE
    costs, here = concatenated(cost[valid])
    few = config.min_kept * total_count(len(target), target.device)
    if len(costs) == 0:
        return valid
    if config.thresh is not None:
        probability = (-costs).exp()
        bound = probability.kthvalue(min(few, len(costs) - 1) + 1).values.clamp(min=config.thresh)
        hard = probability < bound
    else:
        if class_weights:
            costs = costs * torch.tensor(class_weights, device=cost.device)[concatenated(target[valid])[0]]
        hard = torch.zeros_like(costs, dtype=torch.bool)
        hard[costs.topk(min(few, len(costs))).indices] = True
    return torch.zeros_like(valid).masked_scatter(valid, hard[here])


def _tried(device: torch.device, numbers: torch.Generator) -> Pairs:
    logits = torch.randn(2, 5, 6, 7, generator=numbers).to(device)
    target = torch.randint(0, 5, (2, 24, 28), generator=numbers, dtype=torch.uint8).to(device)
    target[:, :3] = 255

    def loss(kernels: str) -> tuple[Tensor, Tensor]:
        x = logits.clone().requires_grad_()
        value = cross_entropy(x, target, kernels=kernels)  # type: ignore[arg-type]
        return value.detach(), torch.autograd.grad(value, x)[0]

    return list(zip(loss("fused"), loss("plain"), strict=True))


TRIAL = Check("cross-entropy of upsampled logits", 1e-4, _tried)
