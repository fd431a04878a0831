"""Masks painted from annotations of instances, one by one, each with a hash that every PNG encoder gives alike."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from wsss_cli.data.images import stored_size, turn_upright
from wsss_cli.data.masks import read_mask, write_mask
from wsss_cli.data.sources.instances import Span, read_span
from wsss_cli.data.sources.shapes import paint
from wsss_cli.errors import DataError
from wsss_cli.files import write_text
from wsss_cli.processes import Check, in_processes

PAINTING = 1  # of the rule in `paint`; another rule makes masks anew
Colors = tuple[tuple[int, int, int], ...]
Look = tuple[tuple[int, int], int, str]  # size as stored, EXIF orientation, hash of the mask or empty
Tick = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class PaintJob:
    """A mask to make: its image, and where the image's annotations are in the JSON, each with its class index.

    Attributes:
        height, width: as listed in the JSON.
        orientation: EXIF orientation by which what is painted comes upright.
    """

    image: Path
    target: Path
    height: int
    width: int
    json: Path
    spans: tuple[Span, ...]
    labels: tuple[int, ...]
    orientation: int = 1

    @property
    def upright(self) -> tuple[int, int]:
        """Height and width as shown."""
        return (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)


def look_and_paint(job: PaintJob, colors: Colors) -> Look:
    """Size and EXIF orientation of a photograph, and the hash of its mask where it is not turned and fits its list."""
    size, orientation = stored_size(job.image)
    fits = orientation == 1 and size == (job.height, job.width)
    return size, orientation, make_mask(job, colors) if fits else ""


def paint_all(
    jobs: Sequence[PaintJob],
    digests: Sequence[str],
    folder: Path,
    colors: Colors,
    *,
    workers: int,
    check: Check,
    tick: Tick,
) -> str:
    """Make the masks that are not there, list all in manifest.txt, and return the SHA-256 of that list.

    Args:
        digests: hashes of masks that were made already; empty where one was not.
    """
    known = [digest if digest and job.target.is_file() else "" for job, digest in zip(jobs, digests, strict=True)]
    todo = [job for job, digest in zip(jobs, known, strict=True) if not digest]
    results = in_processes(partial(make_mask, colors=colors), todo, workers, check=check)
    lines = []
    for done, (job, digest) in enumerate(zip(jobs, known, strict=True), 1):
        lines.append(f"{job.target.stem} {digest or next(results)}\n")
        tick(done, len(jobs))
    text = "".join(sorted(lines))
    write_text(folder / "manifest.txt", text)
    return hashlib.sha256(text.encode()).hexdigest()


def make_mask(job: PaintJob, colors: Colors) -> str:
    """The hash of a job's mask, which is painted first unless a whole one is there.

    Raises:
        DataError: its annotations cannot be painted, or not be read any more.
    """
    there = _read_made(job)
    if there is not None:
        return mask_sha256(there)
    annotations = zip(read_span(job.json, job.spans), job.labels, strict=True)
    try:
        mask = paint(list(annotations), job.height, job.width)
    except DataError as error:
        raise DataError(f"{job.json}: {error.message}", error.hint) from error
    mask = turn_upright(mask, job.orientation)
    write_mask(job.target, mask, colors)
    return mask_sha256(mask)


def _read_made(job: PaintJob) -> np.ndarray | None:
    if not job.target.is_file():
        return None
    try:
        mask = read_mask(job.target)
    except DataError:
        return None  # damaged: it is made again
    return mask if mask.shape == job.upright else None


def mask_sha256(mask: np.ndarray) -> str:
    """SHA-256 of a mask's size and class indices: the same for every PNG encoder.

    What is hashed: height, 'x', width, a line feed in ASCII, then the pixels row by row, a byte each.
    """
    return hashlib.sha256(f"{mask.shape[0]}x{mask.shape[1]}\n".encode() + mask.tobytes()).hexdigest()
