"""Image classifiers whose class weights, applied to the feature map, give class activation maps."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss_cli.errors import UsageError
from wsss_cli.models.backbones import Backbone


class CamClassifier(nn.Module):
    """Last feature map -> global average -> one bias-free linear score for each foreground class.

    Args:
        backbone: feature extractor; its last map is used.
        num_classes: classes of the data set, background included (K); scores are given for the other K-1.
    Source: Zhou et al., CVPR 2016, eq. 1-2; pooling before the classifier as in Ahn et al. (IRN), CVPR 2019.
    """

    def __init__(self, backbone: Backbone, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Conv2d(backbone.channels[-1], num_classes - 1, 1, bias=False)

    @property
    def holds(self) -> dict[str, Any]:
        """What meta.json says of a checkpoint of it: 'kind', 'backbone', 'num_classes' (foreground)."""
        classes = self.classifier.out_channels
        return {"kind": "classifier", "backbone": self.backbone.name, "num_classes": classes}

    def features(self, x: Tensor) -> Tensor:
        """Normalised images [B, 3, H, W] -> the last feature map [B, D, h, w]."""
        last: Tensor = self.backbone(x)[-1]
        return last

    def scores(self, features: Tensor) -> Tensor:
        """Feature map [B, D, h, w] -> logits [B, K-1]."""
        logits: Tensor = self.classifier(features.mean((2, 3), keepdim=True)).flatten(1)
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images [B, 3, H, W] -> logits [B, K-1]."""
        return self.scores(self.features(x))

    def cam(self, x: Tensor) -> Tensor:
        """Normalised images [B, 3, H, W] -> activation maps >= 0, [B, K-1, h, w], at the backbone's last stride."""
        return F.relu(self.classifier(self.features(x)))


class ReCamClassifier(CamClassifier):
    """A trained classifier with a second one beside it, whose weights multiply those of the first in the CAMs.

    Args:
        first: trained on tags; its backbone and weights become part of this network.
    Source: Chen et al., ReCAM, CVPR 2022.
    """

    def __init__(self, first: CamClassifier) -> None:
        classes, channels = first.classifier.weight.shape[:2]
        super().__init__(first.backbone, classes + 1)
        self.classifier = first.classifier
        self.second = nn.Conv2d(channels, classes, 1, bias=False).to(first.classifier.weight.device)

    def cam(self, x: Tensor) -> Tensor:
        """Normalised images [B, 3, H, W] -> activation maps >= 0, [B, K-1, h, w], of both weights multiplied."""
        return F.relu(F.conv2d(self.features(x), self.classifier.weight * self.second.weight))


class SeamClassifier(CamClassifier):
    """A classifier with a pixel correlation module (PCM), which carries CAMs to pixels that look alike.

    Args:
        backbone: gives four stages; the last two, and the image, are what pixels are compared by.
        channels: in which they are compared.
    Raises:
        UsageError: the backbone has one map only.
    Source: Wang et al., SEAM, CVPR 2020; the published code's features: the last two stages, cut off from the
        gradient, brought to 64 and 128 channels, and the image.
    """

    def __init__(self, backbone: Backbone, num_classes: int, channels: int = 192) -> None:
        super().__init__(backbone, num_classes)
        if len(backbone.channels) < 2:
            raise UsageError(
                "consistency seam compares pixels by two stages of the backbone, and this one has one map",
                "--set classifier.consistency.kind=seam-er does without, or choose a backbone with stages: resnet50c",
            )
        self.pcm_third = nn.Conv2d(backbone.channels[-2], 64, 1, bias=False)
        self.pcm_fourth = nn.Conv2d(backbone.channels[-1], 128, 1, bias=False)
        self.pcm_joint = nn.Conv2d(64 + 128 + 3, channels, 1, bias=False)

    def activations_and_pixels(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images [B, 3, H, W] -> (class activations [B, K-1, h, w], unit features of pixels [B, E, hw])."""
        maps = self.backbone(x)
        third, fourth = maps[-2].detach(), maps[-1].detach()
        size = fourth.shape[-2:]
        third = F.interpolate(F.relu(self.pcm_third(third)), size, mode="bilinear", align_corners=False)
        small = F.interpolate(x, size, mode="bilinear", align_corners=False)
        joint = torch.cat([small, third, F.relu(self.pcm_fourth(fourth))], 1)
        return self.classifier(maps[-1]), F.normalize(self.pcm_joint(joint).flatten(2).float(), dim=1, eps=1e-5)


def pixel_affinity(pixels: Tensor) -> Tensor:
    """Features of length 1, [B, E, n] -> ReLU(cosine) of every two pixels, each column summing to 1, [B, n, n]."""
    affinity = F.relu(pixels.transpose(1, 2) @ pixels).float()
    return affinity / (affinity.sum(1, keepdim=True) + 1e-5)
