"""Images of like sizes as one tensor on the device."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import torch
from torch import Tensor

from wsss_cli.ranks.who import cores_here

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
    images: Sequence[np.ndarray], size: tuple[int, int], device: torch.device, *, shrink: bool = False
) -> Tensor:
    """Images, uint8 [H, W, 3], resized to `size`: uint8 [B, 3, h, w] on `device`; bicubic, or by area to `shrink`."""
    return resized_batch(images, size, device, cv2.INTER_AREA if shrink else cv2.INTER_CUBIC)


def resized_batch(images: Sequence[np.ndarray], size: tuple[int, int], device: torch.device, method: int) -> Tensor:
    """Images, uint8 [H, W, 3], resized to `size` by a method of OpenCV: uint8 [B, 3, h, w] on `device`.

    Each on a core: one core alone was two thirds of a sweep of CAMs on an H200. A copy to a GPU is under way when this
    returns, as one of `to_device` is.
    """
    host = torch.empty((len(images), *size, 3), dtype=torch.uint8, pin_memory=device.type == "cuda")
    planes = host.numpy()

    def resize(place: int) -> None:
        cv2.resize(images[place], (size[1], size[0]), dst=planes[place], interpolation=method)

    threads = min(cores_here(), len(images)) if len(images) > 1 else 1
    if threads > 1:
        with ThreadPoolExecutor(threads, "resize") as pool:
            list(pool.map(resize, range(len(images))))
    else:
        for place in range(len(images)):
            resize(place)
    return host.to(device, non_blocking=True).permute(0, 3, 1, 2)


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """A copy on `device`; a GPU's is under way when this returns, so that the next images can be resized meanwhile."""
    host = torch.from_numpy(array)
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host.to(device)
