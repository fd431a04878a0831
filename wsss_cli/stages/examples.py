"""What a run shows of single images: CAM, pseudo mask, confidence, prediction, truth, what is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from wsss_cli.cam.store import read_cam, upsample
from wsss_cli.data.dataset import Dataset, Sample
from wsss_cli.data.images import read_image
from wsss_cli.data.masks import read_mask
from wsss_cli.errors import DataError
from wsss_cli.labels import IGNORE
from wsss_cli.report.pictures import ERRORS, error_map, grey_map, heatmap, overlay
from wsss_cli.stages.paths import cam_path, confidence_path, mask_path

SIDE = 640  # longest side of a picture
LOOKED_AT = 32


@dataclass(frozen=True)
class Sources:
    """Runs whose files of an image are shown; None: not shown."""

    cam: Path | None = None
    pseudo: Path | None = None


@dataclass
class Example:
    """Pictures of one image.

    Attributes:
        title: id and tags.
        note: a score, or why it is shown.
        shots: (title, RGB uint8 [H, W, 3]), the image first.
        missing: what could not be read of it.
    """

    title: str
    note: str = ""
    shots: list[tuple[str, np.ndarray]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def example(
    sample: Sample, dataset: Dataset, sources: Sources, prediction: np.ndarray | None = None, note: str = ""
) -> Example:
    """The pictures of an image; what cannot be read of it is named in place of being shown.

    Args:
        prediction: a label map, uint8 [H, W].
    """
    tags = ", ".join(dataset.classes[label] for label in sample.labels) or "no tag"
    shown = Example(f"{sample.id} ({tags})", note)
    try:
        image = read_image(sample.image)
    except DataError as error:
        shown.missing.append(error.message)
        return shown
    scale = min(1.0, SIDE / max(image.shape[:2]))
    small = _resized(image, scale, cv2.INTER_AREA)
    shown.shots.append(("image", small))
    truth = _mask(sample.mask, shown) if sample.mask is not None else None
    mask = None
    if sources.cam is not None:
        _add_cam(shown, cam_path(sources.cam, sample.id), small)
    if sources.pseudo is not None:
        mask = _mask(mask_path(sources.pseudo, sample.id), shown)
        if mask is not None:
            shown.shots.append(("pseudo mask", overlay(small, mask, dataset.colors)))
        confidence = confidence_path(sources.pseudo, sample.id)
        if confidence.is_file() and (sure := _mask(confidence, shown)) is not None:
            shown.shots.append(("confidence", _resized(grey_map(sure), small.shape[1] / sure.shape[1])))
    if prediction is not None:
        shown.shots.append(("prediction", overlay(small, prediction, dataset.colors)))
    if truth is not None:
        shown.shots.append(("truth", overlay(small, truth, dataset.colors)))
    judged = prediction if prediction is not None else mask
    if truth is not None and judged is not None:
        if judged.shape == truth.shape:
            shown.shots.append(("errors", error_map(small, judged, truth)))
        else:
            shown.missing.append(
                f"the truth is of another size than the {'mask' if prediction is None else 'prediction'}"
            )
    return shown


def _add_cam(shown: Example, path: Path, image: np.ndarray) -> None:
    try:
        maps, _, _ = read_cam(path)
    except DataError as error:
        shown.missing.append(error.message)
        return
    size = image.shape[:2]
    planes = upsample(maps, size)
    strongest = planes.max(axis=0) if len(planes) else np.zeros(size, np.float32)
    shown.shots.append(("CAM", heatmap(image, strongest)))


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
    count = min(count, len(samples))
    return [samples[(2 * place + 1) * len(samples) // (2 * count)] for place in range(count)]


def shares(mask: np.ndarray, num_classes: int) -> np.ndarray:
    """Share of the decided pixels that each class has, float64 [K]; zeros where nothing is decided."""
    counts = np.bincount(mask[mask != IGNORE].ravel(), minlength=num_classes)[:num_classes]
    total = counts.sum()
    return counts / total if total else counts.astype(np.float64)


def legend_of(dataset: Dataset, examples: Iterable[Example]) -> list[tuple[str, str]]:
    """(name, colour) of what examples show: the classes, and the colours of the error map where there is one."""
    entries = [
        (name, f"rgb({r},{g},{b})") for name, (r, g, b) in zip(dataset.classes[1:], dataset.colors[1:], strict=True)
    ]
    if any(title == "errors" for one in examples for title, _ in one.shots):
        entries += [
            (name, f"rgb({r},{g},{b})")
            for name, (r, g, b) in zip(("errors: missed", "false", "wrong class"), ERRORS, strict=True)
        ]
    return entries
