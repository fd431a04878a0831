"""How many images go through a network together."""

import pytest
import torch

from wsss_cli.data.batches import images_per_batch

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
