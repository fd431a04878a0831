"""CVAT's XML for images, version 1.1: masks, polygons, polylines, points and boxes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

import numpy as np

from wsss_cli.data.drawings.outgoing import Outgoing, Palette
from wsss_cli.data.drawings.shapes import UNDECIDED, Drawing, Form, Shape, class_shapes, in_words
from wsss_cli.data.images import check_pixels
from wsss_cli.data.masks import BORDER_COLOR
from wsss_cli.data.sources.marks import Marks
from wsss_cli.errors import DataError
from wsss_cli.talk import say

FORMS: dict[str, Form] = {"mask": "mask", "polygon": "polygon", "polyline": "line", "points": "point", "box": "box"}
TAG = "tag"  # of a whole image


def read_cvat(path: Path) -> Iterator[Drawing]:
    """The images of an XML, one at a time; shapes in CVAT's order, from the lowest layer (z_order) up.

    Raises:
        DataError: it is no such XML, one of a video, or a shape of it cannot be taken.
    """
    marks = Marks()
    try:
        events = ElementTree.iterparse(path, events=("start", "end"))
        _, root = next(events)
        if root.tag != "annotations":
            raise DataError(f"{path} begins with <{root.tag}>, not <annotations>", "export 'CVAT for images 1.1'")
        for event, element in events:
            if event == "end" and element.tag == "track":
                raise DataError(f"{path} is of a video: it has tracks", "export 'CVAT for images 1.1'")
            if event == "end" and element.tag == "image":
                for one in element.iter():
                    marks.see(one.attrib)
                    marks.see({one.get("name", ""): (one.text or "").strip()} if one.tag == "attribute" else {})
                yield _drawing(element, path)
                root.clear()
        for line in marks.lines(path.name):
            say(line)
    except (ElementTree.ParseError, StopIteration) as error:
        raise DataError(f"{path} is not valid XML: {error}", "export it again") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def _drawing(image: ElementTree.Element, path: Path) -> Drawing:
    name = image.get("name")
    where = f"{path}: image {name}"
    if not name:
        raise DataError(f"{path}: an image without a name", "export 'CVAT for images 1.1'")
    try:
        size = _whole(image, "height"), _whole(image, "width")
        shapes = []
        for number, element in enumerate(image, 1):
            at = f"{where}, {element.tag} {number}"
            if element.tag not in (*FORMS, TAG) or float(element.get("rotation", 0)):
                raise DataError(
                    f"{at} is not read", "masks, polygons, polylines, points and boxes are, without rotation"
                )
            if element.tag in FORMS:
                shapes.append((int(element.get("z_order", 0)), _shape(element, at)))
    except (KeyError, ValueError, OverflowError) as error:
        raise DataError(f"{where} cannot be taken: {in_words(error)}", "export 'CVAT for images 1.1'") from error
    return Drawing(name, size, tuple(shape for _, shape in sorted(shapes, key=lambda one: one[0])), where)


def _whole(element: ElementTree.Element, key: str) -> int:
    """A whole number, also as 20.0, as scripts write it."""
    number = float(element.attrib[key])
    if not number.is_integer():
        raise ValueError(f"its {key} is {element.attrib[key]!r}, no whole number")
    return int(number)


def _shape(element: ElementTree.Element, where: str) -> Shape:
    label, form = element.attrib["label"], FORMS[element.tag]
    if form == "mask":
        left, top, width, height = (_whole(element, key) for key in ("left", "top", "width", "height"))
        runs = [int(run) for run in element.attrib["rle"].split(",")]
        check_pixels(height, width, where)
        if min(runs) < 0 or sum(runs) != width * height:
            raise ValueError(f"the runs of a mask do not add up to {width}x{height} pixels")
        values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
        return Shape(label, form, np.array([[left, top]], float), where, values.reshape(height, width))
    if form == "box":
        corners = [[float(element.attrib[key]) for key in pair] for pair in (("xtl", "ytl"), ("xbr", "ybr"))]
        return Shape(label, form, np.array(corners), where)
    if not element.attrib["points"].strip():
        raise DataError(f"{where}: a {element.tag} without points", "draw it anew, or take it out")
    points = [[float(number) for number in pair.split(",")] for pair in element.attrib["points"].split(";")]
    if any(len(pair) != 2 for pair in points):
        raise ValueError(f"points are x,y;x,y: {element.attrib['points'][:60]!r}")
    return Shape(label, form, np.array(points), where)


def write_cvat(file: BinaryIO, masks: Iterable[Outgoing], palette: Palette) -> None:
    """Write label maps as masks, one for each class of a photograph."""
    labels = "".join(f"<label><name>{_text(name)}</name></label>" for name in (*palette.names, UNDECIDED))
    head = f"<version>1.1</version>\n<meta><task><name>wsss</name><labels>{labels}</labels></task></meta>"
    file.write(f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n{head}\n'.encode())
    for number, one in enumerate(masks):
        height, width = one.mask.shape
        file.write(f'<image id="{number}" name={quoteattr(one.name)} width="{width}" height="{height}">\n'.encode())
        for name, pixels in class_shapes(one.mask, palette.names):
            file.write(f"  {_mask(name, pixels)}\n".encode())
        file.write(b"</image>\n")
    file.write(b"</annotations>\n")


def _mask(name: str, pixels: np.ndarray) -> str:
    """A mask within the box around it: lengths of runs row by row, the first one of what is not set."""
    rows, columns = (np.flatnonzero(pixels.any(axis=axis)) for axis in (1, 0))
    top, left = int(rows[0]), int(columns[0])
    inside = pixels[top : rows[-1] + 1, left : columns[-1] + 1]
    values = np.concatenate([[False], inside.ravel()])
    ends = np.append(np.flatnonzero(values[1:] != values[:-1]), inside.size)
    runs = ", ".join(str(int(run)) for run in np.diff(ends, prepend=0))
    place = f'left="{left}" top="{top}" width="{inside.shape[1]}" height="{inside.shape[0]}"'
    return f'<mask label={quoteattr(name)} source="wsss" occluded="0" rle="{runs}" {place} z_order="0"></mask>'


def _text(name: str) -> str:
    return name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def task_labels(palette: Palette) -> str:
    """The labels of a task, as CVAT's constructor takes them under 'Raw'."""
    names = [(name, palette.hexadecimal(at)) for at, name in enumerate(palette.names)]
    names.append((UNDECIDED, "#{:02x}{:02x}{:02x}".format(*BORDER_COLOR)))
    return json.dumps([{"name": name, "color": color, "attributes": []} for name, color in names], indent=2) + "\n"
