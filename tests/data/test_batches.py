"""How many images go through a network together."""

import pytest
import torch

from wsss_cli.data.batches import images_per_batch

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("size", "view", "device", "count"),
    [
        ((512, 512), 512 * 512, CPU, 2),
        ((375, 500), 375 * 500, CPU, 2),
        ((512, 512), 100 * 512 * 512, CPU, 2),  # views do not count on a CPU
        ((2000, 2000), 2000 * 2000, CPU, 1),
        ((512, 512), 512 * 512, GPU, 16),
        ((512, 512), 2 * 1024 * 1024, GPU, 16),  # scale 2, mirrored too: 32 million pixels
        ((512, 512), 2 * 2048 * 2048, GPU, 4),  # scale 4
        ((512, 512), 2 * 8192 * 8192, GPU, 1),
    ],
)
def test_a_batch_is_bounded_by_its_images_and_on_a_gpu_by_their_largest_view(size, view, device, count):
    assert images_per_batch(size, view, device) == count
