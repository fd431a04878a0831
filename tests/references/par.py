"""Pixel-adaptive refinement, a pixel at a time in float64."""

import numpy as np

RING = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]


def by_loops(image, planes, dilations, iterations, w1, w2):
    """The definition, a pixel at a time, in float64. image [3, H, W], planes [C, H, W]."""
    height, width = image.shape[1:]
    offsets = [(dy * d, dx * d, d * np.hypot(dy, dx)) for d in dilations for dy, dx in RING]
    distances = np.array([distance for _, _, distance in offsets])
    position = np.exp(-((distances / distances.std(ddof=1) / w1) ** 2))
    position /= position.sum()
    weights, places = {}, {}
    for y in range(height):
        for x in range(width):
            at = [(min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1)) for dy, dx, _ in offsets]
            energy = np.zeros(len(at))
            for channel in image:
                neighbours = np.array([channel[place] for place in at])
                energy += ((neighbours - channel[y, x]) / (neighbours.std(ddof=1) + 1e-8) / w1) ** 2 / 3
            colour = np.exp(-(energy - energy.min()))
            weights[y, x] = (colour / colour.sum() + w2 * position) / (1 + w2)
            places[y, x] = at
    for _ in range(iterations):
        planes = np.array(
            [
                [
                    [
                        sum(w * plane[place] for w, place in zip(weights[y, x], places[y, x], strict=True))
                        for x in range(width)
                    ]
                    for y in range(height)
                ]
                for plane in planes
            ]
        )
    return planes


def scene(seed=0, size=(7, 9), count=3):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (3, *size)).astype(float)
    planes = rng.random((count, *size))
    return image, planes / planes.sum(0)
