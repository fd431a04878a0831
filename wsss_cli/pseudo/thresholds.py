"""Background thresholds: one that needs no masks, and one for each class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wsss_cli.cam.store import read_cam
from wsss_cli.errors import DataError
from wsss_cli.processes import check_stop

LEVELS = 256  # CAMs are stored in 8 bits
LOWEST = 0.01


def score_histogram(files: Sequence[Path], num_classes: int) -> np.ndarray:
    """Pixel counts int64 [K, 256] of the best tagged class and its score, as stored; images without tags count not.

    Raises:
        DataError: a file that cannot be read, or a class outside the classes.
    """
    counts = np.zeros((num_classes, LEVELS), np.int64)
    for file in files:
        check_stop()
        cam, classes, _ = read_cam(file)
        if any(not 0 < index < num_classes for index in classes):
            raise DataError(f"{file} has a CAM of a class that is not in 1..{num_classes - 1}", "make the CAMs anew")
        if classes:
            level = np.rint(cam.max(axis=0) * (LEVELS - 1)).astype(np.intp)
            best = np.asarray(classes)[cam.argmax(axis=0)]
            counts += np.bincount((best * LEVELS + level).ravel(), minlength=counts.size).reshape(counts.shape)
    return counts


def otsu(histogram: np.ndarray) -> float | None:
    """The score that splits a histogram into the two classes of least variance within, as a background threshold.

    Args:
        histogram: counts of the scores 0, 1/255, ..., 1; [256].
    Returns:
        A score t in [0, 1): what is above t is foreground. Between equally good ones the middle. None where there are
        fewer than two different scores.

    Source: Otsu, "A threshold selection method from gray-level histograms", 1979, eq. 18.
    """
    share = histogram / max(histogram.sum(), 1)
    score = np.arange(LEVELS) / (LEVELS - 1)
    below = share.cumsum()[:-1]
    moment = (share * score).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (moment[-1] * below - moment[:-1]) ** 2 / (below * (1 - below))
    between = np.nan_to_num(between, nan=0.0, posinf=0.0)
    if between.max() <= 1e-12:
        return None
    best = np.flatnonzero(between >= between.max() * (1 - 1e-9))
    return float((score[best[0]] + score[best[-1]]) / 2)


def class_factors(best: float, by_class: Sequence[float | None]) -> tuple[float, ...]:
    """Factors on the scores after which each class passes the common threshold where it passed its own.

    s_c * best / t_c > best just where s_c > t_c. Two tagged classes compete by their scaled scores.

    Args:
        best: the common background threshold.
        by_class: own threshold t_c of class 1, 2, ...; None: the common one.
    """
    best = max(best, LOWEST)
    return tuple(1.0 if threshold is None else best / max(threshold, LOWEST) for threshold in by_class)
