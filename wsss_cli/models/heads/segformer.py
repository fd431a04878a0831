"""SegFormer's all-MLP decoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wsss_cli.models.blocks import ConvBnRelu, pixel_classifier, resized


class SegFormerHead(nn.Module):
    """Every map brought to one width and to the first map's size; together: one 1x1 convolution and a classifier.

    Args:
        inputs: channels of the backbone's maps.
        num_classes: K, background included.
        channels: of every map, and of the sum.
        dropout: probability that a channel is dropped before the classifier.
    Source: Xie et al., NeurIPS 2021; layers as in MMSegmentation 1.2.2 (SegformerHead), where each map has batch norm
        and ReLU, which the paper's linear layers have not.
    """

    kind = "segformer"

    def __init__(self, inputs: Sequence[int], num_classes: int, *, channels: int = 256, dropout: float = 0.1) -> None:
        super().__init__()
        self.levels = nn.ModuleList(ConvBnRelu(width, channels, 1) for width in inputs)
        self.fuse = ConvBnRelu(channels * len(inputs), channels, 1)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = pixel_classifier(channels, num_classes)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps of the backbone -> logits [B, K, h, w] at the stride of the first."""
        levels = [resized(level(map_), features[0]) for level, map_ in zip(self.levels, features, strict=True)]
        logits: Tensor = self.classifier(self.dropout(self.fuse(torch.cat(levels, 1))))
        return logits
