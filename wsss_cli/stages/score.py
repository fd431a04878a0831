"""Score masks and CAMs against true masks, in worker processes. Nothing here loads torch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from wsss_cli.data.dataset import Sample
from wsss_cli.data.masks import IGNORE, read_mask
from wsss_cli.errors import DataError
from wsss_cli.metrics.boundary import Boundary
from wsss_cli.metrics.confusion import Confusion, size_text
from wsss_cli.metrics.scores import iou, mean_fn, mean_fp, miou, number, summary
from wsss_cli.processes import in_processes

Undecided = Literal["background", "drop", "as-is"]
Progress = Callable[[int], object]
T = TypeVar("T")

THRESHOLDS = tuple(step / 100 for step in range(100))
POLICIES = {
    "background": "predicted 255 counts as background",
    "drop": "predicted 255 is not scored, which flatters",
    "as-is": "predicted 255 counts as no class",
}


class Counts:
    """What is counted of a set of predictions: the confusion and, where asked for, what lies close to contours."""

    def __init__(self, num_classes: int, boundary: bool = False) -> None:
        self.confusion = Confusion(num_classes)
        self.boundary = Boundary(num_classes) if boundary else None

    def add(self, pred: np.ndarray, truth: np.ndarray) -> None:
        """Count one image: class indices, uint8 [H, W] each; 255 in the truth is not scored."""
        self.confusion.add(pred, truth, IGNORE)
        if self.boundary:
            self.boundary.add(pred, truth, IGNORE)

    def merge(self, other: Counts) -> None:
        """Add the counts of another one."""
        self.confusion.merge(other.confusion)
        if self.boundary and other.boundary:
            self.boundary.merge(other.boundary)

    def state(self) -> dict[str, Any]:
        """The counts as JSON holds them."""
        made: dict[str, Any] = {"confusion": self.confusion.matrix.tolist()}
        if self.boundary:
            made |= {"intersect": self.boundary.intersect.tolist(), "union": self.boundary.union.tolist()}
        return made

    def load_state(self, state: dict[str, Any]) -> None:
        """Take the counts of `state` in place of those counted so far."""
        self.confusion.matrix = np.array(state["confusion"], np.int64)
        if self.boundary:
            self.boundary.intersect = np.array(state["intersect"], np.int64)
            self.boundary.union = np.array(state["union"], np.int64)

    def scores(self, names: Sequence[str] | None = None) -> dict[str, Any]:
        """`metrics.scores.summary`; `confusion`, [K+1][K+1]; `biou` of each class and `mbiou`, per cent, if counted."""
        found = {**summary(self.confusion.areas(), names), "confusion": self.confusion.matrix.tolist()}
        if self.boundary:
            each = 100 * self.boundary.iou()
            found["biou"] = [number(value) for value in each]
            found["mbiou"] = number(float(np.nanmean(each))) if not np.isnan(each).all() else None
        return found


def score_masks(
    pred_dir: str | Path,
    truth: str | Path | Sequence[Sample],
    num_classes: int,
    *,
    undecided: Undecided = "background",
    boundary: bool = False,
    names: Sequence[str] | None = None,
    split: str = "",
    workers: int = 1,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score a folder of masks.

    Args:
        pred_dir: PNGs of class indices; 255 is undecided. Files that the truth does not ask for are left out.
        truth: a folder of PNGs with the same names, or the samples of a split; 255 is not scored.
        undecided: what a predicted 255 is: 'background' (IRN), 'drop' for not scored (ToCo; flatters), or 'as-is' for
            outside all classes.
        boundary: also Boundary IoU.
        names: class names, background first.
        split: what was scored, for the protocol line.
        workers: processes; a few images are scored in this one.
        progress: called with the number of images scored since its last call; an exception from it ends the work.
    Returns:
        `Counts.scores`, and `images`; `extra`, predictions left out; `undecided_share` of the scored pixels;
        `out_of_range`, scored pixels whose `truth` or `pred` is outside the classes; `protocol`, one line.
    Raises:
        DataError: no truth, predictions missing, a mask that cannot be read, or sizes that differ.
    """
    pairs, extra = pair_masks(pred_dir, truth)
    work = functools.partial(_score_pairs, num_classes=num_classes, undecided=undecided, boundary=boundary)
    counts, undecided_pixels, scored_pixels = Counts(num_classes, boundary), 0, 0
    for part, part_undecided, part_scored in _sweep(work, pairs, workers, progress):
        counts.merge(part)
        undecided_pixels += part_undecided
        scored_pixels += part_scored
    matrix = counts.confusion.matrix
    outside = {"truth": int(matrix[-1].sum()), "pred": int(matrix[:, -1].sum())}
    protocol = f"{split or 'masks'}, {len(pairs):,} images; true 255 is not scored; {POLICIES[undecided]}"
    if outside["truth"]:
        protocol += f"; {outside['truth']:,} true pixels lie outside the {num_classes} classes"
    return {
        **counts.scores(names),
        "images": len(pairs),
        "extra": extra,
        "undecided_share": undecided_pixels / max(scored_pixels, 1),
        "out_of_range": outside,
        "protocol": protocol,
    }


