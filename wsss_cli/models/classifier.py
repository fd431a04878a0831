"""Image classifier whose class weights, applied to the feature map, give class activation maps."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

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

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images [B, 3, H, W] -> logits [B, K-1]."""
        features = self.backbone(x)[-1]
        return self.classifier(features.mean((2, 3), keepdim=True)).flatten(1)

    def cam(self, x: Tensor) -> Tensor:
        """Normalised images [B, 3, H, W] -> activation maps >= 0, [B, K-1, h, w], at the backbone's last stride."""
        return F.relu(self.classifier(self.backbone(x)[-1]))
