"""3x3 convolutions on one map: a head of its own, and the auxiliary head of the others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wsss_cli.models.blocks import ConvBnRelu, pixel_classifier


class FcnHead(nn.Module):
    """3x3 convolutions on one of the backbone's maps, and a classifier.

    Args:
        inputs: channels of the backbone's maps.
        num_classes: K, background included.
        level: index of the map that is used; -1 is the last.
        channels: of the convolutions.
        convs: how many there are.
        concat: one more convolution sees the map and what became of it.
        dropout: probability that a channel is dropped before the classifier.
    Source: Long et al., CVPR 2015; layers as in MMSegmentation 1.2.2 (FCNHead).
    """

    kind = "fcn"

    def __init__(
        self,
        inputs: Sequence[int],
        num_classes: int,
        *,
        level: int = -1,
        channels: int = 512,
        convs: int = 2,
        concat: bool = True,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.level = level
        first = inputs[level]
        layers = [ConvBnRelu(channels if number else first, channels, 3) for number in range(convs)]
        self.conv = nn.Sequential(*layers) if convs > 1 else layers[0]
        self.joint = ConvBnRelu(first + channels, channels, 3) if concat else None
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = pixel_classifier(channels, num_classes)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps of the backbone -> logits [B, K, h, w] at the stride of the map that is used."""
        map_ = features[self.level]
        x = self.conv(map_)
        if self.joint is not None:
            x = self.joint(torch.cat([map_, x], 1))
        logits: Tensor = self.classifier(self.dropout(x))
        return logits
