"""Shapes of instances in COCO's JSON format, polygons and run-length codes, as pixels and masks of classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as rle_of

from wsss_cli.data.images import check_pixels
from wsss_cli.errors import DataError
from wsss_cli.labels import IGNORE

LONGEST_BLANK = 16  # characters: one run, or one and an empty one, of any image
OVER = 0.1  # share of the longer side that an outline may reach over the border: tools that rescale write such


def is_crowd(annotation: dict[str, Any], where: str) -> bool:
    """Whether an annotation is a crowd region: its `iscrowd` is 0, 1, true, false, or one of these as text.

    Raises:
        DataError: it is anything else.
    """
    value = annotation.get("iscrowd", 0)
    text = str(value).lower() if isinstance(value, (bool, int, str)) else ""
    if text not in ("0", "1", "true", "false"):
        raise DataError(f"{where}: annotation {annotation['id']} has iscrowd {value!r}", "0 or 1 is needed")
    return text in ("1", "true")


def is_blank(shape: list[Any] | dict[str, Any]) -> bool:
    """Whether a run-length code marks no pixel, or the points of every part of a polygon lie on one line.

    What is no shape is not blank: `paint` names it.
    """
    try:
        if isinstance(shape, list):
            return all(_is_line(np.array(part, float).reshape(-1, 2)) for part in shape if part)
        runs = shape["counts"]
        if isinstance(runs, str):
            runs = _runs(runs.encode()) if len(runs) <= LONGEST_BLANK else [0, 1]
        return not any(runs[1::2])
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return False


def _is_line(points: np.ndarray) -> bool:
    away = points - points[0]
    far = away[np.abs(away).sum(1).argmax()]
    return bool((away[:, 0] * far[1] == away[:, 1] * far[0]).all())


def paint(annotations: Sequence[tuple[dict[str, Any], int]], height: int, width: int) -> np.ndarray:
    """A mask of classes from instances.

    Crowd regions become 255 first. The other instances are painted over them, those with more pixels first; of two with
    as many, the one with the smaller annotation id first. So what is small stays visible, and the order of the file
    does not count. A pixel belongs to an instance as pycocotools rasterises it: the parts of a polygon are united, the
    gaps of a run-length code are holes.

    Args:
        annotations: each as in the JSON, with its class index (1..254).
    Returns:
        uint8 [height, width]: class indices, 0 where there is nothing.
    Raises:
        DataError: a shape cannot be taken; the message names the annotation.
    """
    mask = np.zeros((height, width), np.uint8)
    instances = []
    for annotation, label in annotations:
        code = _rle(annotation, height, width)
        if is_crowd(annotation, "the JSON"):
            mask[rle_of.decode(code) > 0] = IGNORE
        else:
            instances.append((-int(rle_of.area(code)), annotation["id"], label, code))
    for _, _, label, code in sorted(instances, key=lambda instance: instance[:2]):
        mask[rle_of.decode(code) > 0] = label
    return mask


def covered_part(annotation: dict[str, Any], height: int, width: int) -> tuple[int, int, np.ndarray]:
    """The pixels of an instance, as pycocotools rasterises it.

    Returns:
        First row, first column and pixels, bool [h, w], of a rectangle that holds all of it; h and w are 0 where that
        is nothing.
    Raises:
        DataError: its shape cannot be taken, or is a polygon that leaves the image by more than a tenth of the longer
            side; the message names it.
    """
    return part_of(_within(annotation, height, width))


def part_of(code: dict[str, Any]) -> tuple[int, int, np.ndarray]:
    """First row, first column and pixels, bool [h, w], of a rectangle that holds all of a run-length code."""
    left, top, wide, high = (int(number) for number in rle_of.toBbox(code))
    height = code["size"][0]
    ends = np.cumsum(_runs(code["counts"])).clip(left * height, (left + wide) * height)
    runs = np.diff(ends, prepend=left * height)
    columns = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(wide, height)  # a photograph's are too many
    return top, left, np.ascontiguousarray(columns[:, top : top + high].T)


def _within(annotation: dict[str, Any], height: int, width: int) -> dict[str, Any]:
    """The run-length code of an instance that does not leave its image."""
    code, over = _rle(annotation, height, width), OVER * max(height, width)
    parts = annotation["segmentation"] if isinstance(annotation["segmentation"], list) else []
    across, down = ([number for part in parts for number in part[first::2]] for first in (0, 1))
    if across:
        left, top, right, bottom = min(across), min(down), max(across), max(down)
        if left < -over or top < -over or right > width + over or bottom > height + over:
            raise _unusable(
                annotation,
                f"its polygon leaves the image of {width}x{height} pixels: it reaches from {left:g},{top:g} to "
                f"{right:g},{bottom:g}; is it of another size, or are x and y swapped?",
            )
    return code


def _rle(annotation: dict[str, Any], height: int, width: int) -> dict[str, Any]:
    """pycocotools' compressed run-length code of an annotation."""
    shape = annotation["segmentation"]
    check_pixels(height, width, f"image {annotation.get('image_id')} as listed")
    rle: dict[str, Any]
    try:
        if isinstance(shape, list):
            rle = rle_of.merge(rle_of.frPyObjects(_polygons(annotation, height, width), height, width))
            return rle
        if list(shape["size"]) != [height, width]:
            raise _unusable(annotation, f"its size is {shape['size']}, that of the image [{height}, {width}]")
        runs = shape["counts"] if isinstance(shape["counts"], list) else _runs(shape["counts"].encode())
        if not all(isinstance(run, (int, float)) and run == int(run) for run in runs):
            raise _unusable(annotation, "its runs are not all whole numbers of pixels")
        runs = [int(run) for run in runs]
        if any(run < 0 for run in runs) or sum(runs) != height * width:
            raise _unusable(annotation, f"its runs do not add up to {height} x {width} pixels")
        rle = rle_of.frPyObjects({"size": [height, width], "counts": runs}, height, width)
        return rle
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise _unusable(annotation, "a run-length code is a size [height, width] and counts") from error


