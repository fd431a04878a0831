"""How sure masks are, and how often they are right where they are so sure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsss_cli.data.masks import read_mask
from wsss_cli.errors import DataError
from wsss_cli.labels import IGNORE

LEVELS = 256  # confidence is stored in 8 bits
BINS = 20
COVERS = (0.1, 0.25, 0.5, 0.75, 0.9)  # shares of a mask that parts of it are told apart by
GROUPS = 3 * (len(COVERS) + 1)  # of background, objects and 255
Sure = tuple[Path, Path]  # a mask, its confidence
Judged = tuple[Path, Path, Path]  # a mask, its confidence, the true mask


@dataclass(frozen=True)
class Calibration:
    """What confidence is worth on photographs with true masks.

    Attributes:
        wrong: by group of pixels and confidence (0..255), the share of pixels that are wrong, float64 [18, 256].
        error: expected calibration error: the mean over pixels of |share that is right - mean confidence| of their bin.
        images: photographs that it was counted on.
    """

    wrong: np.ndarray
    error: float
    images: int


def pixel_groups(mask: np.ndarray) -> np.ndarray:
    """The group of each pixel of a mask: background, object or 255, and how much of the mask its class covers.

    A mask that one class floods is as sure as any, and more often wrong: confidence alone does not show it.

    Args:
        mask: class indices or 255, uint8 [H, W].
    Returns:
        0..17, int64 [H, W]: 6 * (0 background, 1 object, 2 for 255) + how many of `COVERS` the share has reached.
    """
    shares = np.bincount(mask.ravel(), minlength=LEVELS) / mask.size
    groups = np.searchsorted(COVERS, shares, side="right") + (len(COVERS) + 1)
    groups[0] -= len(COVERS) + 1
    groups[IGNORE] += len(COVERS) + 1
    by_pixel: np.ndarray = groups[mask]
    return by_pixel


def confidence_counts(files: Sure) -> np.ndarray:
    """How many pixels of a mask have each confidence, by group, int64 [18, 256].

    Raises:
        DataError: a file cannot be read, or they have different sizes.
    """
    mask, confidence = _of_one_size(files)
    return _counted(pixel_groups(mask), confidence)


def right_counts(files: Judged) -> np.ndarray:
    """How many pixels have each confidence, and how many of them are right, by group, int64 [2, 18, 256].

    Args:
        files: mask, its confidence, the true mask; where this is 255 nothing counts.
    Raises:
        DataError: one cannot be read, or they have different sizes.
    """
    mask, confidence, truth = _of_one_size(files)
    groups, valid = pixel_groups(mask), truth != IGNORE
    right = valid & (mask == truth)
    return np.stack([_counted(groups[which], confidence[which]) for which in (valid, right)])


def _of_one_size(files: Sequence[Path]) -> list[np.ndarray]:
    maps = [read_mask(file) for file in files]
    if any(one.shape != maps[0].shape for one in maps):
        raise DataError(
            f"{', '.join(map(str, files[:-1]))} and {files[-1]} have different sizes", "make the masks again"
        )
    return maps


def _counted(groups: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    counts = np.bincount((groups * LEVELS + confidence).ravel(), minlength=GROUPS * LEVELS)
    return counts.reshape(GROUPS, LEVELS)


def calibrate(counts: np.ndarray, images: int) -> Calibration:
    """The share of wrong pixels by group and confidence, in 20 bins of equal width, and the expected calibration error.

    To each group as many pixels as a photograph has are added that are wrong as often as those of all groups.

    Args:
        counts: pixels, and those of them that are right, by group and confidence, int64 [2, 18, 256].
    Raises:
        DataError: no pixel was counted.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, eq. 3 (bins and error).
    """
    pixels, right = (_in_bins(each) for each in counts)
    every, every_right = pixels.sum(0), right.sum(0)
    if not every.sum():
        raise DataError("the true masks have no labelled pixel", "are they all 255?")
    bins = np.arange(LEVELS) * BINS // LEVELS
    accuracy = every_right / np.maximum(every, 1)
    confidence = _in_bins(counts[0] * np.arange(LEVELS) / (LEVELS - 1)).sum(0) / np.maximum(every, 1)
    more = every.sum() / images
    by_group = 1 - (right + more * accuracy) / (pixels + more)
    wrong = np.where(every[bins] > 0, by_group[:, bins], as_given())
    return Calibration(wrong, float((every * abs(accuracy - confidence)).sum() / every.sum()), images)


def _in_bins(counts: np.ndarray) -> np.ndarray:
    """Sums of [18, 256] over the levels of each bin, float64 [18, 20]."""
    bins = np.arange(LEVELS) * BINS // LEVELS
    return np.stack([np.bincount(bins, row, BINS) for row in counts])


def as_given() -> np.ndarray:
    """The share of wrong pixels by confidence where confidence is taken at its word, float64 [18, 256]."""
    return np.tile(1 - np.arange(LEVELS) / (LEVELS - 1), (GROUPS, 1))


def wrong_share(counts: np.ndarray, wrong: np.ndarray) -> float:
    """The share of a mask's pixels that is expected to be wrong.

    Args:
        counts: its pixels by group and confidence, int64 [18, 256].
        wrong: share by group and confidence, float64 [18, 256].
    """
    return float((counts * wrong).sum() / counts.sum())
