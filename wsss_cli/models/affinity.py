"""Networks that say which neighbouring pixels belong together: IRN's boundary branch and PSA's AffinityNet."""

from __future__ import annotations

from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss_cli.models.backbones import Backbone

BOUNDARY_CHANNELS, BOUNDARY_GROUPS = 32, 4
AFFINITY_CHANNELS = (64, 128, 256)
F9_GAIN = 4.0  # features start far enough apart that exp(-distance) is not 1 everywhere


class BoundaryNet(nn.Module):
    """IRN's boundary branch over the four maps of a backbone that stays as loaded.

    Each map: 1x1 convolution to 32 channels, group norm, resize to the first map's size, ReLU; the maps together: 1x1
    convolution to one. IRN's ResNet-50 gives a fifth map, that of its stem after pooling; no other family of backbones
    has one at stride 4, so it is left out. IRN's displacement branch is left out, too: it has layers and losses of its
    own over the same constant features, so without it the boundary branch gets the same gradients, and class masks
    need the boundary only.

    Args:
        backbone: feature extractor; its weights take no gradient and its batch norm keeps its statistics.
    Source: Ahn et al. (IRN), CVPR 2019, and the released code (`net/resnet50_irn.py`).
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(False)
        self.levels = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, BOUNDARY_CHANNELS, 1, bias=False), nn.GroupNorm(BOUNDARY_GROUPS, BOUNDARY_CHANNELS)
            )
            for channels in backbone.channels
        )
        self.fuse = nn.Conv2d(BOUNDARY_CHANNELS * len(backbone.channels), 1, 1)

    @property
    def holds(self) -> dict[str, Any]:
        """What meta.json says of a checkpoint of it: 'kind', 'method', 'backbone'."""
        return {"kind": "affinity", "method": "irn", "backbone": self.backbone.name}

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images [B, 3, H, W] -> boundary logits [B, h, w] at stride 4 (sizes rounded up)."""
        with torch.no_grad():
            features = self.backbone(x)
        size = features[0].shape[-2:]
        levels = [F.relu(_resize(level(map_), size)) for level, map_ in zip(self.levels, features, strict=True)]
        logits: Tensor = self.fuse(torch.cat(levels, 1)).squeeze(1)
        return logits

    def train(self, mode: bool = True) -> Self:
        """Training or evaluation mode; the backbone stays in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self


class AffinityNet(nn.Module):
    """PSA's AffinityNet over the last three maps of a backbone, brought to stride 8.

    The three maps: 1x1 convolutions to 64, 128 and 256 channels, ELU, resize to stride 8; together: 1x1 convolution
    448 -> 448, ELU. PSA's backbone has all three maps at stride 8; `output_stride = 8` is nearest to that.

    Source: Ahn and Kwak (PSA), CVPR 2018, and the released code (`network/resnet38_aff.py`).
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.levels = nn.ModuleList(
            nn.Conv2d(channels, width, 1, bias=False)
            for channels, width in zip(backbone.channels[1:], AFFINITY_CHANNELS, strict=True)
        )
        width = sum(AFFINITY_CHANNELS)
        self.fuse = nn.Conv2d(width, width, 1, bias=False)
        for level in self.levels:
            nn.init.kaiming_normal_(level.weight)  # type: ignore[arg-type]
        nn.init.xavier_uniform_(self.fuse.weight, gain=F9_GAIN)

    @property
    def holds(self) -> dict[str, Any]:
        """What meta.json says of a checkpoint of it: 'kind', 'method', 'backbone'."""
        return {"kind": "affinity", "method": "psa", "backbone": self.backbone.name}

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images [B, 3, H, W] -> features [B, 448, h, w] at stride 8 (sizes rounded up)."""
        features = self.backbone(x)[1:]
        size = features[0].shape[-2:]
        levels = [_resize(F.elu(level(map_)), size) for level, map_ in zip(self.levels, features, strict=True)]
        return F.elu(self.fuse(torch.cat(levels, 1)))


def _resize(x: Tensor, size: torch.Size) -> Tensor:
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=False)
