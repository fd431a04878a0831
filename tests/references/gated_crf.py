"""The energy of the gated CRF, a pair of pixels at a time."""

import math

import torch


def energy_by_pixel(p, image, gate, radius, sxy, srgb):
    """The sum as it is written, pixel by pixel."""
    _, height, width = p.shape
    total = 0.0
    for y in range(height):
        for x in range(width):
            for v in range(max(y - radius, 0), min(y + radius + 1, height)):
                for u in range(max(x - radius, 0), min(x + radius + 1, width)):
                    if (v, u) == (y, x) or not (gate[y, x] and gate[v, u]):
                        continue
                    space = ((y - v) ** 2 + (x - u) ** 2) / (2 * sxy**2)
                    colour = ((image[:, y, x] - image[:, v, u]) ** 2).sum() / (2 * srgb**2)
                    total += math.exp(-space - colour) * (1 - (p[:, y, x] * p[:, v, u]).sum())
    return total


def draw(batch=2, classes=3, height=7, width=6, dtype=torch.float64, seed=0):
    rng = torch.Generator().manual_seed(seed)
    p = torch.randn(batch, classes, height, width, generator=rng, dtype=dtype).softmax(1)
    image = 60 * torch.rand(batch, 3, height, width, generator=rng, dtype=dtype)
    return p, image, torch.rand(batch, height, width, generator=rng) > 0.2
