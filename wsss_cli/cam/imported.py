"""Scores that another tool has made of a photograph, put in the form of CAMs: those of the tagged classes alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from wsss_cli.cam.store import read_cam, write_cam
from wsss_cli.data.images import image_size
from wsss_cli.data.masks import read_mask
from wsss_cli.data.sources.instances import Span, read_span
from wsss_cli.data.sources.results import Instance
from wsss_cli.data.sources.shapes import covered_part
from wsss_cli.errors import DataError
from wsss_cli.labels import IGNORE
from wsss_cli.talk import sides

PRESENT = 0.5  # score above which a pixel says that a class is there
Kind = Literal["label maps", "scores", "results"]


@dataclass(frozen=True)
class ImportJob:
    """One photograph's scores; sent to a worker process.

    Attributes:
        labels: class indices of its tags.
        source: its file, or the file of results of all photographs.
        instances: those of the photograph, of results.
        out: the CAM file.
        classes: how many there are, background included.
        listed: height and width that the results say the photograph has.
    """

    id: str
    image: Path
    labels: tuple[int, ...]
    kind: Kind
    source: Path
    instances: tuple[Instance, ...]
    out: Path
    classes: int
    listed: tuple[int, int] | None = None


@dataclass(frozen=True)
class Imported:
    """What came of a photograph: classes that the source has there, of its tags and not, and tags that it lacks."""

    tagged: tuple[int, ...]
    untagged: tuple[int, ...]
    missing: tuple[int, ...]


def import_scores(job: ImportJob) -> Imported:
    """Read a photograph's scores, drop the classes that it is not tagged with, and write the rest as CAMs.

    Raises:
        DataError: the source cannot be read, has another size than the photograph, or a value that is no class.
    """
    cv2.setNumThreads(1)
    size = image_size(job.image)
    match job.kind:
        case "label maps":
            planes = _of_label_map(job, size)
        case "scores":
            planes = _of_scores(job, size)
        case _:
            planes = _of_instances(job, size)
    there = {label for label, plane in planes.items() if (plane > PRESENT).any()}
    empty = np.zeros(next(iter(planes.values())).shape if planes else size, np.float32)
    stack = [planes.get(label, empty) for label in job.labels]
    write_cam(job.out, np.stack(stack) if stack else np.zeros((0, *empty.shape), np.float32), job.labels, size)
    tags = set(job.labels)
    return Imported(tuple(sorted(there & tags)), tuple(sorted(there - tags)), tuple(sorted(tags - there)))


NUMBERS = "classes are numbered as in dataset.json: 0 is the background, then 1, 2, ..."


def _of_label_map(job: ImportJob, size: tuple[int, int]) -> dict[int, np.ndarray]:
    """1 where the map has the class, one half of every tagged class where it has 255, else 0."""
    mask = read_mask(job.source)
    _check_size(job, mask.shape, size)
    values = [int(value) for value in np.unique(mask)]
    outside = [value for value in values if value >= job.classes and value != IGNORE]
    if outside:
        raise DataError(
            f"{job.source} has the value {outside[0]}, which is no class: they are 0..{job.classes - 1} (and 255)",
            NUMBERS,
        )
    unknown = np.float32(0.5) * (mask == IGNORE)
    planes = {value: (mask == value) + unknown for value in values if value not in (0, IGNORE)}
    if unknown.any():
        planes = dict.fromkeys(job.labels, unknown) | planes
    return planes


def _of_scores(job: ImportJob, size: tuple[int, int]) -> dict[int, np.ndarray]:
    cam, classes, made_for = read_cam(job.source)
    _check_size(job, made_for, size)
    if any(not 0 < index < job.classes for index in classes):
        raise DataError(f"{job.source} has a map of a class that is not in 1..{job.classes - 1}", NUMBERS)
    return dict(zip(classes, cam, strict=True))


def _of_instances(job: ImportJob, size: tuple[int, int]) -> dict[int, np.ndarray]:
    """Of each class the highest score of an instance at the pixel; of equal ones the smaller instance is in front."""
    _check_size(job, job.listed or size, size)
    planes: dict[int, np.ndarray] = {}
    areas: dict[int, np.ndarray] = {}  # of the instance that the score is of
    entries = read_span(job.source, [Span(one.label, False, one.start, one.end) for one in job.instances])
    for one, entry in zip(job.instances, entries, strict=True):
        if one.label not in planes:
            planes[one.label], areas[one.label] = np.zeros(size, np.float32), np.zeros(size, np.int32)
        plane, area = planes[one.label].reshape(-1), areas[one.label].reshape(-1)
        try:
            top, left, part = covered_part(entry, *size)
        except DataError as error:
            raise DataError(f"{job.source}: {error.message}") from error
        rows, columns = np.nonzero(part)
        pixels = (rows + top) * size[1] + columns + left
        score, before = np.float32(one.score), plane[pixels]
        equal = np.where(before == score, np.minimum(area[pixels], len(pixels)), area[pixels])
        area[pixels] = np.where(before < score, len(pixels), equal)
        plane[pixels] = np.maximum(before, score)
    tagged = [label for label in job.labels if label in planes]
    if len(tagged) > 1:
        _hide_larger([planes[label] for label in tagged], [areas[label] for label in tagged])
    return planes


def _hide_larger(planes: list[np.ndarray], areas: list[np.ndarray]) -> None:
    """Where several classes share the highest score, only that of the smallest instance keeps it; in place."""
    highest = np.max(planes, axis=0)
    shared = [np.where(plane == highest, area, np.inf) for plane, area in zip(planes, areas, strict=True)]
    smallest = np.min(shared, axis=0)
    for plane, area in zip(planes, shared, strict=True):
        plane[(plane == highest) & (area > smallest)] = 0


def _check_size(job: ImportJob, made_for: tuple[int, ...], size: tuple[int, int]) -> None:
    if tuple(made_for) != size:
        raise DataError(
            f"{job.source} is {sides(made_for)}, its photograph is {sides(size)}",
            "scores have the size of the photograph as it is shown (EXIF applied)",
        )