def _runs(counts: bytes) -> list[int]:
    """Run lengths from their compressed text; pycocotools itself does not say when they end too soon.

    Format: `rleFrString` of cocoapi's maskApi.c: five bits a byte and a sixth if more follow, low ones first, signed;
    from the fourth run on the difference to the run before the last.
    """
    runs: list[int] = []
    value = shift = 0
    for byte in counts:
        bits = byte - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        value -= (bits >> 4 & 1) << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs


def _polygons(annotation: dict[str, Any], height: int, width: int) -> list[list[float]]:
    """The parts with an area; a part of fewer than three points covers nothing. pycocotools takes no empty list."""
    reach = 2 * max(height, width)
    for part in annotation["segmentation"]:
        if not isinstance(part, list) or not all(isinstance(value, (int, float)) for value in part):
            raise _unusable(annotation, "a part of its polygon is no list of numbers x, y, x, y, ...")
        if len(part) % 2:
            raise _unusable(annotation, "a part of its polygon has an odd number of coordinates")
        if not all(math.isfinite(value) for value in part):
            raise _unusable(annotation, "a coordinate of its polygon is no finite number")
        if not all(abs(value) <= reach for value in part):
            raise _unusable(annotation, f"its polygon leaves the image of {width}x{height} pixels by far")
    return [part for part in annotation["segmentation"] if len(part) >= 6] or [[0.0] * 6]


def _unusable(annotation: dict[str, Any], why: str) -> DataError:
    place = f" of image {annotation['image_id']}" if "image_id" in annotation else ""
    return DataError(f"{annotation_name(annotation)}{place} is no shape: {why}")


def annotation_name(annotation: Mapping[str, Any]) -> str:
    """For messages; results of a tool have no ids."""
    return f"annotation {annotation['id']}" if annotation.get("id") is not None else "an annotation"
