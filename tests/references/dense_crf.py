"""The mean field of a dense CRF over every pair of pixels, in float64."""

import numpy as np

H, W = 12, 10


SETTINGS = {
    "gauss_sxy": 2.0,
    "gauss_compat": 1.5,
    "bilateral_sxy": 6.0,
    "bilateral_srgb": 20.0,
    "bilateral_compat": 4.0,
    "iterations": 5,
}


def scene(labels=3, seed=0):
    """Two flat regions with a little noise, and a unary that knows the truth only roughly."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((H, W), int)
    truth[3:9, 2:7] = 1
    image = np.where(truth[..., None] == 1, (200, 80, 60), (60, 120, 180)) + rng.integers(-8, 9, (H, W, 3))
    noise = rng.gumbel(0, 1.0, (labels, H, W))
    logits = noise + 1.5 * (np.arange(labels)[:, None, None] == truth)
    return image.astype(np.uint8), -log_softmax(logits).astype(np.float32), truth


def log_softmax(x):
    x = x - x.max(axis=0)
    return x - np.log(np.exp(x).sum(axis=0))


def all_pairs(image, unary, *, gauss_sxy, gauss_compat, bilateral_sxy, bilateral_srgb, bilateral_compat, iterations):
    """The mean field as it is defined, over every pair of pixels, in float64."""
    labels, height, width = unary.shape
    y, x = np.mgrid[:height, :width]
    place = np.stack([x, y], -1).reshape(-1, 2).astype(float)
    colour = image.reshape(-1, 3).astype(float)
    features = (
        (gauss_compat, place / gauss_sxy),
        (bilateral_compat, np.hstack([place / bilateral_sxy, colour / bilateral_srgb])),
    )
    kernel = 0.0
    for weight, f in features:
        k = np.exp(-0.5 * np.square(f[:, None] - f[None]).sum(-1))
        n = 1 / np.sqrt(k.sum(1))
        kernel = kernel + weight * n[:, None] * k * n[None]
    energy = unary.reshape(labels, -1).astype(float)
    q = np.exp(log_softmax(-energy))
    for _ in range(iterations):
        q = np.exp(log_softmax(-energy + q @ kernel))
    return q.reshape(unary.shape)
