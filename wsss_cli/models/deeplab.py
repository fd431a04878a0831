"""DeepLabV3+ with a depthwise separable ASPP head and an auxiliary FCN head, on any backbone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss_cli.models.backbones import Backbone


class ConvBnRelu(nn.Module):
    """Convolution without bias, batch norm, ReLU; size-preserving."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, dilation: int = 1, groups: int = 1) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(self.conv(x)))


class Separable(nn.Module):
    """Depthwise 3x3 then pointwise 1x1, each with batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int, *, dilation: int = 1) -> None:
        super().__init__()
        self.depthwise = ConvBnRelu(inputs, inputs, 3, dilation=dilation, groups=inputs)
        self.pointwise = ConvBnRelu(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))


def _classifier(inputs: int, outputs: int) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, 1)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv


def _resize(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


class AsppHead(nn.Module):
    """Atrous spatial pyramid on the last features, fused with the stride-4 features."""

    def __init__(
        self,
        low_in: int,
        high_in: int,
        num_classes: int,
        *,
        channels: int,
        low: int,
        dilations: Sequence[int],
        drop: float,
    ) -> None:
        super().__init__()
        self.image_pool = ConvBnRelu(high_in, channels, 1)
        self.aspp = nn.ModuleList(
            ConvBnRelu(high_in, channels, 1) if d == 1 else Separable(high_in, channels, dilation=d) for d in dilations
        )
        self.bottleneck = ConvBnRelu((len(dilations) + 1) * channels, channels, 3)
        self.low = ConvBnRelu(low_in, low, 1)
        self.fuse = nn.Sequential(Separable(channels + low, channels), Separable(channels, channels))
        self.dropout = nn.Dropout2d(drop)
        self.classifier = _classifier(channels, num_classes)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        pooled = self.image_pool(high.mean((2, 3), keepdim=True)).expand(-1, -1, *high.shape[-2:])
        x = self.bottleneck(torch.cat([pooled, *(branch(high) for branch in self.aspp)], 1))
        x = self.fuse(torch.cat([_resize(x, low), self.low(low)], 1))
        return self.classifier(self.dropout(x))


class FcnHead(nn.Module):
    """One 3x3 convolution and a classifier."""

    def __init__(self, inputs: int, channels: int, num_classes: int, drop: float) -> None:
        super().__init__()
        self.conv = ConvBnRelu(inputs, channels, 3)
        self.dropout = nn.Dropout2d(drop)
        self.classifier = _classifier(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.dropout(self.conv(x)))


class DeepLabV3Plus(nn.Module):
    """Segmentation network: backbone, ASPP decoder, and an auxiliary head that is used in training only.

    Args:
        backbone: gives features at strides 4 ... output stride; comes with its own weights or initialisation.
        num_classes: K, background included.
        aspp_channels: channels of each ASPP branch and of the decoder.
        low_channels: channels kept of the stride-4 features.
        dilations: of the ASPP branches; 1 makes a 1x1 convolution, others depthwise separable 3x3.
        dropout: probability that a channel is dropped before a classifier.
        aux_weight: weight that the caller gives the auxiliary loss; 0: no auxiliary head.
    Source: Chen et al., ECCV 2018; layers and initialisation as in MMSegmentation 1.2.2 (DepthwiseSeparableASPPHead).
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        aspp_channels: int = 512,
        low_channels: int = 48,
        dilations: Sequence[int] = (1, 12, 24, 36),
        dropout: float = 0.1,
        aux_weight: float = 0.4,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.num_classes = num_classes
        self.aux_weight = aux_weight
        low_in, aux_in, high_in = backbone.channels[0], backbone.channels[-2], backbone.channels[-1]
        self.head = AsppHead(
            low_in, high_in, num_classes, channels=aspp_channels, low=low_channels, dilations=dilations, drop=dropout
        )
        # a quarter of the stage's channels: the 256 of MMSegmentation on the 1024 of a ResNet-50
        self.aux = FcnHead(aux_in, max(aux_in // 4, 64), num_classes, dropout) if aux_weight > 0 else None

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images [B, 3, H, W] -> logits [B, K, h, w] at stride 4 (sizes rounded up)."""
        features = self.backbone(x)
        return self.head(features[0], features[-1])

    def forward_train(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """As `forward`, and the auxiliary logits at the stride of the last stage but one (None without that head).

        The pooled branch's batch norm sees one value for each image: at least two images are needed in training mode.
        """
        features = self.backbone(x)
        logits = self.head(features[0], features[-1])
        return logits, None if self.aux is None else self.aux(features[-2])