def pair_masks(pred_dir: str | Path, truth: str | Path | Sequence[Sample]) -> tuple[list[tuple[Path, Path]], int]:
    """The (prediction, truth) files that go together by name, in the order of the truth, and the number of others.

    Raises:
        DataError: a folder is missing, there is no truth, or a truth has no prediction.
    """
    if isinstance(truth, (str, Path)):
        true_masks, where = _pngs(Path(truth)), str(truth)
    else:
        without = [sample.id for sample in truth if sample.mask is None]
        if without:
            raise DataError(
                f"{len(without)} of {len(truth)} images have no true mask, the first is '{without[0]}'",
                "scores need true masks: choose a split that has them",
            )
        true_masks, where = {sample.id: sample.mask for sample in truth if sample.mask}, "the split"
    if not true_masks:
        raise DataError(f"there are no true masks in {where}", "give a folder of PNGs whose pixels are class indices")
    predictions = _pngs(Path(pred_dir))
    missing = [key for key in true_masks if key not in predictions]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(true_masks)} images have no prediction in {pred_dir}, the first: {missing[0]}.png",
            "predict them too, or score against the masks of the predicted images only",
        )
    return [(predictions[key], mask) for key, mask in true_masks.items()], len(predictions) - len(true_masks)


def cam_curve(
    cam_files: Sequence[tuple[str | Path, str | Path]],
    num_classes: int,
    thresholds: Sequence[float] = THRESHOLDS,
    *,
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
        names, split, workers, progress: as for `score_masks`.
    Returns:
        `thresholds`; `miou`, `fp`, `fn` at each, per cent, the latter two means over the foreground; `best_threshold`
        and the `summary` there as `best`; `class_thresholds`, where each class has its best IoU, None for the
        background and for a class without any; `images`; `protocol`, one line.
    Raises:
        DataError: no files, a file that cannot be read, sizes that differ, a class outside the classes, or no labelled
            pixel.
    """
    if not cam_files:
        raise DataError("there are no CAMs to score", "run `wsss cam` on a split that has true masks")
    steps = np.asarray(thresholds, np.float32)
    pairs = [(Path(cam), Path(mask)) for cam, mask in cam_files]
    work = functools.partial(_cam_histogram, num_classes=num_classes, thresholds=steps)
    counts = sum(
        _sweep(work, pairs, workers, progress), np.zeros((num_classes + 1, num_classes, len(steps) + 1), np.int64)
    )
    areas = [at.areas() for at in _confusions(counts)]
    means = [number(miou(at)) for at in areas]
    known = [-1.0 if value is None else value for value in means]
    best = int(np.argmax(known))
    if known[best] < 0:
        raise DataError("no pixel of the true masks has a label", "give masks that are not 255 everywhere")
    return {
        "thresholds": [float(value) for value in thresholds],
        "miou": means,
        "fp": [number(mean_fp(at)) for at in areas],
        "fn": [number(mean_fn(at)) for at in areas],
        "best_threshold": float(thresholds[best]),
        "best": summary(areas[best], names),
        "class_thresholds": [None, *_class_thresholds(areas, thresholds)],
        "images": len(pairs),
        "protocol": f"{split or 'CAMs'}, {len(pairs):,} images; true 255 is not scored; "
        f"background threshold {thresholds[best]:.2f} is the best of {len(steps)} on these same images",
    }


def _class_thresholds(areas: Sequence[dict[str, np.ndarray]], thresholds: Sequence[float]) -> list[float | None]:
    """The threshold at which each foreground class has its highest IoU; that of a class depends on no other's."""
    each = np.nan_to_num(np.stack([iou(at)[1:] for at in areas]))
    best = each.argmax(axis=0)
    return [float(thresholds[step]) if each[step, index] > 0 else None for index, step in enumerate(best)]


def _pngs(folder: Path) -> dict[str, Path]:
    """PNGs of a folder and below by name without suffix, sorted."""
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}", "check the path")
    files = (file for file in folder.rglob("*") if file.suffix.lower() == ".png" and not file.name.startswith("."))
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in sorted(files)}


