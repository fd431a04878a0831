"""Pixels of images in an order in which neighbours are near in feature space: the leaves of a k-d tree."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

SCALE = math.sqrt(math.log2(math.e) / 2)  # exp(-|a - b|^2 / 2) = 2^-|SCALE (a - b)|^2
LEAF = 64  # pixels of a leaf
BLOCK = 64  # pixels of the blocks that images are filled up to; a multiple of LEAF
STRIDE = 16
# orthogonal axes of colour: the sum and two differences. Distances are as in RGB, boxes around leaves are smaller
AXES = (
    (1 / math.sqrt(3),) * 3,
    (1 / math.sqrt(2), -1 / math.sqrt(2), 0.0),
    (1 / math.sqrt(6),) * 2 + (-2 / math.sqrt(6),),
)


@dataclass(frozen=True)
class Order:
    """Places of the pixels of all images, one image after the other, each filled up to whole blocks.

    Attributes:
        source: pixel of each place, int64 [places].
        place: a place of each pixel, int64 [pixels]; `source[place]` counts up.
        real: False where a place repeats a pixel to fill its image up, bool [places].
        features: float32 [places, STRIDE]: at 0..4 and again at 8..12 the features times SCALE, elsewhere 0.
        boxes: lowest and highest corner of each leaf, float32 [places / LEAF, 10].
        centres: middle of each block, float32 [places / BLOCK, STRIDE], laid out like `features`.
        images: first leaf and the one after the last of the image of each block, int32 [places / BLOCK, 2].
    """

    source: Tensor
    place: Tensor
    real: Tensor
    features: Tensor
    boxes: Tensor
    centres: Tensor
    images: Tensor


def pixel_features(image: Tensor, sxy: float, srgb: float) -> Tensor:
    """Position and colour of each pixel in standard deviations, colours on the axes of AXES.

    Args:
        image: RGB, uint8 [H, W, 3].
    Returns:
        float32 [H * W, 5].
    """
    height, width = image.shape[:2]
    y, x = torch.meshgrid(
        torch.arange(height, device=image.device), torch.arange(width, device=image.device), indexing="ij"
    )
    place = torch.stack([x, y], -1).reshape(-1, 2).float() / sxy
    axes = torch.tensor(AXES, dtype=torch.float64, device=image.device)
    return torch.cat([place, ((image.reshape(-1, 3).double() @ axes.T) / srgb).float()], 1)


@torch.no_grad()
def kd_order(features: Sequence[Tensor]) -> Order:
    """Order the pixels of each image by a k-d tree: halves, along the widest side of their box, down to leaves.

    Args:
        features: of each image, float32 [pixels, 5], on one device.
    """
    sizes = tuple(len(points) for points in features)
    device = features[0].device
    levels, source, real, images = (_to(device, plan) for plan in _plan(sizes))
    points = torch.cat(list(features))[source]
    order = torch.arange(len(source), device=device)
    for counts in levels:
        tiles = points[order].view(-1, LEAF, points.shape[1])
        numbers = torch.arange(len(counts), device=device)
        owner = torch.repeat_interleave(numbers, counts, output_size=len(tiles))
        index = owner[:, None].expand(-1, points.shape[1])
        low = points.new_full((len(counts), points.shape[1]), torch.inf).scatter_reduce_(
            0, index, tiles.amin(1), "amin"
        )
        high = torch.full_like(low, -torch.inf).scatter_reduce_(0, index, tiles.amax(1), "amax")
        owner = owner.repeat_interleave(LEAF, output_size=len(order))
        widest = (high - low).argmax(1)[owner]
        bits = points[order].gather(1, widest[:, None])[:, 0].view(torch.int32)
        ascending = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long()  # in the order of the floats
        order = order[((owner << 32) + ascending).argsort(stable=True)]
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(len(order), device=device)
    ordered = points[order] * SCALE
    boxes = ordered.view(-1, LEAF, ordered.shape[1])
    blocks = ordered.view(-1, BLOCK, ordered.shape[1])
    return Order(
        source[order],
        inverse[real],
        real[order],
        _laid_out(ordered),
        torch.cat([boxes.amin(1), boxes.amax(1)], 1),
        _laid_out((blocks.amin(1) + blocks.amax(1)) / 2),
        images,
    )


def _laid_out(features: Tensor) -> Tensor:
    rows = features.new_zeros(len(features), STRIDE)
    rows[:, :5] = features
    rows[:, 8:13] = features
    return rows


def _to(device: torch.device, plan: np.ndarray | list[np.ndarray]) -> Any:
    if isinstance(plan, list):
        return [_to(device, level) for level in plan]
    return torch.from_numpy(plan).to(device, non_blocking=True)


@functools.lru_cache(maxsize=64)
def _plan(sizes: tuple[int, ...]) -> tuple[list[np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    """What depends on the numbers of pixels alone.

    Returns:
        Leaves of each segment at each level, from whole images down (a segment of more than a block is cut at a block);
        pixel of each place before ordering; whether the place is the pixel's own; leaves of the image of each block.
    """
    leaves = [-(-size // BLOCK) * (BLOCK // LEAF) for size in sizes]
    levels, now = [], leaves
    while max(now) > 1:
        levels.append(np.array(now))
        now = [half for count in now for half in _halves(count)]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    source, real, images, first = [], [], [], 0
    for start, size, count in zip(starts[:-1], sizes, leaves, strict=True):
        fill = count * LEAF - size
        source += [np.arange(start, start + size), np.full(fill, start + size - 1)]
        real += [np.ones(size, bool), np.zeros(fill, bool)]
        images += [(first, first + count)] * (count * LEAF // BLOCK)
        first += count
    return levels, np.concatenate(source), np.concatenate(real), np.array(images, np.int32)


def _halves(count: int) -> tuple[int, ...]:
    if count < 2:
        return (count,)
    block = BLOCK // LEAF
    left = max(round(count / 2 / block) * block, 1) if count > block else count // 2
    return (left, count - left)
