"""Building blocks of segmentation heads."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
        out: Tensor = self.relu(self.bn(self.conv(x)))
        return out


class Separable(nn.Module):
    """Depthwise 3x3 then pointwise 1x1, each with batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int, *, dilation: int = 1) -> None:
        super().__init__()
        self.depthwise = ConvBnRelu(inputs, inputs, 3, dilation=dilation, groups=inputs)
        self.pointwise = ConvBnRelu(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.pointwise(self.depthwise(x))
        return out


def pixel_classifier(inputs: int, outputs: int) -> nn.Conv2d:
    """1x1 convolution from features to class scores; weights N(0, 0.01), no bias at first."""
    conv = nn.Conv2d(inputs, outputs, 1)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv


def laid_out_like(x: Tensor, like: Tensor) -> Tensor:
    """A map in the memory layout of another one, NHWC or NCHW.

    `torch.cat` takes NCHW where one of its maps is neither.
    """
    last = like.is_contiguous(memory_format=torch.channels_last) and not like.is_contiguous()
    return x.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def resized(x: Tensor, like: Tensor) -> Tensor:
    """A map [B, C, h, w] at the height and width of another one, bilinear."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)
