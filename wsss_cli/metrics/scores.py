"""Scores from the areas of a confusion matrix: fractions for each class, NaN where undefined; means in per cent.

`areas` is what `Confusion.areas()` returns: int64 [K] for each of `intersect`, `union`, `pred`, `label`.
Source of IoU, Acc, aAcc, Dice, F-score, precision and recall: `IoUMetric` of MMSegmentation 1.2.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Areas = Mapping[str, np.ndarray]


def iou(areas: Areas) -> np.ndarray:
    """Intersection over union, float64 [K]; NaN for a class in neither truth nor prediction."""
    return _ratio(areas["intersect"], areas["union"])


def acc(areas: Areas) -> np.ndarray:
    """Share of the truth that is found, float64 [K]; NaN for a class that the truth lacks."""
    return _ratio(areas["intersect"], areas["label"])


def recall(areas: Areas) -> np.ndarray:
    """Another name of `acc`."""
    return acc(areas)


def precision(areas: Areas) -> np.ndarray:
    """Share of the prediction that is right, float64 [K]; NaN for a class that is never predicted."""
    return _ratio(areas["intersect"], areas["pred"])


def dice(areas: Areas) -> np.ndarray:
    """2 I / (P + T), float64 [K]; NaN for a class in neither truth nor prediction."""
    return _ratio(2 * areas["intersect"], areas["pred"] + areas["label"])


def fscore(areas: Areas, beta: float = 1.0) -> np.ndarray:
    """F-score, float64 [K]; recall weighs `beta` times as much as precision; NaN where either is, or both are 0."""
    p, r = precision(areas), recall(areas)
    return _ratio((1 + beta**2) * p * r, beta**2 * p + r)


def false_positive(areas: Areas) -> np.ndarray:
    """(P - I) / U, over-activation, float64 [K]; with IoU and `false_negative` it adds up to 1."""
    return _ratio(areas["pred"] - areas["intersect"], areas["union"])


def false_negative(areas: Areas) -> np.ndarray:
    """(T - I) / U, under-activation, float64 [K]; with IoU and `false_positive` it adds up to 1."""
    return _ratio(areas["label"] - areas["intersect"], areas["union"])


def miou(areas: Areas) -> float:
    """Mean IoU in per cent: a class predicted but absent from the truth counts as 0, one absent from both does not."""
    return _mean_percent(iou(areas))


def macc(areas: Areas) -> float:
    """Mean accuracy in per cent over the classes that the truth has."""
    return _mean_percent(acc(areas))


def aacc(areas: Areas) -> float:
    """Pixel accuracy in per cent: all right pixels over all that the truth labels; NaN if it labels none."""
    return float(100 * _ratio(areas["intersect"].sum(keepdims=True), areas["label"].sum(keepdims=True))[0])


def mean_fp(areas: Areas) -> float:
    """Mean over-activation of the foreground classes in per cent. Source: SEAM, CVPR 2020."""
    return _mean_percent(false_positive(areas)[1:])


def mean_fn(areas: Areas) -> float:
    """Mean under-activation of the foreground classes in per cent. Source: SEAM, CVPR 2020."""
    return _mean_percent(false_negative(areas)[1:])


def summary(areas: Areas, names: Sequence[str] | None = None) -> dict[str, Any]:
    """All that is reported, ready for JSON.

    Args:
        areas: see the top of this file.
        names: class names, background first; without them '0', '1', ...
    Returns:
        `miou, macc, aacc, mdice, mfscore, mfp, mfn`: per cent, None where undefined, the latter two of the foreground;
        `classes`; `iou, acc, dice, fscore, precision, recall, fp, fn`: lists, per cent, None where undefined;
        `intersect, union, pred, label`: lists of exact integers.
    Raises:
        ValueError: not a name for each class.
    """
    count = len(areas["intersect"])
    classes = [str(index) for index in range(count)] if names is None else list(names)
    if len(classes) != count:
        raise ValueError(f"{len(classes)} class names for {count} classes")
    means = {
        "miou": miou(areas),
        "macc": macc(areas),
        "aacc": aacc(areas),
        "mfp": mean_fp(areas),
        "mfn": mean_fn(areas),
    }
    means |= {"mdice": _mean_percent(dice(areas)), "mfscore": _mean_percent(fscore(areas))}
    lists = {"iou": iou, "acc": acc, "dice": dice, "fscore": fscore, "precision": precision, "recall": recall}
    lists |= {"fp": false_positive, "fn": false_negative}
    return {
        **{key: number(value) for key, value in means.items()},
        "classes": classes,
        **{key: [number(value) for value in 100 * score(areas)] for key, score in lists.items()},
        **{key: [int(value) for value in areas[key]] for key in ("intersect", "union", "pred", "label")},
    }


def number(value: float) -> float | None:
    """A float for JSON, which has no NaN."""
    return None if np.isnan(value) else float(value)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    undefined = np.full(np.shape(part), np.nan)
    ratio: np.ndarray = np.divide(part, whole, out=undefined, where=np.asarray(whole) > 0)
    return ratio


def _mean_percent(values: np.ndarray) -> float:
    defined = values[~np.isnan(values)]
    return float(100 * defined.mean()) if len(defined) else float("nan")
