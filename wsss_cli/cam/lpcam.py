"""LPCAM: a class is where features are closer to the local prototypes of the class than to those of its context."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_cli.config.cam import LpCamConfig
from wsss_cli.models.classifier import CamClassifier
from wsss_cli.processes import check_stop

ROUNDS = 50


def kmeans(points: Tensor, clusters: int, rng: np.random.Generator) -> Tensor:
    """Centres of Lloyd's algorithm from k-means++ starts; at most 50 rounds.

    Args:
        points: float32 [n, D]; n may be below `clusters`: then the points themselves are the centres.
        rng: source of the starts; the same draws give the same centres.
    Returns:
        float32 [min(n, clusters), D], on the device of the points.
    Source: Arthur and Vassilvitskii, k-means++, SODA 2007.
    """
    if len(points) <= clusters:
        return points.clone()
    chosen = [int(rng.integers(len(points)))]
    nearest = (points - points[chosen[0]]).square().sum(1)
    for _ in range(1, clusters):
        check_stop()
        weights = nearest.double().cpu().numpy().cumsum()
        chosen.append(min(int(np.searchsorted(weights, rng.random() * weights[-1], side="right")), len(points) - 1))
        nearest = torch.minimum(nearest, (points - points[chosen[-1]]).square().sum(1))
    centres = points[chosen]
    labels = None
    for _ in range(ROUNDS):
        check_stop()
        new = (centres.square().sum(1) - 2 * points @ centres.T).argmin(1)
        if labels is not None and torch.equal(new, labels):
            break
        labels = new
        members = F.one_hot(labels, clusters).to(points.dtype)
        counts = members.sum(0)[:, None]
        centres = torch.where(counts > 0, members.T @ points / counts.clamp(min=1), centres)
    return centres


def split_features(features: Tensor, activation: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """Local features of one image inside and outside a class.

    Args:
        features: float [D, h, w].
        activation: CAM of the class, >= 0, float [h, w].
        tau: of the maximum of the CAM; above it is inside.
    Returns:
        float32 [n, D] and [m, D]; both empty where the CAM is 0 everywhere.
    """
    pixels = features.float().flatten(1).T
    activation = activation.float().flatten()
    if not activation.max() > 0:
        return pixels[:0], pixels[:0]
    inside = activation > tau * activation.max()
    return pixels[inside], pixels[~inside]


def prototypes(
    inside: Tensor, outside: Tensor, weight: Tensor, index: int, config: LpCamConfig, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Cluster centres that stand for a class, and those that stand for its context.

    Args:
        inside, outside: local features of all images, float32 [n, D] and [m, D].
        weight: of the classifier, float32 [C, D].
        index: the class, 0 .. C-1.
    Returns:
        float32 [p, D] and [q, D]: centres whose softmax score for the class is above `class_score`, and below
        `context_score`. Where none is, the one that comes closest; the class's own weight where there is no feature.

    Source: Chen and Sun, LPCAM, CVPR 2023.
    """

    def clustered(points: Tensor) -> tuple[Tensor, Tensor]:
        centres = kmeans(points, config.clusters, rng)
        return centres, (centres @ weight.T).softmax(1)[:, index]

    class_centres, context_centres = weight[index : index + 1], weight[:0]
    if len(inside):
        centres, score = clustered(inside)
        above = score > config.class_score
        class_centres = centres[above] if above.any() else centres[score.argmax()][None]
    if len(outside):
        centres, score = clustered(outside)
        below = score < config.context_score
        context_centres = centres[below] if below.any() else centres[score.argmin()][None]
    return class_centres, context_centres


def direction(class_prototypes: Tensor, context_prototypes: Tensor) -> Tensor:
    """The vector whose product with a feature of length 1 is its mean cosine to a class less that to its context.

    Args:
        class_prototypes, context_prototypes: float [p, D] and [q, D]; q may be 0.
    Returns:
        float [D].
    """
    mean = F.normalize(class_prototypes, dim=1).mean(0)
    return mean - F.normalize(context_prototypes, dim=1).mean(0) if len(context_prototypes) else mean


class LpCam:
    """LPCAMs for `multiscale_cam`.

    Args:
        by_class: (class prototypes, context prototypes) by class, 0 .. C-1; classes that it lacks get maps of 0.
    Source: Chen and Sun, LPCAM, CVPR 2023; the mean of cosines is one product with a mean vector.
    """

    def __init__(self, model: CamClassifier, by_class: Mapping[int, tuple[Tensor, Tensor]]) -> None:
        weight = model.classifier.weight
        self.model, self.normalise = model, model.backbone.normalise
        self.directions = torch.zeros(weight.shape[:2], device=weight.device)
        for index, (class_prototypes, context_prototypes) in by_class.items():
            self.directions[index] = direction(class_prototypes, context_prototypes).to(weight.device)

    def cam(self, x: Tensor) -> Tensor:
        """Normalised images [B, 3, H, W] -> ReLU(mean cosine to class - mean cosine to context), [B, C, h, w]."""
        features = F.normalize(self.model.features(x).float(), dim=1)
        return F.relu(F.conv2d(features, self.directions[:, :, None, None]))