def _score_pairs(
    pairs: list[tuple[Path, Path]], num_classes: int, undecided: Undecided, boundary: bool
) -> tuple[Counts, int, int]:
    """Counts of some (prediction, truth) files, undecided pixels and scored pixels."""
    counts, undecided_pixels, scored_pixels = Counts(num_classes, boundary), 0, 0
    for pred_file, truth_file in pairs:
        pred, truth = read_mask(pred_file), read_mask(truth_file)
        _same_size(pred.shape, pred_file, truth.shape, truth_file)
        scored, blank = truth != IGNORE, pred == IGNORE
        scored_pixels += int(scored.sum())
        undecided_pixels += int((scored & blank).sum())
        if undecided == "background":
            pred[blank] = 0
        elif undecided == "drop":
            truth[blank] = IGNORE
        counts.add(pred, truth)
    return counts, undecided_pixels, scored_pixels


def _cam_histogram(pairs: list[tuple[Path, Path]], num_classes: int, thresholds: np.ndarray) -> np.ndarray:
    """Pixel counts int64 [K+1, K, T+1] of truth, best tagged class, and number of thresholds below its score."""
    from wsss_cli.cam.store import read_cam, upsample

    bins = len(thresholds) + 1
    counts = np.zeros((num_classes + 1, num_classes, bins), np.int64)
    for cam_file, truth_file in pairs:
        cams, classes, (height, width) = read_cam(cam_file)
        truth = read_mask(truth_file)
        _same_size((height, width), cam_file, truth.shape, truth_file)
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
        found = np.bincount(cell, minlength=(num_classes + 1) * local * bins).reshape(num_classes + 1, local, bins)
        counts[:, list(classes) or [0]] += found
    return counts


def _confusions(counts: np.ndarray) -> Iterator[Confusion]:
    """The confusion at each threshold, from the counts of `_cam_histogram`."""
    above = counts[..., ::-1].cumsum(axis=2)[..., ::-1]
    total = counts.sum(axis=(1, 2))
    for step in range(counts.shape[2] - 1):
        confusion = Confusion(counts.shape[1])
        confusion.matrix[:, 1:-1] = above[:, 1:, step + 1]
        confusion.matrix[:, 0] = total - confusion.matrix[:, 1:-1].sum(axis=1)
        yield confusion


def _same_size(size: tuple[int, ...], file: Path, truth_size: tuple[int, ...], truth_file: Path) -> None:
    if size != truth_size:
        raise DataError(
            f"{file} is {size_text(size)} and its true mask {truth_file} is {size_text(truth_size)} (height x width)",
            "both must have the size of the image",
        )


def _sweep(
    work: Callable[[list[tuple[Path, Path]]], T],
    items: list[tuple[Path, Path]],
    workers: int,
    progress: Progress | None,
) -> Iterator[T]:
    """`work` on pieces of `items`, in processes where it pays; results and the first error come in order."""
    size = max(1, min(32, len(items) // max(workers, 1)))
    pieces = [items[start : start + size] for start in range(0, len(items), size)]
    many = 2 if len(items) >= 32 else len(pieces) + 1  # to start processes takes longer than that
    for piece, made in zip(pieces, in_processes(work, pieces, workers, few=many), strict=True):
        yield made
        if progress:
            progress(len(piece))
