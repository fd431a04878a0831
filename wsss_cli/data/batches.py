"""Images of like sizes as one tensor on the device."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

PIXELS_PER_BATCH = {"cuda": 16 * 512 * 512, "cpu": 512 * 512}  # of images
VIEW_PIXELS_PER_BATCH = {"cuda": 32 * 1024 * 1024, "cpu": 1024 * 512}  # of what the network sees of them at a time


def images_per_batch(size: tuple[int, int], view: int, device: torch.device) -> int:
    """How many images go through a network together.

    Args:
        size: (height, width) of the images.
        view: pixels of the largest view that the network sees of an image, twice those if mirrored ones go with it.
    """
    images = PIXELS_PER_BATCH[device.type] // (size[0] * size[1])
    views = VIEW_PIXELS_PER_BATCH[device.type] // view
    return max(1, min(images, views))


def bucket_size(height: int, width: int, multiple: int = 32) -> tuple[int, int]:
    """The nearest size whose sides are multiples of `multiple`; images of one bucket share a batch.

    The aspect ratio changes by less than half a `multiple`; in exchange a data set has a few dozen shapes, not one for
    each image, so kernels are planned once and batches are full.
    """
    return max(round(height / multiple), 1) * multiple, max(round(width / multiple), 1) * multiple


def image_batch(
    images: list[np.ndarray], size: tuple[int, int], device: torch.device, *, shrink: bool = False
) -> Tensor:
    """Images, uint8 [H, W, 3], resized to `size`: uint8 [B, 3, h, w] on `device`; bicubic, or by area to `shrink`."""
    method = cv2.INTER_AREA if shrink else cv2.INTER_CUBIC
    resized = np.stack([cv2.resize(image, (size[1], size[0]), interpolation=method) for image in images])
    return to_device(resized, device).permute(0, 3, 1, 2)


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """A copy on `device`; a GPU's is under way when this returns, so that the next images can be resized meanwhile."""
    host = torch.from_numpy(array)
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host.to(device)
