"""Plain vision transformers as backbones: their one grid of tokens as a map, or a pyramid made of it."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn

from wsss_cli.errors import UsageError


class TokenNet(nn.Module):
    """A whole timm transformer whose last tokens, normalised as for its classifier, are the one map."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        last = net.feature_info[-1]
        self.model, self.pretrained_cfg = net, net.pretrained_cfg
        self.feature_info: Any = Maps([last["num_chs"]], [last["reduction"]])
        _, _, *grid = TokenNet.forward(self, torch.zeros(1, 3, 2 * last["reduction"], 3 * last["reduction"]))[0].shape
        if grid != [2, 3]:
            raise ValueError(f"{grid} tokens for an image of 2 x 3 patches")

    def forward(self, x: Tensor) -> list[Tensor]:
        maps: list[Tensor] = self.model.forward_intermediates(
            x, indices=1, norm=True, output_fmt="NCHW", intermediates_only=True
        )
        return maps


class TokenPyramid(TokenNet):
    """A transformer's one map at strides 4, 8, 16 and 32: transposed convolutions, the map itself, pooling.

    Source: Li et al. (ViTDet), ECCV 2022, "simple feature pyramid"; the two convolutions to 256 channels that follow
        there on each map are left out, as a segmentation head brings the maps to its own width.
    Raises:
        UsageError: patches of another size than 16.
    """

    def __init__(self, net: Any) -> None:
        super().__init__(net)
        (width,), (stride,) = self.feature_info.channels(), self.feature_info.reduction()
        if stride != 16:
            raise UsageError(
                f"a pyramid is made of patches of 16 pixels, and this one has some of {stride}",
                "choose another backbone, e.g. vit_small_patch16_224",
            )
        self.feature_info = Maps([width // 4, width // 2, width, width], [4, 8, 16, 32])
        self.up4 = nn.Sequential(
            nn.ConvTranspose2d(width, width // 2, 2, 2),
            LayerNorm2d(width // 2),
            nn.GELU(),
            nn.ConvTranspose2d(width // 2, width // 4, 2, 2),
        )
        self.up8 = nn.ConvTranspose2d(width, width // 2, 2, 2)

    def forward(self, x: Tensor) -> list[Tensor]:
        (map_,) = super().forward(x)
        return [self.up4(map_), self.up8(map_), map_, F.max_pool2d(map_, 2)]


class Maps:
    """What timm's feature networks say of their maps."""

    def __init__(self, channels: list[int], reduction: list[int]) -> None:
        self._channels, self._reduction = channels, reduction

    def channels(self) -> list[int]:
        return self._channels

    def reduction(self) -> list[int]:
        return self._reduction
