"""UPerNet's head: a pyramid of pooled features on the last map, and a feature pyramid over all maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wsss_cli.models.blocks import ConvBnRelu, laid_out_like, pixel_classifier, resized


class UPerNetHead(nn.Module):
    """The last map with its averages over grids of cells; from there down to the first, each map adds its own.

    Batch norm on a grid of one cell sees one value for each image: at least two images are needed in training mode.

    Args:
        inputs: channels of the backbone's maps.
        num_classes: K, background included.
        channels: of every map in the head.
        pool_scales: cells on a side of each grid.
        dropout: probability that a channel is dropped before the classifier.
    Source: Xiao et al., ECCV 2018; layers as in MMSegmentation 1.2.2 (UPerHead, PPM).
    """

    kind = "upernet"

    def __init__(
        self,
        inputs: Sequence[int],
        num_classes: int,
        *,
        channels: int = 512,
        pool_scales: Sequence[int] = (1, 2, 3, 6),
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.pool_scales = tuple(pool_scales)
        self.pools = nn.ModuleList(ConvBnRelu(inputs[-1], channels, 1) for _ in pool_scales)
        self.bottleneck = ConvBnRelu(inputs[-1] + len(pool_scales) * channels, channels, 3)
        self.laterals = nn.ModuleList(ConvBnRelu(width, channels, 1) for width in inputs[:-1])
        self.levels = nn.ModuleList(ConvBnRelu(channels, channels, 3) for _ in inputs[:-1])
        self.fuse = ConvBnRelu(len(inputs) * channels, channels, 3)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = pixel_classifier(channels, num_classes)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps of the backbone -> logits [B, K, h, w] at the stride of the first."""
        last = features[-1]
        means = [laid_out_like(cell_means(last, cells), last) for cells in self.pool_scales]
        pooled = [resized(conv(grid), last) for conv, grid in zip(self.pools, means, strict=True)]
        maps = [self.bottleneck(torch.cat([last, *(laid_out_like(map_, last) for map_ in pooled)], 1))]
        for lateral, map_ in zip(reversed(self.laterals), reversed(features[:-1]), strict=True):
            maps.insert(0, lateral(map_) + resized(maps[0], map_))
        maps[:-1] = [level(map_) for level, map_ in zip(self.levels, maps[:-1], strict=True)]
        together = self.fuse(torch.cat([resized(map_, maps[0]) for map_ in maps], 1))
        logits: Tensor = self.classifier(self.dropout(together))
        return logits


def cell_means(x: Tensor, cells: int) -> Tensor:
    """Means of a map [B, C, h, w] over a grid of cells, [B, C, cells, cells]; as `F.adaptive_avg_pool2d`.

    As two products of matrices, which exporters can follow for maps of any size.
    """
    rows, columns = (_shares(size, cells, x) for size in x.shape[-2:])
    return rows @ x @ columns.T


def _shares(size: int, cells: int, like: Tensor) -> Tensor:
    """What each of `size` places gives to each cell, [cells, size]: cell i spans i*size/cells, rounded outwards."""
    cell = torch.arange(cells, device=like.device)[:, None]
    place = torch.arange(size, device=like.device)
    inside = (place >= cell * size // cells) & (place * cells < (cell + 1) * size)
    return (inside / inside.sum(1, keepdim=True)).to(like.dtype)
