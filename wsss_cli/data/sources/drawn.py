"""Scribbles, points and boxes drawn from true masks, as annotators would give them: for tests and benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from scipy import ndimage

from wsss_cli.data.dataset import Sample
from wsss_cli.data.drawings.shapes import Shape
from wsss_cli.data.images import read_image
from wsss_cli.data.masks import read_mask
from wsss_cli.labels import IGNORE
from wsss_cli.processes import check_stop, cores, in_processes

Kind = Literal["masks", "scribbles", "points", "boxes"]
WIDTH = 3  # of a scribble, pixels
RADIUS = 2  # of a point
SMALLEST = 64  # pixels of a region that gets a scribble or a point
AWAY = 10  # pixels that the scribble of the background keeps from objects


def drawn(mask: np.ndarray, kind: Kind, seed: int) -> np.ndarray:
    """What an annotator would have given in place of a mask.

    masks: the mask. scribbles: the skeleton of each region of a class, 3 pixels wide, and the longest piece of that of
    the background at least 10 pixels away from any object. points: a disc of radius 2 in each region of a class, where
    it is furthest from its border, and one in the background. boxes: background outside the boxes of all regions,
    nothing said inside. Regions are connected by sides; those of fewer than 64 pixels get nothing but their box.

    Args:
        mask: class indices or 255, uint8 [H, W].
        seed: of where the background's point is.
    Returns:
        Class indices, 255 where nothing is said, uint8 [H, W].
    """
    if kind == "masks":
        return mask.copy()
    labels = np.full(mask.shape, IGNORE, np.uint8)
    objects = (mask != 0) & (mask != IGNORE)
    if kind == "boxes":
        labels[:] = 0
        labels[mask == IGNORE] = IGNORE
    for label in (int(value) for value in np.unique(mask[objects])):
        regions, count = ndimage.label(mask == label)
        for number, place in enumerate(ndimage.find_objects(regions, count), 1):
            region = regions[place] == number
            if kind == "boxes":
                labels[place] = IGNORE
            elif region.sum() >= SMALLEST:
                marks = _scribble(region) if kind == "scribbles" else _point(region)
                labels[place][marks & region] = label
    if kind != "boxes":
        far = ndimage.distance_transform_edt(mask == 0) > (AWAY if kind == "scribbles" else RADIUS)
        if far.sum() >= SMALLEST:
            marks = _longest(_skeleton(far)) if kind == "scribbles" else _somewhere(far, seed)
            labels[(_wide(marks) if kind == "scribbles" else marks) & far] = 0
    return labels


def drawn_on_masks(
    rows: Iterable[tuple[Sample, int]],
    kind: Kind,
    fill: Callable[[np.ndarray, Sequence[tuple[Shape, int]]], np.ndarray] | None = None,
) -> Iterator[tuple[Sample, Path, np.ndarray]]:
    """What `drawn` gives for the true masks of photographs.

    Args:
        rows: photographs that have one, each with its seed.
        fill: from a photograph, uint8 [H, W, 3], and its boxes to a label map, which takes a second: what tells of the
            inside of boxes.
    Returns:
        (photograph, its mask, class indices and 255, uint8 [H, W]), in order.
    Raises:
        DataError: a mask, or with `fill` a photograph, cannot be read.
    """
    work = partial(_drawn_on_mask, kind=kind, fill=fill)
    yield from in_processes(work, rows, cores() if fill else 1, check=check_stop)


def _drawn_on_mask(
    row: tuple[Sample, int], kind: Kind, fill: Callable[[np.ndarray, Sequence[tuple[Shape, int]]], np.ndarray] | None
) -> tuple[Sample, Path, np.ndarray]:
    sample, seed = row
    assert sample.mask is not None
    mask = read_mask(sample.mask)
    if fill is None:
        return sample, sample.mask, drawn(mask, kind, seed)
    labels = fill(read_image(sample.image), drawn_boxes(mask))
    return sample, sample.mask, np.where(mask == IGNORE, np.uint8(IGNORE), labels)


def drawn_boxes(mask: np.ndarray) -> list[tuple[Shape, int]]:
    """Boxes of all regions of a mask, uint8 [H, W], each with its class index; those of `drawn`."""
    boxes = []
    for label in (int(value) for value in np.unique(mask) if value not in (0, IGNORE)):
        for rows, columns in ndimage.find_objects(ndimage.label(mask == label)[0]):
            corners = np.array([[columns.start, rows.start], [columns.stop, rows.stop]], np.float64)
            boxes.append((Shape(f"{label}", "box", corners, "a box that was drawn"), label))
    return boxes


def _scribble(region: np.ndarray) -> np.ndarray:
    return _wide(_skeleton(np.pad(region, 1))[1:-1, 1:-1])


def _wide(lines: np.ndarray) -> np.ndarray:
    wide: np.ndarray = cv2.dilate(lines.astype(np.uint8), np.ones((WIDTH, WIDTH), np.uint8)) > 0
    return wide


def _point(region: np.ndarray) -> np.ndarray:
    depth = ndimage.distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
    return _disc(region.shape, np.unravel_index(int(depth.argmax()), region.shape))


def _somewhere(region: np.ndarray, seed: int) -> np.ndarray:
    rows, columns = np.nonzero(region)
    at = int(np.random.default_rng(seed).integers(len(rows)))
    inside: np.ndarray = _disc(region.shape, (rows[at], columns[at])) & region
    return inside


def _disc(shape: tuple[int, ...], middle: tuple[np.intp, ...]) -> np.ndarray:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    disc: np.ndarray = (rows - middle[0]) ** 2 + (columns - middle[1]) ** 2 <= RADIUS**2
    return disc


def _longest(lines: np.ndarray) -> np.ndarray:
    pieces, count = ndimage.label(lines, np.ones((3, 3)))
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    sizes[0] = 0
    longest: np.ndarray = (pieces == sizes.argmax()) & lines
    return longest


def _skeleton(region: np.ndarray) -> np.ndarray:
    """The lines in the middle of a region, one pixel wide, bool [H, W].

    Source: Zhang and Suen, A fast parallel algorithm for thinning digital patterns, 1984.
    """
    image = np.pad(region, 1).astype(np.uint8)
    changed = True
    while changed:
        changed = False
        for first in (True, False):
            p = [np.roll(image, shift, (0, 1)) for shift in RING]  # north, then clockwise
            count = sum(p)
            turns = sum((p[i] == 0) & (p[(i + 1) % 8] == 1) for i in range(8))
            north, east, south, west = p[0], p[2], p[4], p[6]
            corner = (
                (north * east * south == 0) & (east * south * west == 0)
                if first
                else (north * east * west == 0) & (north * south * west == 0)
            )
            gone = (image == 1) & (count >= 2) & (count <= 6) & (turns == 1) & corner
            gone[[0, -1]] = gone[:, [0, -1]] = False
            changed |= bool(gone.any())
            image[gone] = 0
    lines: np.ndarray = image[1:-1, 1:-1] > 0
    return lines


RING = ((1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1))
"""Rolls that bring the eight neighbours of a pixel to its place."""
