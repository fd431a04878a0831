"""What a run shows of single images: CAM, pseudo mask, confidence, prediction, truth, what is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from wsss_cli.cam.store import read_cam, upsample
from wsss_cli.data.dataset import Dataset, Sample
from wsss_cli.data.images import read_image
from wsss_cli.data.masks import read_mask
from wsss_cli.errors import DataError
from wsss_cli.escapes import visible
from wsss_cli.labels import IGNORE
from wsss_cli.report.pictures import (
    ERRORS,
    UNDECIDED_COLOR,
    Color,
    error_map,
    grey_map,
    heatmap,
    overlay,
    sheet,
)
from wsss_cli.stages.paths import cam_path, confidence_path, mask_path

SIDE = 640  # longest side of a picture
LOOKED_AT = 32
MAPS = 3  # CAMs of an image, one for each of its classes, that are shown
KINDS = ("image", "training", "CAM", "features", "pseudo mask", "confidence", "prediction", "truth", "errors")
"""Of pictures, in the order of their columns."""


@dataclass(frozen=True)
class Sources:
    """Runs whose files of an image are shown; None: not shown."""

    cam: Path | None = None
    pseudo: Path | None = None


class Shot(NamedTuple):
    """A picture of an image: one of `KINDS`, RGB uint8 [H, W, 3], and which of its kind, such as a class."""

    kind: str
    rgb: np.ndarray
    which: str = ""

    @property
    def title(self) -> str:
        return f"{self.kind}: {self.which}" if self.which else self.kind


@dataclass
class Example:
    """Pictures of one image.

    Attributes:
        title: id and tags.
        note: a score, or why it is shown.
        shots: the image first.
        missing: what could not be read of it.
        classes: indices of those that it is tagged with or that are drawn.
    """

    title: str
    note: str = ""
    shots: list[Shot] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    classes: set[int] = field(default_factory=set)

    def add(self, kind: str, image: np.ndarray, mask: np.ndarray, dataset: Dataset, which: str = "") -> None:
        """Add a label map, [H, W], over an image of its shape or smaller."""
        self.classes |= {int(index) for index in np.unique(mask)}
        self.shots.append(Shot(kind, overlay(image, mask, dataset.colors), which))


def titled(sample: Sample, dataset: Dataset, note: str = "") -> Example:
    """An example of an image that has no picture yet."""
    tags = ", ".join(dataset.classes[label] for label in sample.labels) or "no tag"
    return Example(f"{sample.id} ({tags})", note, classes=set(sample.labels))


def photograph(sample: Sample, shown: Example) -> np.ndarray | None:
    """The image as it is shown, RGB uint8 [H, W, 3], which becomes the first shot; None: it cannot be read."""
    try:
        image = read_image(sample.image)
    except DataError as error:
        shown.missing.append(error.message)
        return None
    small = _resized(image, min(1.0, SIDE / max(image.shape[:2])), cv2.INTER_AREA)
    shown.shots.append(Shot("image", small))
    return small


def example(
    sample: Sample, dataset: Dataset, sources: Sources, prediction: np.ndarray | None = None, note: str = ""
) -> Example:
    """The pictures of an image; what cannot be read of it is named in place of being shown.

    Args:
        prediction: a label map, uint8 [H, W].
    """
    shown = titled(sample, dataset, note)
    if (small := photograph(sample, shown)) is None:
        return shown
    truth = _mask(sample.mask, shown) if sample.mask is not None else None
    mask = None
    if sources.cam is not None:
        _add_cams(shown, cam_path(sources.cam, sample.id), small, dataset)
    if sources.pseudo is not None:
        mask = _mask(mask_path(sources.pseudo, sample.id), shown)
        if mask is not None:
            shown.add("pseudo mask", small, mask, dataset)
        confidence = confidence_path(sources.pseudo, sample.id)
        if confidence.is_file() and (sure := _mask(confidence, shown)) is not None:
            shown.shots.append(Shot("confidence", _resized(grey_map(sure), small.shape[1] / sure.shape[1])))
    if prediction is not None:
        shown.add("prediction", small, prediction, dataset)
    if truth is not None:
        shown.add("truth", small, truth, dataset)
    judged = prediction if prediction is not None else mask
    if truth is not None and judged is not None:
        if judged.shape == truth.shape:
            shown.shots.append(Shot("errors", error_map(small, judged, truth)))
        else:
            shown.missing.append(
                f"the truth is of another size than the {'mask' if prediction is None else 'prediction'}"
            )
    return shown


def _add_cams(shown: Example, path: Path, image: np.ndarray, dataset: Dataset) -> None:
    """The map of each class, those of the largest first; without any an empty one."""
    try:
        maps, classes, _ = read_cam(path)
    except DataError as error:
        shown.missing.append(error.message)
        return
    size = image.shape[:2]
    planes = upsample(maps, size)
    largest = np.argsort(-planes.sum(axis=(1, 2)), kind="stable")[:MAPS]
    for place in largest:
        named = dataset.classes[classes[place]] if classes[place] < dataset.num_classes else f"class {classes[place]}"
        shown.shots.append(Shot("CAM", heatmap(image, planes[place]), named))
    if not len(planes):
        shown.shots.append(Shot("CAM", heatmap(image, np.zeros(size, np.float32)), "no tag"))


def _mask(path: Path, shown: Example) -> np.ndarray | None:
    try:
        return read_mask(path)
    except DataError as error:
        shown.missing.append(error.message)
        return None


def _resized(image: np.ndarray, scale: float, how: int = cv2.INTER_AREA) -> np.ndarray:
    if scale == 1.0:
        return image
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return cv2.resize(image, size, interpolation=how)


def spread(samples: Sequence[Sample], count: int) -> list[Sample]:
    """Images from all over a list, those with several tags and with one, the same ones each time.

    They are chosen of `LOOKED_AT` times as many at most: a list may have millions.
    """
    some = _even(samples, LOOKED_AT * count)
    several = [sample for sample in some if len(sample.labels) > 1]
    others = [sample for sample in some if len(sample.labels) <= 1]
    half = min(len(several), count // 2)
    return [*_even(several, half), *_even(others, count - half)]


def _even(samples: Sequence[Sample], count: int) -> list[Sample]:
    return [samples[place] for place in evenly(len(samples), count)]


def evenly(length: int, count: int) -> list[int]:
    """Places all over a list, `count` at most."""
    count = min(count, length)
    return [(2 * place + 1) * length // (2 * count) for place in range(count)]


def shares(mask: np.ndarray, num_classes: int) -> np.ndarray:
    """Share of the decided pixels that each class has, float64 [K]; zeros where nothing is decided."""
    counts = np.bincount(mask[mask != IGNORE].ravel(), minlength=num_classes)[:num_classes]
    total = counts.sum()
    return counts / total if total else counts.astype(np.float64)


def legend_of(dataset: Dataset, examples: Iterable[Example]) -> list[tuple[str, Color]]:
    """(name, RGB) of what examples show: their classes, and the colours of the error map where there is one."""
    examples = list(examples)
    seen = set[int]().union(*(one.classes for one in examples))
    entries = [
        (name, color)
        for index, (name, color) in enumerate(zip(dataset.classes, dataset.colors, strict=True))
        if index and index in seen
    ]
    if IGNORE in seen:
        entries.append(("undecided", UNDECIDED_COLOR))
    if any(shot.kind == "errors" for one in examples for shot in one.shots):
        entries += zip(("errors: missed", "false", "wrong class"), ERRORS, strict=True)
    return entries


def examples_sheet(examples: Sequence[Example], dataset: Dataset, cell_height: int = 200) -> np.ndarray:
    """A sheet with a row for each example, a column for each kind of picture, the legend below.

    Returns:
        RGB, uint8 [H, W, 3].
    Raises:
        DataError: there is no picture; with the reason of the first example.
    """
    if not any(one.shots for one in examples):
        why = next((line for one in examples for line in one.missing), "there are no photographs")
        raise DataError(f"there is nothing to show: {why}")
    columns: list[str] = []
    for kind in KINDS:
        columns += [kind] * max(sum(shot.kind == kind for shot in one.shots) for one in examples)
    rows, captions, titles = [], [], []
    for one in examples:
        cells: list[np.ndarray | None] = [None] * len(columns)
        texts = [""] * len(columns)
        for kind in dict.fromkeys(columns):
            for place, shot in enumerate((shot for shot in one.shots if shot.kind == kind), columns.index(kind)):
                cells[place], texts[place] = shot.rgb, shot.which
        rows.append(cells)
        captions.append(texts)
        titles.append("   ".join(visible(text) for text in (one.title, one.note, *one.missing) if text))
    return sheet(rows, columns, titles, legend_of(dataset, examples), cell_height, captions)
