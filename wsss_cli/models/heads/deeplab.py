"""DeepLabV3+ with depthwise separable convolutions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wsss_cli.models.blocks import ConvBnRelu, Separable, laid_out_like, pixel_classifier, resized


class DeepLabHead(nn.Module):
    """Atrous spatial pyramid on the last features, fused with the first.

    The pooled branch's batch norm sees one value for each image: at least two images are needed in training mode.

    Args:
        inputs: channels of the backbone's maps.
        num_classes: K, background included.
        channels: of each pyramid branch and of the decoder.
        low_channels: kept of the first map.
        dilations: of the branches; 1 makes a 1x1 convolution, others depthwise separable 3x3.
        dropout: probability that a channel is dropped before the classifier.
    Source: Chen et al., ECCV 2018; layers and initialisation as in MMSegmentation 1.2.2 (DepthwiseSeparableASPPHead).
    """

    kind = "deeplabv3plus"

    def __init__(
        self,
        inputs: Sequence[int],
        num_classes: int,
        *,
        channels: int = 512,
        low_channels: int = 48,
        dilations: Sequence[int] = (1, 12, 24, 36),
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        low, high = inputs[0], inputs[-1]
        self.image_pool = ConvBnRelu(high, channels, 1)
        self.aspp = nn.ModuleList(
            ConvBnRelu(high, channels, 1) if d == 1 else Separable(high, channels, dilation=d) for d in dilations
        )
        self.bottleneck = ConvBnRelu((len(dilations) + 1) * channels, channels, 3)
        self.low = ConvBnRelu(low, low_channels, 1)
        self.fuse = nn.Sequential(Separable(channels + low_channels, channels), Separable(channels, channels))
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = pixel_classifier(channels, num_classes)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps of the backbone -> logits [B, K, h, w] at the stride of the first."""
        low, high = features[0], features[-1]
        pooled = self.image_pool(high.mean((2, 3), keepdim=True)).expand(-1, -1, *high.shape[-2:])
        pooled = laid_out_like(pooled, high)
        x = self.bottleneck(torch.cat([pooled, *(branch(high) for branch in self.aspp)], 1))
        x = self.fuse(torch.cat([resized(x, low), self.low(low)], 1))
        logits: Tensor = self.classifier(self.dropout(x))
        return logits
