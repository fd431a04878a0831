"""CSV of points (image,class,x,y) or boxes (image,class,x0,y0,x1,y1), in pixels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from wsss_cli.data.drawings.shapes import Drawing, Shape
from wsss_cli.data.sources.foreign import CONVERT, is_yolo
from wsss_cli.data.sources.table import read_table
from wsss_cli.errors import DataError
from wsss_cli.talk import say

POINT, BOX = ("x", "y"), ("x0", "y0", "x1", "y1")
ROTATION = ("rotation", "angle", "theta")


def read_points_and_boxes(path: Path) -> Iterator[Drawing]:
    """The photographs of a CSV, in the order in which they are first named.

    Raises:
        DataError: other columns, or a row that cannot be taken.
    """
    table = read_table(path)
    wanted = BOX if table.column("x0") is not None else POINT
    places = [table.column(name) for name in ("image", "class", *wanted)]
    columns = [place for place in places if place is not None]
    if len(columns) < len(places) and is_yolo(path):
        raise DataError(f"{path} is YOLO's, which is not read", CONVERT)
    if len(columns) < len(places):
        raise DataError(
            f"{path} has the columns {','.join(table.columns)}",
            f"image,class,{','.join(POINT)} or image,class,{','.join(BOX)} are read",
        )
    if wanted is POINT and (table.column("w", "width") is not None or table.column("h", "height") is not None):
        raise DataError(
            f"{path} has the columns {','.join(table.columns)}: are these boxes, or points beside a photograph's size?",
            f"boxes have the columns image,class,{','.join(BOX)}; of points leave widths and heights out",
        )
    turned = table.column(*ROTATION) if wanted is BOX else None
    unused = [name for place, name in enumerate(table.columns) if place not in (*columns, turned)]
    if unused:
        say(f"{path.name}: not looked at: {', '.join(unused)}")
    shapes: dict[str, list[Shape]] = {}
    for line, cells in table.rows:
        image, label, *numbers = (cells[column] for column in columns)
        try:
            points = np.array([float(number.replace("_", "?")) for number in numbers]).reshape(-1, 2)  # 1_5 is not 15
        except ValueError:
            points = np.full((1, 2), np.nan)
        if not np.isfinite(points).all():
            raise DataError(f"{table.where(line)}: {','.join(numbers)} are no numbers", "coordinates are pixels")
        if not image or not label:
            raise DataError(
                f"{table.where(line)}: no {'class' if image else 'image'}", "every row names an image and a class"
            )
        if turned is not None and cells[turned].strip("0.,-+"):
            raise DataError(
                f"{table.where(line)}: a box that is rotated: {table.columns[turned]} is {cells[turned]}",
                "write the box around it, whose sides are those of the photograph, and leave the column out",
            )
        form = "box" if wanted is BOX else "point"
        shapes.setdefault(image, []).append(Shape(label, form, points, table.where(line)))  # type: ignore[arg-type]
    if not shapes:
        raise DataError(f"{path} has no rows", f"a row for each {'box' if wanted is BOX else 'point'}")
    for image, members in shapes.items():
        yield Drawing(image, None, tuple(members), members[0].where)
