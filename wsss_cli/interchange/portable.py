"""A segmentation network as other programs want it: photographs in, labels or logits of the same size out."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss_cli.models.depthwise import DepthwiseConv2d
from wsss_cli.models.segmentor import Segmentor

Output = Literal["labels", "logits"]


class SameConv2d(nn.Module):
    """A convolution padded as TensorFlow does, in arithmetic that tracing and exporting can follow for any size.

    With n = ceil(size / stride) windows of reach r = dilation * (kernel - 1) + 1 the padding of a side is
    (n - 1) * stride + r - size = r - stride + (-size mod stride), never below 0 where the reach is at least the stride.

    Args:
        conv: timm's `Conv2dSame`, or a `DepthwiseConv2d` made of one; square.
    """

    def __init__(self, conv: Any) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, getattr(conv, "bias", None)
        self.stride, self.dilation = _first(conv.stride), _first(conv.dilation)
        self.groups = getattr(conv, "groups", conv.weight.shape[0])
        self.base = self.dilation * (self.weight.shape[-1] - 1) + 1 - self.stride
        if self.base < 0:
            raise ValueError(f"a window of stride {self.stride} passes over pixels")

    def forward(self, x: Tensor) -> Tensor:
        height, width = (self._pads(size) for size in x.shape[-2:])
        x = F.pad(x, (*width, *height))
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)

    def _pads(self, size: Any) -> tuple[Any, Any]:
        if self.stride == 1:
            return self.base // 2, self.base - self.base // 2
        total = self.base + (-size) % self.stride
        return total // 2, total - total // 2


def _first(value: int | tuple[int, ...]) -> int:
    return value if isinstance(value, int) else value[0]


class Portable(nn.Module):
    """Normalisation, the network, and the way back to the size of the input.

    Args:
        model: on the CPU; its convolutions with TensorFlow's padding are replaced in place.
        output: 'labels' or 'logits'.
    """

    def __init__(self, model: Segmentor, output: Output) -> None:
        super().__init__()
        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                if type(child).__name__ == "Conv2dSame" or (isinstance(child, DepthwiseConv2d) and child.same):
                    setattr(parent, name, SameConv2d(child))
        self.model, self.output = model.eval(), output

    def forward(self, image: Tensor) -> Tensor:
        """RGB in 0..255, uint8 or float [1, 3, H, W] -> uint8 [1, H, W], or float32 [1, K, H, W]."""
        x = self.model.backbone.normalise(image.float())
        logits = F.interpolate(self.model(x), size=image.shape[-2:], mode="bilinear", align_corners=False)
        return logits if self.output == "logits" else logits.argmax(1).to(torch.uint8)
