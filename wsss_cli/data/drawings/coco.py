"""COCO's JSON of instances: polygons, run-length codes, and boxes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from pycocotools import mask as rle_of

from wsss_cli.data.drawings.outgoing import Outgoing, Palette
from wsss_cli.data.drawings.shapes import UNDECIDED, Drawing, Shape, Size, class_shapes
from wsss_cli.data.images import check_pixels
from wsss_cli.data.sources.foreign import CONVERT, tool_of_file
from wsss_cli.data.sources.instances import SHARES, SIDES, elements, is_id, listed_size, refuse_unshaped
from wsss_cli.data.sources.marks import Marks
from wsss_cli.data.sources.results import json_text
from wsss_cli.data.sources.shapes import annotation_name, covered_part
from wsss_cli.errors import DataError
from wsss_cli.processes import check_stop
from wsss_cli.talk import counted, say

XYWH = 1
XYWH_HINT = "write bbox as x, y, width, height in pixels, and leave bbox_mode out (or 1)"
HINT = "is it a COCO instances JSON, with images, categories and annotations?"


def read_coco(
    path: Path, *, boxes: bool = False, wanted: Callable[[str], bool] = lambda name: True
) -> Iterator[Drawing]:
    """The images of a JSON that are listed in it; those of more pixels lie below, of as many those of
    smaller ids, as no order of drawing is known.

    Whether an instance is a crowd does not count: tools say so of all that was painted with a brush. Such marks are
    told, and so are regions that are upright rectangles, as tools write boxes. Takes about twice the size of the file
    in memory.

    Args:
        boxes: take the boxes of the instances in place of their regions.
        wanted: whether an image of a name is. What is drawn on another one is not looked at: its shapes have their
            labels alone.
    Raises:
        DataError: it is no such JSON; an instance has no image, category or shape that can be taken, or leaves its
            image; half of the shapes or more lie within the first pixel, as of coordinates from 0 to 1.
    """
    text = json_text(path)
    count = small = 0
    marks = Marks()
    images: dict[Any, tuple[str, Size]] = {}
    names: dict[Any, str] = {}
    spans: dict[Any, list[tuple[int, int]]] = {}
    try:
        for key, start, end, entry in elements(text):
            if not isinstance(entry, dict):
                raise DataError(f"{path}: an entry of {key} is no object", HINT)
            if key == "annotations":
                _refuse_truth(entry, "image_id", path)
                spans.setdefault(entry.get("image_id"), []).append((start, end))
                count, small = count + 1, small + _in_the_corner(entry, boxes=boxes)
                marks.see(entry)
                if not boxes:
                    marks.see_region(entry.get("segmentation"))
                continue
            entry = _again(text, start, end)
            marks.see(entry)
            _refuse_truth(entry, "id", path)
            if key == "images":
                size = listed_size(entry["height"], entry["width"])
                if size is None:
                    said = "the height and width of an image are no whole numbers above 0"
                    raise DataError(f"{path}: {said}: {json.dumps(entry)[:200]}", SIDES)
                check_pixels(*size, f"{path}: image {entry['file_name']}")  # pycocotools crashes on huge ones
                _add(images, entry["id"], (str(entry["file_name"]), size), f"{path}: images of id")
            else:
                _add(names, entry["id"], str(entry["name"]), f"{path}: categories of id")
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON: {error}", HINT) from error
    except KeyError as error:
        raise DataError(f"{path}: an entry of images or categories lacks {error}", HINT) from error
    except TypeError as error:  # that cannot be a key
        said = f"{path}: an id of its images, categories or annotations is neither a number nor text"
        raise DataError(said, HINT) from error
    if not images and (tool := tool_of_file(path)):
        raise DataError(f"{path} is {tool}, which is not read: it lists no images", CONVERT)
    if not images or not names:
        raise DataError(f"{path} lists no {'categories' if images else 'images'}", HINT)
    if strays := [image for image in spans if image not in images]:
        hint = _hint_on_kind(strays[0], images, "the ids of images and the image_id of annotations")
        raise DataError(f"{path}: annotations are of image id {strays[0]!r}, which it does not list", hint)
    if small and 2 * small >= count:
        raise DataError(f"{path}: no coordinate of {small:,} of {counted(count, 'instance')} is above 1", SHARES)
    for line in marks.lines(path.name):
        say(line)
    for image, (name, size) in images.items():
        where = f"{path}: image {name}"
        annotations = [_again(text, *span) for span in spans.get(image, ())]
        if not wanted(name):
            yield Drawing(name, size, _labels(annotations, names, where), where)
            continue
        yield Drawing(name, size, tuple(_shapes(annotations, names, size, where, boxes=boxes)), where)


def _add(table: dict[Any, Any], number: Any, value: Any, what: str) -> None:
    if table.setdefault(number, value) != value:
        raise DataError(
            f"{what} {number!r} are {table[number]!r} and {value!r}", "give each an id of its own, or export it again"
        )


def _refuse_truth(entry: dict[str, Any], key: str, path: Path) -> None:
    """Python takes true for 1."""
    if isinstance(entry.get(key), bool):
        raise DataError(f"{path}: an {key} is {json.dumps(entry[key])}, neither a number nor text", HINT)


def _hint_on_kind(number: Any, listed: Iterable[Any], what: str) -> str:
    """A hint on an id that is not listed: where it is as text what is listed as a number, or the reverse, that."""
    twins = [one for one in listed if str(one) == str(number) and type(one) is not type(number)]
    return f"write {what} all as numbers" if twins else HINT


def _in_the_corner(entry: dict[str, Any], *, boxes: bool) -> bool:
    """Whether all numbers of a box or polygon are 0 to 1, as shares of an image are."""
    shape = entry.get("bbox" if boxes else "segmentation")
    try:
        numbers = list(shape if boxes else chain.from_iterable(shape)) if isinstance(shape, list) else []
        if boxes and not all(numbers[2:]):
            return False  # of no width or height: that is what is wrong
        return bool(numbers) and min(numbers) >= 0 and max(numbers) <= 1
    except TypeError:
        return False  # no numbers: `_shapes` names it


def _again(text: str, start: int, end: int) -> Any:
    """An entry once more, with its letters as UTF-8."""
    return json.loads(text[start:end].encode("latin-1"))


def _labels(annotations: list[dict[str, Any]], names: dict[Any, str], where: str) -> tuple[Shape, ...]:
    ids = (annotation.get("category_id") for annotation in annotations)
    labels = sorted({names[number] for number in ids if isinstance(number, (int, str)) and number in names})
    return tuple(Shape(label, "mask", np.zeros((1, 2)), where) for label in labels)


def _shapes(
    annotations: list[dict[str, Any]], names: dict[Any, str], size: Size, where: str, *, boxes: bool
) -> list[Shape]:
    shapes = []
    for annotation in sorted(annotations, key=lambda one: one["id"] if isinstance(one.get("id"), int) else 0):
        check_stop()
        at = f"{where}, {annotation_name(annotation)}"
        category = annotation.get("category_id")
        if not is_id(category) or category not in names:
            hint = _hint_on_kind(category, names, "the ids of categories and the category_id of annotations")
            raise DataError(f"{at} has category_id {category!r}, which is not listed", hint)
        label = names[category]
        if boxes:
            try:
                x, y, width, height = (float(number) for number in annotation["bbox"])
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(f"{at} has no bbox [x, y, width, height]", HINT) from error
            if min(width, height) < 0:
                raise DataError(f"{at} has a bbox of {width:g} x {height:g} pixels", "it is x, y, width, height")
            attributes = annotation.get("attributes")  # as CVAT exports them: the bbox is the one before it was rotated
            if isinstance(attributes, dict) and attributes.get("rotation"):
                raise DataError(f"{at} is rotated", "draw it without rotation")
            if annotation.get("bbox_mode", XYWH) != XYWH:  # as Detectron2 writes it
                raise DataError(f"{at} has the bbox_mode {annotation['bbox_mode']!r}", XYWH_HINT)
            shapes.append(Shape(label, "box", np.array([[x, y], [x + width, y + height]]), at))
        else:
            hint = "of boxes alone, --kind boxes makes labels" if annotation.get("bbox") else HINT
            refuse_unshaped({"segmentation": annotation.get("segmentation") or None}, at, hint)
            try:
                top, left, pixels = covered_part(annotation, *size)
            except DataError as error:
                raise DataError(f"{where}: {error.message}", "draw it anew, or take it out of the file") from error
            shapes.append(Shape(label, "mask", np.array([[left, top]]), at, pixels))
    return sorted(shapes, key=lambda shape: -int(shape.pixels.sum()) if shape.pixels is not None else 0)


def write_coco(file: BinaryIO, masks: Iterable[Outgoing], palette: Palette) -> None:
    """Write label maps as compressed run-length codes, one for each class of a photograph."""
    labels = [*palette.names, UNDECIDED]
    categories = [{"id": number, "name": name, "supercategory": ""} for number, name in enumerate(labels, 1)]
    file.write(b'{\n"info": {"description": "wsss"},\n"licenses": [],\n"categories": ')
    file.write(json.dumps(categories, ensure_ascii=False).encode() + b',\n"images": [\n')
    annotations: list[str] = []
    for number, one in enumerate(masks, 1):
        height, width = one.mask.shape
        image = {"id": number, "file_name": one.name, "height": height, "width": width}
        file.write((",\n" if number > 1 else "").encode() + json.dumps(image, ensure_ascii=False).encode())
        for name, pixels in class_shapes(one.mask, palette.names):
            code = rle_of.encode(np.asfortranarray(pixels, np.uint8))
            annotation = {
                "id": len(annotations) + 1,
                "image_id": number,
                "category_id": labels.index(name) + 1,
                "segmentation": {"size": [height, width], "counts": code["counts"].decode()},
                "area": int(pixels.sum()),
                "bbox": rle_of.toBbox(code).tolist(),
                "iscrowd": 0,
            }
            annotations.append(json.dumps(annotation))
    file.write(b'\n],\n"annotations": [\n' + ",\n".join(annotations).encode() + b"\n]\n}\n")
