"""How sure masks are, and how often they are right where they are so sure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsss_cli.data.masks import read_mask
from wsss_cli.errors import DataError
from wsss_cli.labels import IGNORE

LEVELS = 256  # confidence is stored in 8 bits
BINS = 20
Judged = tuple[Path, Path, Path]  # a mask, its confidence, the true mask


@dataclass(frozen=True)
class Calibration:
    """What confidence is worth on photographs with true masks.

    Attributes:
        wrong: by confidence (0..255), the share of pixels that are wrong, float64 [256].
        error: expected calibration error: the mean over pixels of |share that is right - mean confidence| of their bin.
        images: photographs that it was counted on.
    """

    wrong: np.ndarray
    error: float
    images: int


def confidence_counts(confidence: Path) -> np.ndarray:
    """How many pixels of a confidence map have each confidence, int64 [256].

    Raises:
        DataError: it cannot be read.
    """
    return np.bincount(read_mask(confidence).ravel(), minlength=LEVELS)


def right_counts(files: Judged) -> np.ndarray:
    """How many pixels have each confidence, and how many of them are right, int64 [2, 256].

    Args:
        files: mask, its confidence, the true mask; where this is 255 nothing counts.
    Raises:
        DataError: one cannot be read, or they have different sizes.
    """
    mask, confidence, truth = (read_mask(file) for file in files)
    if not mask.shape == confidence.shape == truth.shape:
        raise DataError(f"{files[0]}, {files[1]} and {files[2]} have different sizes", "make the masks again")
    valid = truth != IGNORE
    right = valid & (mask == truth)
    return np.stack([np.bincount(confidence[which], minlength=LEVELS) for which in (valid, right)])


def calibrate(counts: np.ndarray, images: int) -> Calibration:
    """The share of wrong pixels by confidence, in 20 bins of equal width, and the expected calibration error.

    Args:
        counts: pixels, and those of them that are right, by confidence, int64 [2, 256].
    Raises:
        DataError: no pixel was counted.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, eq. 3.
    """
    total, right = counts
    if not total.sum():
        raise DataError("the true masks have no labelled pixel", "are they all 255?")
    levels = np.arange(LEVELS)
    bins = levels * BINS // LEVELS
    pixels = np.bincount(bins, total, BINS)
    accuracy = np.bincount(bins, right, BINS) / np.maximum(pixels, 1)
    confidence = np.bincount(bins, total * levels / (LEVELS - 1), BINS) / np.maximum(pixels, 1)
    wrong = np.where(pixels[bins] > 0, 1 - accuracy[bins], as_given()[levels])
    return Calibration(wrong, float((pixels * abs(accuracy - confidence)).sum() / pixels.sum()), images)


def as_given() -> np.ndarray:
    """The share of wrong pixels by confidence where confidence is taken at its word, float64 [256]."""
    return 1 - np.arange(LEVELS) / (LEVELS - 1)


def wrong_share(counts: np.ndarray, wrong: np.ndarray) -> float:
    """The share of a mask's pixels that is expected to be wrong.

    Args:
        counts: its pixels by confidence, int64 [256].
        wrong: share by confidence, float64 [256].
    """
    return float(counts @ wrong / counts.sum())
