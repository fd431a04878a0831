"""How many images go through a network together."""

import cv2
import numpy as np
import pytest
import torch

from wsss_cli.data import batches
from wsss_cli.data.batches import image_batch, images_per_batch, resized_batch

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("size", "view", "device", "count"),
    [
        ((512, 512), 512 * 512, CPU, 1),
        ((128, 128), 128 * 128, CPU, 16),
        ((288, 384), 288 * 384, CPU, 2),
        ((375, 500), 375 * 500, CPU, 1),
        ((128, 128), 8 * 128 * 128, CPU, 4),  # CAMs, up to scale 2, mirrored too
        ((288, 384), 8 * 288 * 384, CPU, 1),
        ((2000, 2000), 2000 * 2000, CPU, 1),
        ((512, 512), 512 * 512, GPU, 16),
        ((512, 512), 2 * 1024 * 1024, GPU, 16),  # scale 2, mirrored too: 32 million pixels
        ((512, 512), 2 * 2048 * 2048, GPU, 4),  # scale 4
        ((512, 512), 2 * 8192 * 8192, GPU, 1),
    ],
)
def test_a_batch_is_bounded_by_its_images_and_their_largest_view(size, view, device, count):
    assert images_per_batch(size, view, device) == count


@pytest.mark.parametrize("cores", [1, 3])
@pytest.mark.parametrize("size", [(20, 31), (40, 62), (7, 90)])
@pytest.mark.parametrize("method", [cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_AREA])
def test_resized_images_are_those_of_opencv_in_their_order_on_any_number_of_cores(cores, size, method, monkeypatch):
    monkeypatch.setattr(batches, "cores_here", lambda: cores)
    images = list(np.random.default_rng(0).integers(0, 256, (5, 20, 31, 3), np.uint8))
    expected = np.stack([cv2.resize(image, size[::-1], interpolation=method) for image in images])
    batch = resized_batch(images, size, CPU, method)
    assert batch.shape == (5, 3, *size) and batch.dtype == torch.uint8
    np.testing.assert_array_equal(batch.permute(0, 2, 3, 1).numpy(), expected)
    if method != cv2.INTER_LINEAR:
        assert torch.equal(image_batch(images, size, CPU, shrink=method == cv2.INTER_AREA), batch)
