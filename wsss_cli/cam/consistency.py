"""Losses that hold CAMs to themselves under scaling and cutting: SEAM's, PuzzleCAM's; and CAMs refined by SEAM's PCM.

All take tags [B, C] of 0 and 1; classes that an image is not tagged with have no say.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_cli.config.classifier import SeamConfig, SeamErConfig
from wsss_cli.losses.tags import multilabel_soft_margin
from wsss_cli.models.classifier import CamClassifier, SeamClassifier, pixel_affinity


def tagged_planes(activations: Tensor, tags: Tensor) -> Tensor:
    """Class activations [B, C, h, w] -> scores in [0, 1], [B, C+1, h, w], background first.

    Each tagged map is passed through ReLU and divided by its maximum, the others are 0; the background is what the
    highest of them leaves of 1. The maximum is not differentiated through.
    """
    maps = F.relu(activations.float()) * tags[:, :, None, None]
    maps = maps / (maps.detach().amax((2, 3), keepdim=True) + 1e-5)
    return torch.cat([1 - maps.amax(1, keepdim=True), maps], 1)


def equivariance_loss(full: Tensor, small: Tensor) -> Tensor:
    """Mean |resized full - small| over all planes and pixels.

    Args:
        full: planes of the image, float [B, C+1, H, W].
        small: planes of its smaller copy, float [B, C+1, h, w].
    Source: Wang et al., SEAM, CVPR 2020 (ER); here the background plane takes part.
    """
    return (_resized(full, small) - small).abs().mean()


def correlation_loss(refined: Tensor, planes: Tensor, hard: float) -> Tensor:
    """Distance of refined CAMs from the winners of the other view's CAMs, over the values that differ most.

    Args:
        refined: float [B, C+1, h, w], from `refine`.
        planes: of the other view, same shape; only the highest at each pixel counts, and no gradient goes there.
        hard: share of the values of an image that are averaged.
    Source: Wang et al., SEAM, CVPR 2020 (ECR).
    """
    target = planes.detach()
    target = target * (target == target.amax(1, keepdim=True))
    distance = (target - refined).abs().flatten(1)
    return distance.topk(max(int(distance.shape[1] * hard), 1), dim=1).values.mean()


def refine(activations: Tensor, affinity: Tensor, tags: Tensor) -> Tensor:
    """The PCM: at each pixel the mean of the CAMs of all pixels, weighted by affinity.

    Args:
        activations: float [B, C, h, w]; at each pixel only the highest tagged class is passed on. Without gradient.
        affinity: float [B, hw, hw]; columns sum to 1.
    Returns:
        float [B, C+1, h, w] in [0, 1], background first.
    Source: Wang et al., SEAM, CVPR 2020.
    """
    planes = tagged_planes(activations.detach(), tags)
    objects = planes[:, 1:]
    objects = objects * (objects == objects.amax(1, keepdim=True))
    source = torch.cat([planes[:, :1], objects], 1)
    return (source.flatten(2) @ affinity).float().view_as(source)


def seam_er_losses(model: CamClassifier, x: Tensor, tags: Tensor, config: SeamErConfig) -> dict[str, Tensor]:
    """Loss of the tags, mean of both sizes, and the equivariance loss.

    Args:
        x: normalised images, float [B, 3, H, W].
    """
    full, small = model.features(x), model.features(_smaller(x, config.scale))
    planes = [tagged_planes(model.classifier(features), tags) for features in (full, small)]
    return {
        "tags": _both(model, full, small, tags),
        "equivariance": config.weight * equivariance_loss(*planes),
    }


def seam_losses(model: SeamClassifier, x: Tensor, tags: Tensor, config: SeamConfig) -> dict[str, Tensor]:
    """As `seam_er_losses`, and the ECR loss of both views, which trains the PCM."""
    activations, pixels = model.activations_and_pixels(x)
    small_activations, small_pixels = model.activations_and_pixels(_smaller(x, config.scale))
    full, small = tagged_planes(activations, tags), tagged_planes(small_activations, tags)
    refined = _resized(refine(activations, pixel_affinity(pixels), tags), small)
    small_refined = refine(small_activations, pixel_affinity(small_pixels), tags)
    resized = _resized(full, small)
    ecr = correlation_loss(refined, small, config.hard) + correlation_loss(small_refined, resized, config.hard)
    logits = (activations.mean((2, 3)), small_activations.mean((2, 3)))  # a linear classifier may be pooled after
    return {
        "tags": (multilabel_soft_margin(logits[0], tags) + multilabel_soft_margin(logits[1], tags)) / 2,
        "equivariance": config.weight * equivariance_loss(full, small),
        "correlation": config.ecr_weight * ecr,
    }


def puzzle_losses(model: CamClassifier, x: Tensor, tags: Tensor, alpha: float) -> dict[str, Tensor]:
    """Loss of the tags from the whole image and from its four tiles, and the distance of their activations.

    Args:
        x: normalised images, float [B, 3, H, W]; H and W even.
        alpha: weight of the distance, see `ramped`.
    Source: Jo and Yu, PuzzleCAM, ICIP 2021; the distance is that of the tagged classes.
    """
    whole = model.features(x)
    merged = merge(model.features(tiles(x)))
    distance = (model.classifier(whole) - _resized(model.classifier(merged), whole)).float().abs()
    return {
        "tags": multilabel_soft_margin(model.scores(whole), tags),
        "tiles": multilabel_soft_margin(model.scores(merged), tags),
        "puzzle": alpha * (distance * tags[:, :, None, None]).mean(),
    }


def ramped(alpha: float, step: int, iters: int, ramp: float) -> float:
    """Weight of the reconstruction at a step: from 0, linearly, to `alpha` after the share `ramp` of all steps."""
    return alpha * min(step / (iters * ramp), 1.0)


def tiles(x: Tensor) -> Tensor:
    """Cut [B, D, H, W] into quarters [4B, D, H/2, W/2]: all upper left ones, upper right, lower left, lower right."""
    height, width = x.shape[2] // 2, x.shape[3] // 2
    upper, lower = x[:, :, :height], x[:, :, height:]
    return torch.cat([part for half in (upper, lower) for part in (half[..., :width], half[..., width:])])


def merge(quarters: Tensor) -> Tensor:
    """Put [4B, D, h, w], ordered as by `tiles`, together: [B, D, 2h, 2w]."""
    upper_left, upper_right, lower_left, lower_right = quarters.chunk(4)
    return torch.cat([torch.cat([upper_left, upper_right], 3), torch.cat([lower_left, lower_right], 3)], 2)


class SeamCam:
    """CAMs refined by the PCM, of images whose tags are known, for `multiscale_cam`.

    Args:
        tags: classes (0 .. C-1) of each image; a batch of twice as many has the mirrored images behind them.
    """

    def __init__(self, model: SeamClassifier, tags: Sequence[Sequence[int]]) -> None:
        self.model, self.tags = model, tags
        self.normalise = model.backbone.normalise

    def cam(self, x: Tensor) -> Tensor:
        """Normalised images [B, 3, H, W] -> scores in [0, 1], [B, C, h, w]; those of untagged classes are 0."""
        activations, pixels = self.model.activations_and_pixels(x)
        tags = activations.new_zeros(activations.shape[:2])
        for row, classes in enumerate(list(self.tags) * (len(x) // max(len(self.tags), 1))):
            tags[row, list(classes)] = 1.0
        each = zip(activations.split(1), pixels.split(1), tags.split(1), strict=True)  # an affinity is (hw)^2 large
        return torch.cat([refine(maps, pixel_affinity(features), row)[:, 1:] for maps, features, row in each])


def _both(model: CamClassifier, full: Tensor, small: Tensor, tags: Tensor) -> Tensor:
    losses = [multilabel_soft_margin(model.scores(features), tags) for features in (full, small)]
    return (losses[0] + losses[1]) / 2


def _smaller(x: Tensor, scale: float) -> Tensor:
    size = [max(round(side * scale), 1) for side in x.shape[-2:]]
    return F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)


def _resized(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)
