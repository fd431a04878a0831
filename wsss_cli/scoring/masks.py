"""Score masks against true masks, in worker processes. Nothing here loads torch."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from wsss_cli.data.masks import check_values, read_mask
from wsss_cli.data.sources.foreign import in_place_of_pngs
from wsss_cli.data.sources.mask_checks import say_swapped
from wsss_cli.errors import DataError
from wsss_cli.files import pngs_below
from wsss_cli.labels import IGNORE
from wsss_cli.processes import Check, check_stop
from wsss_cli.scoring.by_image import ClassAreas, class_areas
from wsss_cli.scoring.counts import Counts
from wsss_cli.scoring.pieces import Progress, check_same_size, in_pieces

if TYPE_CHECKING:
    from wsss_cli.data.dataset import Sample

Undecided = Literal["background", "drop", "as-is"]

POLICIES = {
    "background": "predicted 255 counts as background",
    "drop": "predicted 255 is not scored, which flatters",
    "as-is": "predicted 255 counts as no class",
}


def score_masks(
    pred_dir: str | Path,
    truth: str | Path | Sequence[Sample],
    num_classes: int,
    *,
    check: Check,
    undecided: Undecided = "background",
    boundary: bool = False,
    names: Sequence[str] | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score a folder of masks.

    Args:
        pred_dir: PNGs of class indices; 255 is undecided. Files that the truth does not ask for are left out.
        truth: a folder of PNGs with the same names, or the samples of a split; 255 is not scored.
        check: looks at a stop flag: called after each few images and at least once a second; what it raises goes up.
        undecided: what a predicted 255 is: 'background' (IRN), 'drop' for not scored (ToCo; flatters), or 'as-is' for
            outside all classes.
        boundary: also Boundary IoU.
        names: class names, background first.
        workers: processes; a few images are scored in this one.
        progress: called with the number of images scored since its last call; an exception from it ends the work.
    Returns:
        `Counts.scores`, and `images`; `extra`, predictions left out; `undecided_share` of the scored pixels;
        `unscored_share` of all pixels, those that are 255 in the truth; `protocol`, one line.
    Raises:
        DataError: no truth, predictions missing, a mask that cannot be read or holds other values than those of the
            classes and 255, or sizes that differ.
    """
    pairs, extra = pair_masks(pred_dir, truth)
    for files in zip(*pairs, strict=True):
        say_swapped(files)
    how: dict[str, Any] = {"names": names, "workers": workers, "progress": progress}
    scores = score_pairs(pairs, num_classes, check=check, undecided=undecided, boundary=boundary, **how)
    return {**scores, "extra": extra}


def score_pairs(
    pairs: Sequence[tuple[Path, Path]],
    num_classes: int,
    *,
    check: Check,
    undecided: Undecided = "background",
    boundary: bool = False,
    names: Sequence[str] | None = None,
    workers: int = 1,
    progress: Progress | None = None,
    each: list[ClassAreas] | None = None,
) -> dict[str, Any]:
    """`score_masks` for (prediction, truth) files that are known; without `extra`. `each` gets the areas of a pair."""
    how: dict[str, Any] = {"undecided": undecided, "boundary": boundary, "each": each is not None}
    work = functools.partial(_score_pairs, num_classes=num_classes, **how)
    counts, pixels = Counts(num_classes, boundary), np.zeros(3, np.int64)
    for part, part_pixels, areas in in_pieces(work, pairs, workers, check, progress):
        counts.merge(part)
        pixels += part_pixels
        if each is not None:
            each += areas
    undecided_pixels, scored_pixels, all_pixels = pixels.tolist()
    protocol = f"masks, {len(pairs):,} images; true 255 is not scored; {POLICIES[undecided]}"
    return {
        **counts.scores(names),
        "images": len(pairs),
        "undecided_share": undecided_pixels / max(scored_pixels, 1),
        "unscored_share": 1 - scored_pixels / max(all_pixels, 1),
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
                f"images without a true mask: {len(without)} of {len(truth)}, the first is '{without[0]}'",
                "scores need true masks: choose a split that has them",
            )
        true_masks, where = {sample.id: sample.mask for sample in truth if sample.mask}, "the split"
    if not true_masks:
        lies, hint = in_place_of_pngs(Path(truth)) if isinstance(truth, (str, Path)) else ("", "")
        form = "give a folder of PNGs whose pixels are class indices"
        raise DataError(f"there are no true masks in {where}{lies}", f"{hint}; {form}" if hint else form)
    predictions = _pngs(Path(pred_dir))
    if not predictions:
        lies, hint = in_place_of_pngs(Path(pred_dir))
        named = "masks are PNGs named like the true ones, CAMs .npz files as wsss cam writes them"
        raise DataError(f"there is no mask (.png) in {pred_dir}{lies}", f"{hint}; {named}" if hint else named)
    missing = [key for key in true_masks if key not in predictions]
    if len(missing) == len(true_masks):
        raise DataError(
            f"no mask in {pred_dir} has the name of a true one: such as {next(iter(predictions))}.png, where the true "
            f"ones are such as {missing[0]}.png",
            "a prediction is named like its true mask: rename one of them",
        )
    if missing:
        raise DataError(
            f"{len(missing)} of {len(true_masks)} images have no prediction in {pred_dir}, the first: {missing[0]}.png",
            "predict them too, or score against the masks of the predicted images only",
        )
    return [(predictions[key], mask) for key, mask in true_masks.items()], len(predictions) - len(true_masks)


def _pngs(folder: Path) -> dict[str, Path]:
    """PNGs of a folder and below by name without suffix, sorted; none of hidden folders, nor macOS's ._NAME."""
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}", "check the path")
    from wsss_cli.engine.records import namer  # here: worker processes do without

    name = namer(folder)
    files = (folder / one for one in sorted(pngs_below(folder), key=lambda one: one.split("/")))
    return {name(file): file for file in files}


def _score_pairs(
    pairs: list[tuple[Path, Path]], num_classes: int, undecided: Undecided, boundary: bool, each: bool
) -> tuple[Counts, np.ndarray, list[ClassAreas]]:
    """Of some (prediction, truth) files counts, how many pixels are undecided, scored, and there; with `each` areas."""
    counts, pixels, areas = Counts(num_classes, boundary), np.zeros(3, np.int64), []
    for pred_file, truth_file in pairs:
        check_stop()
        pred, truth = read_mask(pred_file), read_mask(truth_file)
        check_same_size(pred.shape, pred_file, truth.shape, truth_file)
        check_values(pred, num_classes, pred_file)
        check_values(truth, num_classes, truth_file)
        scored, blank = truth != IGNORE, pred == IGNORE
        pixels += np.array((np.count_nonzero(scored & blank), np.count_nonzero(scored), truth.size))
        if undecided == "background":
            pred[blank] = 0
        elif undecided == "drop":
            truth[blank] = IGNORE
        one = Counts(num_classes, boundary) if each else counts
        one.add(pred, truth)
        if each:
            counts.merge(one)
            areas.append(class_areas(one.confusion.matrix))
    return counts, pixels, areas
