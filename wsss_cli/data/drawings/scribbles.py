"""ScribbleSup's XML: a file for each photograph, its scribbles as points in order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from wsss_cli.data.drawings.shapes import Drawing, Shape
from wsss_cli.errors import DataError

OTHERS = "boxes are read from a CSV, image,class,x0,y0,x1,y1; polygons from COCO's JSON"
HINT = "<annotation> with <polygon>s, each a <tag> and <point>s of <X> and <Y>, is read"


def read_scribbles(files: list[Path]) -> Iterator[Drawing]:
    """Each XML, named like its photograph.

    Raises:
        DataError: one cannot be read, or is no such XML.

    Source: Lin et al., ScribbleSup, CVPR 2016, its annotations of VOC 2012.
    """
    for file in files:
        try:
            root = ElementTree.parse(file).getroot()
        except ElementTree.ParseError as error:
            raise DataError(f"{file} is not valid XML: {error}", HINT) from error
        except OSError as error:
            raise DataError(f"cannot read {file}: {error.strerror}") from error
        if root.tag != "annotation":
            hint = "of CVAT name the file itself, not its folder" if root.tag == "annotations" else HINT
            raise DataError(f"{file} begins with <{root.tag}>, not <annotation>", hint)
        if root.find("object") is not None:
            raise DataError(f"{file} has <object>s: Pascal VOC's boxes, or LabelMe's polygons, are not read", OTHERS)
        size = tuple(_number(root.find(f"size/{side}"), str(file)) for side in ("height", "width"))
        known = None if None in size or 0 in size else (int(size[0] or 0), int(size[1] or 0))
        shapes = [_scribble(one, f"{file}, polygon {at}") for at, one in enumerate(root.findall("polygon"), 1)]
        yield Drawing(file.stem, known, tuple(shapes), str(file))


def _scribble(element: ElementTree.Element, where: str) -> Shape:
    label = (element.findtext("tag") or "").strip()
    points = [[_number(point.find(axis), where) for axis in ("X", "Y")] for point in element.findall("point")]
    if not label or not points or any(None in point for point in points):
        raise DataError(f"{where} has no tag, or no points", HINT)
    return Shape(label, "line", np.array(points, float), where)


def _number(element: ElementTree.Element | None, where: str) -> float | None:
    text = "" if element is None else (element.text or "").strip()
    try:
        return float(text) if text else None
    except ValueError as error:
        raise DataError(f"{where}: {text!r} is no number", HINT) from error
