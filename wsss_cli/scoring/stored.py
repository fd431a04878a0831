"""eval.json, the scores of a run: read by all who show or use them, and refused where it was edited or is damaged."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsss_cli.engine.records import is_run, read_record
from wsss_cli.errors import DataError
from wsss_cli.files import read_json
from wsss_cli.talk import shell_word

if TYPE_CHECKING:
    from wsss_cli.data.dataset import Sample

FILE = "eval.json"
VIEWS = ("single", "ms_flip", "single_crf", "ms_flip_crf")  # of a network
PARTS = (*VIEWS, "best", "background", "drop")
BY_CLASS = ("iou", "acc", "dice", "fscore", "precision", "recall", "fp", "fn", "biou")
MEANS = ("miou", "macc", "aacc", "mdice", "mfscore", "mfp", "mfn", "mbiou", "unscored_share", "undecided_share")
CURVE = ("thresholds", "miou", "fp", "fn")


def read_scores(run: Path, *, whole: bool = False) -> dict[str, Any]:
    """What a run's eval.json says; empty: it has none.

    Args:
        whole: it must have all that the tables of a cam or pseudo run show.
    Raises:
        DataError: it is no JSON, or not of the form that it is written in.
    """
    file = run / FILE
    return read_scores_in(file, whole=whole) if file.is_file() else {}


def read_scores_in(file: Path, *, whole: bool = False) -> dict[str, Any]:
    """As `read_scores`, of a file that is there.

    Raises:
        DataError: as `read_scores`.
    """
    try:
        stored = read_json(file)
    except DataError as error:
        raise DataError(error.message, _again(file)) from error
    if fault := _fault(stored, whole=whole):
        raise DataError(f"{file} was edited, or is damaged: {fault}", _again(file))
    return dict(stored)


def _again(file: Path) -> str:
    """How to have scores that cannot be read made anew; a run of CAMs or masks is scored where it is finished."""
    run, split = file.parent, file.stem.removeprefix("eval").removeprefix("-")
    is_trained = (run / "checkpoints").is_dir()
    with contextlib.suppress(DataError):
        is_trained = is_trained or (is_run(run) and read_record(run).stage == "train")
    if is_trained:
        on = f" --split {shell_word(split)}" if split else ""
        return f"remove it, and score again: wsss eval {shell_word(run)} --ms-flip{on}"
    return "remove it and the run.json beside it, and run the command that made the run again: all else is kept"


def masks_stamp(samples: Iterable[Sample]) -> str:
    """Of the true masks of samples, as they lie on disk: another one where any has another size or time of change."""
    digest = hashlib.sha256()
    for sample in samples:
        if sample.mask is not None and sample.mask.is_file():
            status = sample.mask.stat()
            digest.update(f"{sample.id}\0{status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def masks_changed(file: Path, stored: Mapping[str, Any], samples: Iterable[Sample]) -> bool:
    """Whether true masks of samples are others than when scores were made.

    Args:
        file: of the scores.
        stored: what is in it; where that is of an earlier version, masks that are newer than the file are others.
        samples: of the split that it was scored on.
    """
    if before := stored.get("masks_stamp"):
        return bool(before != masks_stamp(samples))
    scored = file.stat().st_mtime_ns
    masks = [sample.mask for sample in samples]
    return any(mask is not None and mask.is_file() and mask.stat().st_mtime_ns > scored for mask in masks)


def read_measured(file: Path, *numbers: str) -> dict[str, Any]:
    """A record of measurements, bench.json say; empty: there is none.

    Args:
        numbers: keys whose values are numbers, or null.
    Raises:
        DataError: it is no JSON object, or one of them is no number.
    """
    if not file.is_file():
        return {}
    stored = read_json(file)
    wrong = [key for key in numbers if not _number(stored.get(key))] if isinstance(stored, dict) else []
    if not isinstance(stored, dict) or wrong:
        what = f"{wrong[0]} is no number" if wrong else "it is no JSON object"
        raise DataError(f"{file} was edited, or is damaged: {what}", "remove it, and measure again")
    return dict(stored)


def _fault(stored: Any, *, whole: bool) -> str:
    """What is wrong with the content of an eval.json; empty: nothing."""
    if not isinstance(stored, dict):
        return "it is no JSON object"
    for key in ("protocol", "classes"):
        if key in stored and not _texts(stored[key]) and not isinstance(stored[key], str):
            return f"{key} is no list of texts"
    lost = stored.get("lost", [])
    if not isinstance(lost, list) or not all(isinstance(one, dict) and "id" in one and "reason" in one for one in lost):
        return "lost is no list of images with their reasons"
    for part in PARTS:
        if part in stored and (fault := _part_fault(stored[part], whole=whole)):
            return f"{part}: {fault}"
    if "best_threshold" in stored and (stored["best_threshold"] is None or not _number(stored["best_threshold"])):
        return "best_threshold is no number"
    listed = [key for key in CURVE if key in stored]
    if len({len(stored[key]) if _numbers(stored[key]) else -1 - at for at, key in enumerate(listed)}) > 1:
        return f"{', '.join(listed)} are not lists of as many numbers"
    curve = {"best_threshold", *CURVE}
    if whole and "background" not in stored and "fg_threshold" not in stored and not curve <= stored.keys():
        return "it has no scores"
    if curve <= stored.keys() and "best" not in stored:
        return "best is missing"
    if whole and "background" in stored and not {"drop", "protocol"} <= stored.keys():
        return "drop or protocol is missing"
    return ""


def _part_fault(part: Any, *, whole: bool) -> str:
    if not isinstance(part, Mapping):
        return "it is no JSON object"
    lacking = [key for key in ("classes", "iou", "miou", "aacc") if key not in part]
    if lacking and whole:
        return f"{lacking[0]} is missing"
    classes = part.get("classes")
    if classes is not None and not _texts(classes):
        return "classes is no list of texts"
    for key in BY_CLASS:
        if key in part and not (_numbers(part[key]) and (classes is None or len(part[key]) == len(classes))):
            return f"{key} is no list of a number for each class"
    wrong = [key for key in MEANS if not _number(part.get(key))]
    return f"{wrong[0]} is no number" if wrong else ""


def _number(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and all(map(_number, value))


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)
