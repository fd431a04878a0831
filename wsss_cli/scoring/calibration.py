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


@dataclass(frozen=True)
class Confidence:
    """How sure a mask is.

    Attributes:
        values: the classes of the mask, and 255, ascending, uint8 [n].
        groups: the group of the pixels of each value, int64 [n].
        counts: pixels by value and confidence, int64 [n, 256].
    """

    values: np.ndarray
    groups: np.ndarray
    counts: np.ndarray

    def wrong(self, share: np.ndarray) -> np.ndarray:
        """How many pixels of each value are expected to be wrong, float64 [n].

        Args:
            share: by group and confidence, float64 [18, 256].
        """
        expected: np.ndarray = (self.counts * share[self.groups]).sum(1)
        return expected


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


def confidence_counts(files: Sure) -> Confidence:
    """How many pixels of each value of a mask have each confidence.

    Raises:
        DataError: a file cannot be read, or they have different sizes.
    """
    mask, confidence = _of_one_size(files)
    counts = np.bincount(mask.ravel().astype(np.int64) * LEVELS + confidence.ravel(), minlength=256 * LEVELS)
    values, places = np.unique(mask, return_index=True)
    return Confidence(values, pixel_groups(mask).ravel()[places], counts.reshape(256, LEVELS)[values])


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


def expected_losses(
    wrong: Sequence[dict[int, float]], tags: Sequence[Sequence[int]], pixels: np.ndarray, photograph: float
) -> list[float]:
    """What the wrong pixels of each mask are expected to take from the mean IoU of all masks, in points.

    A pixel that is wrongly given to a class is one too many of it, and one too few of another class of the photograph:
    of the background or of a tag, each as likely. Either costs that class about one part in as many as it has pixels.
    So a wrong pixel of a rare class counts more than one of the background.

    Args:
        wrong: of each mask, how many pixels of a class, or of 255, are expected to be wrong.
        tags: the classes that each photograph is tagged with.
        pixels: of each class in all masks, int64 [K]; one with fewer than a photograph's counts as having those.
        photograph: pixels of a photograph in the mean.
    """
    cost = 100 / len(pixels) / np.maximum(pixels, photograph)
    losses = []
    for expected, labels in zip(wrong, tags, strict=True):
        there = {0, *labels, *expected} - {IGNORE}
        loss = 0.0
        for value, count in expected.items():
            others = [cost[label] for label in there - {value}]
            loss += count * ((0.0 if value == IGNORE else cost[value]) + (sum(others) / len(others) if others else 0.0))
        losses.append(float(loss))
    return losses
