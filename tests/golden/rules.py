"""Rules from which the golden inputs are made: pure functions of a seed, so no large file is needed.

The goldens are outputs of MMSegmentation 1.2.2 (mmcv-lite, CPU, float32, opencv 5.0.0) on these inputs.
"""

import zlib

import numpy as np


def weight(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Weights of the reference network as a function of the state-dict key (mmseg naming) and shape.

    num_batches_tracked -> 0; running_mean and bias -> 0.1 * normal; running_var -> uniform(0.5, 1.5);
    4-d weight -> normal * sqrt(2 / fan_in), conv_seg.weight -> 0.05 * normal; 1-d weight -> uniform(0.5, 1.5),
    times 0.3 in bn3.
    """
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode())))
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if key.endswith(("running_mean", ".bias")):
        return (0.1 * rng.standard_normal(shape)).astype(np.float32)
    if key.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if len(shape) == 4:
        std = 0.05 if key.endswith("conv_seg.weight") else np.sqrt(2.0 / np.prod(shape[1:]))
        return (std * rng.standard_normal(shape)).astype(np.float32)
    w = rng.uniform(0.5, 1.5, shape)
    return (0.3 * w if ".bn3." in key else w).astype(np.float32)


def network_input(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Already normalised network input, float32 standard normal."""
    return np.random.Generator(np.random.PCG64(seed)).standard_normal(shape).astype(np.float32)


def train_labels(step: int) -> np.ndarray:
    """Labels of training step 0 or 1 of `r50_train_step.json`: int64 [2, 128, 128], about 10 % are 255."""
    g = np.random.Generator(np.random.PCG64(3001 + step))
    lab = g.integers(0, 21, (2, 16, 16)).repeat(8, 1).repeat(8, 2).astype(np.int64)
    lab[g.random((2, 128, 128)) < 0.1] = 255
    return lab


def metric_pair(seed, h, w, nc, ignore_frac, absent, noise, pred_extra):
    """(prediction, label), uint8 [h, w], for `iou_metric.json`; image k of a case has seed `case_seed * 100 + k`."""
    g = np.random.Generator(np.random.PCG64(seed))
    allowed = np.array([c for c in range(nc) if c not in absent])
    gh, gw = -(-h // 8), -(-w // 8)
    lab = allowed[g.integers(0, len(allowed), (gh, gw))].repeat(8, 0).repeat(8, 1)[:h, :w].astype(np.uint8)
    pred = lab.copy()
    m = g.random((h, w)) < noise
    pred[m] = allowed[g.integers(0, len(allowed), int(m.sum()))]
    lab[g.random((h, w)) < ignore_frac] = 255
    if pred_extra is not None:
        pred[g.random((h, w)) < 0.02] = pred_extra
    return pred, lab


def image(seed: int, h: int, w: int) -> np.ndarray:
    """A smooth and noisy uint8 BGR image [h, w, 3]: three sinusoids a channel plus N(0, 12)."""
    g = np.random.Generator(np.random.PCG64(seed))
    y, x = np.mgrid[0:h, 0:w].astype(np.float64)
    im = np.zeros((h, w, 3))
    for c in range(3):
        for _ in range(3):
            fx, fy, ph = g.uniform(0, 0.1), g.uniform(0, 0.1), g.uniform(0, 6.28)
            im[:, :, c] += 40 * np.sin(2 * np.pi * (fx * x + fy * y) + ph)
    im += 128 + g.normal(0, 12, (h, w, 3))
    return np.clip(im, 0, 255).astype(np.uint8)


def label(seed: int, h: int, w: int, block: int = 16) -> np.ndarray:
    """A blocky uint8 label map [h, w] that goes with `image(seed, h, w)`."""
    g = np.random.Generator(np.random.PCG64(seed + 7))
    a = g.choice([0, 0, 0, 0, 15, 7, 12, 255], (-(-h // block), -(-w // block)))
    return a.repeat(block, 0).repeat(block, 1)[:h, :w].astype(np.uint8)
