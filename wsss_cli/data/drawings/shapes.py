"""Shapes of classes that were drawn on a photograph in some tool, and the label map that they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from pycocotools import mask as rle_of

from wsss_cli.data.sources.shapes import part_of
from wsss_cli.errors import DataError
from wsss_cli.labels import IGNORE
from wsss_cli.talk import counted

Form = Literal["mask", "polygon", "line", "point", "box"]
Size = tuple[int, int]
WIDTH = 3  # of a line, pixels
RADIUS = 2  # of a point
OVER = 2.0  # pixels that a shape may reach over the border of its photograph
UNDECIDED = "undecided"  # the label of 255 in tools that know names alone


@dataclass(frozen=True, slots=True)
class Shape:
    """A region, line, point or box.

    Attributes:
        label: as the file names it.
        points: x and y in pixels, finite, float64 [N, 2], N > 0; of a box two corners, of a mask its upper left one.
        where: it stands in the file, for messages.
        pixels: of a mask, bool [h, w]; the part of the photograph that has it is enough.
    Raises:
        DataError: the label is no text, or points are no numbers.
    """

    label: str
    form: Form
    points: np.ndarray
    where: str
    pixels: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.label, str):
            raise DataError(f"{self.where} has the label {self.label!r}", "labels are names of classes")
        if not self.points.size or not np.isfinite(self.points).all():
            raise DataError(
                f"{self.where}: a {self.form} without points, or whose points are no numbers", "draw it anew"
            )


@dataclass(frozen=True, slots=True)
class Drawing:
    """What was drawn on a photograph.

    Attributes:
        image: as the file names it.
        size: height and width that the file says it has; None: it does not say.
        shapes: what lies on top last.
        where: it stands in the file, for messages.
    """

    image: str
    size: Size | None
    shapes: tuple[Shape, ...]
    where: str


def in_words(error: Exception) -> str:
    """What keeps a file from being read, of what Python says where a key is missing or a value is none that fits."""
    if isinstance(error, KeyError):
        return f"it has no {error.args[0]}"
    if isinstance(error, (TypeError, AttributeError)):
        return "a value in it is of another kind"
    said = str(error)
    return f"{said.rpartition(': ')[2]} is no number" if said.startswith(("could not convert", "invalid lit")) else said


def label_map(shapes: Sequence[tuple[Shape, int]], size: Size, blank: int) -> np.ndarray:
    """The label map of shapes; of two that overlap the later one lies on top, and 255 under all others.

    Args:
        shapes: each with its class index, or 255.
        size: height and width of the photograph.
        blank: what it is where nothing is drawn.
    Returns:
        Class indices and 255, uint8 [H, W].
    Raises:
        DataError: a shape is none, or leaves the photograph.
    """
    labels = np.full(size, blank, np.uint8)
    for shape, label in sorted(shapes, key=lambda one: one[1] != IGNORE):
        if shape.form in ("mask", "polygon"):  # of which a photograph may have thousands
            rows, columns, pixels = _part(shape, size)
            labels[rows, columns][pixels] = label
        else:
            labels[covered_by(shape, size)] = label
    return labels


def covered_by(shape: Shape, size: Size) -> np.ndarray:
    """The pixels of a shape, bool [H, W].

    A polygon is rasterised by pycocotools. A line goes through the pixels that its points lie in and is 3 pixels wide,
    a point is a disc of radius 2, a box holds all pixels that it touches.

    Raises:
        DataError: it leaves the photograph, or is a polygon of fewer than three points.
    """
    height, width = size
    x, y = shape.points.reshape(-1, 2).T
    refuse_outside(shape.points, size, f"{shape.where}: a {shape.form}")
    canvas = np.zeros(size, np.uint8)
    columns, rows = np.clip(np.floor(x), 0, width - 1).astype(int), np.clip(np.floor(y), 0, height - 1).astype(int)
    if shape.form in ("mask", "polygon"):
        rows_of_it, columns_of_it, pixels = _part(shape, size)
        canvas[rows_of_it, columns_of_it] = pixels
    elif shape.form == "line":
        canvas[rows, columns] = 1  # a line of one point is a click
        cv2.polylines(canvas, [np.stack([columns, rows], 1).astype(np.int32)], False, 1)
        canvas[:] = cv2.dilate(canvas, np.ones((WIDTH, WIDTH), np.uint8))
    elif shape.form == "point":
        down, across = np.ogrid[:height, :width]
        for row, column in zip(rows, columns, strict=True):
            canvas |= ((down - row) ** 2 + (across - column) ** 2 <= RADIUS**2).astype(np.uint8)
    else:
        top, bottom, left, right = box_edges(shape, size)
        canvas[top:bottom, left:right] = 1
    whole: np.ndarray = canvas > 0
    if not whole.any():
        raise _covers_nothing(shape)
    return whole


def _part(shape: Shape, size: Size) -> tuple[slice, slice, np.ndarray]:
    """Rows, columns and pixels, bool [h, w], of a rectangle that holds all of a mask or polygon."""
    height, width = size
    refuse_outside(shape.points, size, f"{shape.where}: a {shape.form}")
    if shape.form == "mask":
        assert shape.pixels is not None
        (left, top), pixels = (int(number) for number in shape.points[0]), shape.pixels
        high, wide = pixels.shape
        if top < 0 or left < 0 or top + high > height or left + wide > width:
            raise DataError(
                f"{shape.where}: a mask of {wide}x{high} at {left},{top} leaves {width}x{height} pixels",
                "was it drawn on a photograph of another size?",
            )
    else:
        if len(shape.points) < 3:
            said = f"{shape.where}: a polygon of {counted(len(shape.points), 'point')}"
            raise DataError(said, "take it out, or draw it anew")
        code = rle_of.merge(rle_of.frPyObjects([shape.points.ravel().tolist()], height, width))
        top, left, pixels = part_of(code)
        high, wide = pixels.shape
    if not pixels.any():
        raise _covers_nothing(shape)
    return slice(top, top + high), slice(left, left + wide), pixels


def _covers_nothing(shape: Shape) -> DataError:
    return DataError(f"{shape.where}: a {shape.form} that covers no pixel", "take it out, or draw it anew")


def refuse_outside(points: np.ndarray, size: Size, what: str, over: float = OVER) -> None:
    """Refuse points, x and y in pixels, [N, 2], of which one lies more than `over` pixels outside of a photograph.

    Raises:
        DataError: saying how far they reach.
    """
    height, width = size
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    if left < -over or top < -over or right > width + over or bottom > height + over:
        raise DataError(
            f"{what} leaves the photograph of {width}x{height} pixels: it reaches from {left:g},{top:g} to "
            f"{right:g},{bottom:g}",
            "was it drawn on a photograph of another size? are x and y swapped?",
        )


def box_edges(shape: Shape, size: Size) -> tuple[int, int, int, int]:
    """First row, row after the last, first column, column after the last of a box, all pixels that it touches.

    Raises:
        DataError: it leaves the photograph, or holds no pixel of it.
    """
    refuse_outside(shape.points, size, f"{shape.where}: a {shape.form}")
    (x0, y0), (x1, y1) = np.sort(shape.points, axis=0)
    top, left = max(int(np.floor(y0)), 0), max(int(np.floor(x0)), 0)
    bottom, right = min(int(np.ceil(y1)), size[0]), min(int(np.ceil(x1)), size[1])
    if top >= bottom or left >= right or x0 == x1 or y0 == y1:
        said = f"{shape.where}: a box from {x0:g},{y0:g} to {x1:g},{y1:g} holds no pixel"
        raise DataError(said, "take it out, or draw it anew")
    return top, bottom, left, right


def class_shapes(mask: np.ndarray, names: Sequence[str]) -> list[tuple[str, np.ndarray]]:
    """The regions of a label map, one for each class and one for 255; the background only where there is nothing else.

    Args:
        mask: class indices and 255, uint8 [H, W].
        names: of the classes, the background first.
    Returns:
        (name, pixels, bool [H, W]); in the order of the classes, what is undecided last.
    """
    values = [int(value) for value in np.unique(mask)]
    shown = [value for value in values if value] or [0]
    return [(UNDECIDED if value == IGNORE else names[value], mask == value) for value in shown]
