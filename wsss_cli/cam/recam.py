"""ReCAM's loss: classify what a class's own CAM pools, by softmax, so that classes shut each other out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_cli.models.classifier import ReCamClassifier


def class_features(features: Tensor, activations: Tensor) -> Tensor:
    """Spatial mean of the features under each class's CAM, which is passed through ReLU and divided by its maximum.

    Args:
        features: float [B, D, h, w].
        activations: float [B, C, h, w].
    Returns:
        float32 [B, C, D].
    Source: Chen et al., ReCAM, CVPR 2022.
    """
    maps = F.relu(activations.float())
    maps = maps / (maps.amax((2, 3), keepdim=True) + 1e-5)
    with torch.autocast(features.device.type, enabled=False):
        return torch.einsum("bchw,bdhw->bcd", maps, features.float()) / maps[0, 0].numel()


def softmax_loss(model: ReCamClassifier, features: Tensor, tags: Tensor) -> Tensor:
    """Cross-entropy of the second classifier on one vector for each tagged class.

    Args:
        features: last feature map, float [B, D, h, w].
        tags: 0 or 1, [B, C].
    Returns:
        A scalar, float32: the mean over the tags of an image, then over all images; one without tags counts as 0.
    Source: Chen et al., ReCAM, CVPR 2022.
    """
    vectors = class_features(features, model.classifier(features))
    rows, classes = tags.nonzero(as_tuple=True)
    logits = model.second(vectors[rows, classes][:, :, None, None]).flatten(1).float()
    each = F.cross_entropy(logits, classes, reduction="none")
    return (each / tags.float().sum(1)[rows]).sum() / len(tags)
