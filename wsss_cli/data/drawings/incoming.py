"""Files and folders of labels that were drawn in other tools, as label maps of the photographs of a list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

import numpy as np

from wsss_cli.data.dataset import Dataset, Sample, nearest
from wsss_cli.data.drawings.coco import read_coco
from wsss_cli.data.drawings.cvat import read_cvat
from wsss_cli.data.drawings.label_studio import read_label_studio
from wsss_cli.data.drawings.scribbles import read_scribbles
from wsss_cli.data.drawings.shapes import UNDECIDED, Drawing, Form, Shape, label_map
from wsss_cli.data.drawings.table import read_points_and_boxes
from wsss_cli.data.images import image_size, read_image
from wsss_cli.data.sources.results import class_of, known_classes, place_of, places_by_name, refuse_unused
from wsss_cli.errors import DataError, UsageError
from wsss_cli.labels import IGNORE
from wsss_cli.processes import check_stop, in_processes
from wsss_cli.talk import counted, rename_option, sides

Boxes = Callable[[np.ndarray, Sequence[tuple[Shape, int]]], np.ndarray]
"""From a photograph, uint8 [H, W, 3], and its boxes, each with its class index, to a label map."""
Drawn = Literal["mask", "partial", "scribbles", "points", "boxes"]
FORMS: dict[Drawn, tuple[Form, ...]] = {
    "mask": ("mask", "polygon"),
    "partial": ("mask", "polygon", "line", "point"),
    "scribbles": ("mask", "polygon", "line", "point"),
    "points": ("point",),
    "boxes": ("box",),
}
PIXELS = "coordinates are pixels: multiply by width and height"
SHOWN = "draw on photographs as they are shown (EXIF applied)"
SCALED = "were photographs scaled after they were drawn on? size and coordinates are to be those of now"
READ = "COCO's or Label Studio's JSON, CVAT's XML for images, ScribbleSup's XML, CSV of points or boxes"


@dataclass(frozen=True)
class Wanted:
    """What is taken from a file.

    Attributes:
        kind: what the shapes are meant to be.
        renames: from a label of the file to a class, or to 'undecided'.
        boxes: what makes a label map of boxes; needed where these are.
    """

    kind: Drawn
    renames: Mapping[str, str] = field(default_factory=dict)
    boxes: Boxes | None = None


def is_drawing(path: Path) -> bool:
    """Whether a path is a file, or a folder of XML files rather than of label maps."""
    return path.is_file() or (path.is_dir() and not any(path.rglob("*.png")) and any(path.rglob("*.xml")))


def read_drawings(path: Path, kind: Drawn, on: Callable[[str], bool] = lambda name: True) -> Iterator[Drawing]:
    """The photographs of a file or folder, in whatever format it is.

    Args:
        on: whether a photograph of a name is of use; of COCO, the regions of others are not made.
    Raises:
        DataError: it is in none that is read.
    """
    if path.is_dir():
        return read_scribbles(sorted(file for file in path.rglob("*.xml") if file.name[0] != "."))
    ending = path.suffix.lower()
    if ending == ".json":
        return read_label_studio(path) if _begins_with_list(path) else read_coco(path, boxes=kind == "boxes", wanted=on)
    if ending == ".xml":
        return read_scribbles([path]) if _root(path) == "annotation" else read_cvat(path)
    if ending in (".csv", ".tsv", ".txt"):
        return read_points_and_boxes(path)
    hint = "unpack it, and name the file in it" if ending == ".zip" else f"{READ}, or a folder of label maps"
    raise DataError(f"{path} is no file of labels that is read", hint)


@dataclass(frozen=True)
class DrawnOn:
    """A photograph of a list and what was drawn on it, each shape with its class index."""

    sample: Sample
    drawing: Drawing
    shapes: tuple[tuple[Shape, int], ...]


def drawn_labels(
    drawings: Iterable[DrawnOn], path: Path, wanted: Wanted, workers: int
) -> Iterator[tuple[Sample, Path, np.ndarray]]:
    """The label maps of what was drawn on photographs.

    Args:
        path: the file or folder that the drawings are of.
        workers: processes.
    Returns:
        (photograph, `path`, class indices and 255, uint8 [H, W]).
    Raises:
        DataError: a shape does not fit its photograph.
    """
    for sample, labels in in_processes(partial(_labels, wanted=wanted), drawings, workers, check=check_stop):
        yield sample, path, labels


def drawn_on(
    dataset: Dataset, samples: Sequence[Sample], path: Path, wanted: Wanted, say: Callable[[str], None]
) -> Iterator[DrawnOn]:
    """The photographs of a list that a file or folder draws on.

    A photograph without any shape says nothing, and is left out.

    Args:
        say: told at the end how many photographs are not of the list, and how many have no shape.
    Raises:
        DataError: a shape is of no class, or of a form that was not asked for; two drawings are of one photograph;
            nothing is of the list; of a photograph no coordinate is above 1, as of shares of it.
        UsageError: a rename to no class, or of a label that is not there.
    """
    classes = {name: index for index, name in enumerate(dataset.classes)}
    for target in wanted.renames.values():
        if target not in classes and target != UNDECIDED:
            raise UsageError(f"--rename: there is no class {target!r}", known_classes(target, list(classes)))
    places = places_by_name(samples)
    seen: dict[int, str] = {}
    counts: Counter[str] = Counter()
    furthest, labels, stranger, shares = 0.0, set[str](), "", ""
    for drawing in read_drawings(path, wanted.kind, lambda name: place_of(name, places) is not None):
        check_stop()
        place = place_of(drawing.image, places)
        counts["all"] += 1
        labels.update(shape.label for shape in drawing.shapes)
        if place is None:
            counts["strangers"], stranger = counts["strangers"] + 1, stranger or drawing.image
        counts["empty"] += place is not None and not drawing.shapes
        if place is None or not drawing.shapes:
            continue
        if place in seen:
            raise DataError(f"{seen[place]} and {drawing.where} are of one photograph", "leave one")
        seen[place] = drawing.where
        shapes = tuple((shape, _index(shape, classes, wanted)) for shape in drawing.shapes)
        furthest = max(furthest, *map(_reach, drawing.shapes))
        shares = shares or (drawing.shapes[0].where if all(map(_of_shares, drawing.shapes)) else "")
        yield DrawnOn(samples[place], drawing, shapes)
    refuse_unused(wanted.renames, labels, path)
    if not counts["all"]:
        raise DataError(f"{path} has no photograph that was drawn on", "submit the annotations, then export again")
    if not seen:
        raise DataError(
            f"{path} has no shape of a photograph of the list: of {counted(counts['all'], 'photograph')} "
            f"{counts['strangers']:,} not of it, {counts['empty']:,} without a shape",
            f"photographs are named by their ids or files, such as {samples[0].id}; of which list, --split says"
            if counts["strangers"]
            else "nothing is drawn on them: draw, submit or save, and export again",
        )
    if furthest <= 1:
        raise DataError(f"{path}: no coordinate is above 1", PIXELS)
    if shares:
        raise DataError(f"{shares}: no coordinate is above 1, elsewhere they are pixels", PIXELS)
    if counts["strangers"]:
        some = f"{counts['strangers']:,} of {counts['all']:,} photographs in {path}"
        say(f"{some} are not of the list, first {stranger}: passed over")
    if counts["empty"]:
        say(f"{counts['empty']:,} of {counts['all']:,} photographs in {path} have no shape: left out")


def _reach(shape: Shape) -> float:
    """How far a shape reaches to the right or down, pixels; a mask is never too small, and a box without width or
    height is named as that.
    """
    if shape.form == "mask" or (shape.form == "box" and not np.ptp(shape.points, axis=0).all()):
        return np.inf
    return float(np.abs(shape.points).max())


def _of_shares(shape: Shape) -> bool:
    """Whether a shape lies within one pixel, the first, and its coordinates are not whole."""
    return _reach(shape) <= 1 and shape.form != "point" and bool((shape.points % 1).any())


def _index(shape: Shape, classes: Mapping[str, int], wanted: Wanted) -> int:
    if shape.form not in FORMS[wanted.kind]:
        kinds = [kind for kind, forms in FORMS.items() if shape.form in forms]
        raise DataError(
            f"{shape.where}: a {shape.form}, where --kind {wanted.kind} needs {' or '.join(FORMS[wanted.kind])}",
            f"--kind {' or '.join(kinds)} takes it",
        )
    label = wanted.renames.get(shape.label, shape.label)
    index = class_of(label, classes)
    if index is None and label.casefold() == UNDECIDED:
        return IGNORE
    if index is None:
        raise DataError(
            f"{shape.where}: {shape.label!r} is no class",
            f"{nearest(shape.label, classes)}{rename_option(shape.label, 'CLASS')} maps it; classes are "
            f"{', '.join(list(classes)[:20])}",
        )
    return index


def _labels(drawn: DrawnOn, wanted: Wanted) -> tuple[Sample, np.ndarray]:
    sample, drawing = drawn.sample, drawn.drawing
    size = image_size(sample.image)
    if drawing.size not in (None, size):
        raise DataError(
            f"{drawing.where} is {sides(drawing.size or size)}, its photograph {sides(size)}",
            SHOWN if drawing.size == size[::-1] else SCALED,
        )
    if wanted.boxes is not None:
        return sample, wanted.boxes(read_image(sample.image), drawn.shapes)
    return sample, label_map(drawn.shapes, size, 0 if wanted.kind == "mask" else IGNORE)


def _begins_with_list(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"["
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def _root(path: Path) -> str:
    try:
        for _, element in ElementTree.iterparse(path, events=("start",)):
            return str(element.tag)
    except ElementTree.ParseError as error:
        raise DataError(f"{path} is not valid XML: {error}", "export it again") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    return ""
