"""Multi-scale, flip-averaged class activation maps of a batch of images of one size."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_cli.data.batches import bucket_size, image_batch
from wsss_cli.processes import check_stop


class CamModel(Protocol):
    """What CAMs are made with: says where the classes are in a normalised batch, [B, 3, H, W] -> [B, C, h, w], >= 0."""

    def normalise(self, x: Tensor) -> Tensor: ...
    def cam(self, x: Tensor) -> Tensor: ...


@torch.no_grad()
def multiscale_cam(
    model: CamModel,
    images: list[np.ndarray],
    scales: tuple[float, ...],
    flip: bool,
    device: torch.device,
    multiple: int = 16,
) -> Tensor:
    """Sum of ReLU'd CAMs over scales (and mirrored views).

    Args:
        images: RGB, uint8 [H, W, 3], all of one size bucket.
        scales: factors on the bucket's size.
        flip: add the un-flipped maps of the mirrored images.
        multiple: sides of the scaled images are multiples of this; a network of patches wants those of its patch.
    Returns:
        float32 [B, C, h, w] at stride 4 of the bucket's size; not normalised.

    Source: IRN, `step/make_cam.py`.
    """
    height, width = bucket_size(*images[0].shape[:2])
    out_size = ((height - 1) // 4 + 1, (width - 1) // 4 + 1)
    total: Tensor | None = None
    for scale in scales:
        check_stop()
        size = bucket_size(round(height * scale), round(width * scale), multiple)
        x = model.normalise(image_batch(images, size, device, shrink=scale < 1))
        if flip:
            x = torch.cat([x, x.flip(3)])
        maps = model.cam(x).float()
        if flip:
            plain, mirrored = maps.chunk(2)
            maps = plain + mirrored.flip(3)
        maps = F.interpolate(maps, out_size, mode="bilinear", align_corners=False)
        total = maps if total is None else total + maps
    assert total is not None
    return total


def normalise_cam(cam: np.ndarray) -> np.ndarray:
    """Divide each map of [C, h, w] by its own maximum (+1e-5), without subtracting the minimum. Source: IRN."""
    scores: np.ndarray = cam / (cam.max(axis=(1, 2), keepdims=True) + 1e-5)
    return scores
