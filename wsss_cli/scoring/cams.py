"""CAMs against true masks, at all background thresholds in one pass."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wsss_cli.data.masks import check_values, read_mask
from wsss_cli.errors import DataError
from wsss_cli.labels import IGNORE
from wsss_cli.metrics.confusion import Confusion
from wsss_cli.metrics.scores import iou, mean_fn, mean_fp, miou, number, summary
from wsss_cli.processes import Check, check_stop
from wsss_cli.rows import Each
from wsss_cli.scoring.pieces import Progress, check_same_size, in_pieces

THRESHOLDS = tuple(step / 100 for step in range(100))


class UnlabelledError(DataError):
    """True masks that are 255 everywhere: there is nothing to score against."""


def cam_curve(
    cam_files: Sequence[tuple[str | Path, str | Path]],
    num_classes: int,
    thresholds: Sequence[float] = THRESHOLDS,
    *,
    check: Check,
    names: Sequence[str] | None = None,
    split: str = "",
    workers: int = 1,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score CAMs at all background thresholds in one pass.

    At a threshold t a pixel is given the tagged class with the highest score, if that is above t, and otherwise the
    background. CAMs are brought to image size bilinearly.

    Args:
        cam_files: (CAM, true mask) of each image.
        thresholds: ascending, in [0, 1).
        split: what was scored, for the protocol line.
        check, names, workers, progress: as for `score_masks`.
    Returns:
        `thresholds`; `miou`, `fp`, `fn` at each, per cent, the latter two means over the foreground; `best_threshold`
        and the `summary` there as `best`; `class_thresholds`, where each class has its best IoU, None for the
        background and for a class without any; `images`; `unscored_share` of all pixels, those that are 255 in the
        truth; `protocol`, one line.
    Raises:
        DataError: no files, a file that cannot be read, sizes that differ, or a class outside the classes.
        UnlabelledError: no pixel of the true masks has a label.
    """
    if not cam_files:
        raise DataError("there are no CAMs to score", "run `wsss cam` on a split that has true masks")
    steps = np.asarray(thresholds, np.float32)
    pairs = Each(cam_files, _as_paths)
    work = functools.partial(_cam_histogram, num_classes=num_classes, thresholds=steps)
    counts, pixels = np.zeros((num_classes + 1, num_classes, len(steps) + 1), np.int64), 0
    for part, part_pixels in in_pieces(work, pairs, workers, check, progress):
        counts += part
        pixels += part_pixels
    areas = [at.areas() for at in _confusions(counts)]
    means = [number(miou(at)) for at in areas]
    known = [-1.0 if value is None else value for value in means]
    best = int(np.argmax(known))
    if known[best] < 0:
        raise UnlabelledError("no pixel of the true masks has a label", "give masks that are not 255 everywhere")
    return {
        "thresholds": [float(value) for value in thresholds],
        "miou": means,
        "fp": [number(mean_fp(at)) for at in areas],
        "fn": [number(mean_fn(at)) for at in areas],
        "best_threshold": float(thresholds[best]),
        "best": summary(areas[best], names),
        "class_thresholds": [None, *_class_thresholds(areas, thresholds)],
        "images": len(pairs),
        "unscored_share": 1 - int(counts.sum()) / max(pixels, 1),
        "protocol": f"{split or 'CAMs'}, {len(pairs):,} images; true 255 is not scored; "
        f"background threshold {thresholds[best]:.2f} is the best of {len(steps)} on these same images",
    }


def _as_paths(pair: tuple[str | Path, str | Path]) -> tuple[Path, Path]:
    return Path(pair[0]), Path(pair[1])


def _class_thresholds(areas: Sequence[dict[str, np.ndarray]], thresholds: Sequence[float]) -> list[float | None]:
    """The threshold at which each foreground class has its highest IoU; that of a class depends on no other's."""
    each = np.nan_to_num(np.stack([iou(at)[1:] for at in areas]))
    best = each.argmax(axis=0)
    return [float(thresholds[step]) if each[step, index] > 0 else None for index, step in enumerate(best)]


def _cam_histogram(pairs: list[tuple[Path, Path]], num_classes: int, thresholds: np.ndarray) -> tuple[np.ndarray, int]:
    """Scored pixels, int64 [K+1, K, T+1], of truth, best tagged class, and thresholds below its score; all pixels."""
    from wsss_cli.cam.store import read_cam, upsample

    bins = len(thresholds) + 1
    counts, pixels = np.zeros((num_classes + 1, num_classes, bins), np.int64), 0
    for cam_file, truth_file in pairs:
        check_stop()
        cams, classes, (height, width) = read_cam(cam_file)
        truth = read_mask(truth_file)
        check_same_size((height, width), cam_file, truth.shape, truth_file)
        check_values(truth, num_classes, truth_file)
        pixels += truth.size
        outside = [index for index in classes if not 0 < index < num_classes]
        if outside:
            raise DataError(
                f"{cam_file} has a CAM of class {outside[0]}, which is not in 1..{num_classes - 1}",
                "score it with the data set that it was made from",
            )
        best, score = np.zeros((height, width), np.intp), np.zeros((height, width), np.float32)
        for index, plane in enumerate(upsample(cams, (height, width))):
            best[plane > score] = index
            np.maximum(score, plane, out=score)
        scored = truth != IGNORE
        row = np.minimum(truth[scored].astype(np.intp), num_classes)
        below = np.searchsorted(thresholds, score[scored], side="left")
        local = max(len(classes), 1)  # without a tag all is background: score 0 is above no threshold
        cell = (row * local + best[scored]) * bins + below
        counted = np.bincount(cell, minlength=(num_classes + 1) * local * bins).reshape(num_classes + 1, local, bins)
        counts[:, list(classes) or [0]] += counted
    return counts, pixels


def _confusions(counts: np.ndarray) -> Iterator[Confusion]:
    """The confusion at each threshold, from the counts of `_cam_histogram`."""
    above = counts[..., ::-1].cumsum(axis=2)[..., ::-1]
    total = counts.sum(axis=(1, 2))
    for step in range(counts.shape[2] - 1):
        confusion = Confusion(counts.shape[1])
        confusion.matrix[:, 1:-1] = above[:, 1:, step + 1]
        confusion.matrix[:, 0] = total - confusion.matrix[:, 1:-1].sum(axis=1)
        yield confusion
