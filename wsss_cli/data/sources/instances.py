"""Instance annotations in COCO's JSON format: read in little memory, painted into masks of classes."""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsss_cli.data.dataset import check_id, refuse_duplicates
from wsss_cli.data.sources.marks import CROWD, Marks
from wsss_cli.data.sources.shapes import is_blank, is_crowd
from wsss_cli.errors import DataError
from wsss_cli.processes import check_stop

RULE = (
    "larger instances first (by pixels; ties: smaller annotation id first), "
    "crowd regions 255 where no other instance covers them"
)
SPACE = re.compile(r"[ \t\n\r]*")
BOM = "\xef\xbb\xbf"  # of UTF-8, a character a byte
BACKGROUND = "background"
LISTS = ("images", "annotations", "categories")
KIND = "instances_train2014.json and instances_val2014.json are needed, of annotations_trainval2014.zip"
OTHER_KINDS = {"segments_info": "panoptic segments", "caption": "captions"}
SHARES = "coordinates are pixels in COCO; of those from 0 to 1, multiply x by width and y by height"
CODES, PAIRS = "a list of run-length codes", "a list of lists of points"
FLAT, POINTS = "a list of numbers", "a list of points"
SIDES = "write both as numbers, in pixels of the photograph as it is shown: 480, without quotes"
UNPACK = "was a download cut off? unpack annotations_trainval2014.zip anew"


@dataclass(frozen=True, slots=True)
class Span:
    """One annotation: its category, whether it is a crowd region, and its bytes [start, end) in the file."""

    category: int
    crowd: bool
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Listed:
    """One image of the list: its file name, size in pixels, and annotations in the order of the file."""

    file_name: str
    height: int
    width: int
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class Instances:
    """What an instance JSON holds.

    Attributes:
        categories: names by id, ascending.
        images: sorted by file name.
        instances: number of annotations.
        empty: number of those whose polygons reach no further than one pixel: they cover nothing, or next to nothing.
        notes: lines on what was not looked at.
    """

    path: Path
    categories: dict[int, str]
    images: tuple[Listed, ...]
    instances: int = 0
    empty: int = 0
    notes: tuple[str, ...] = ()


def read_instances(path: Path) -> Instances:
    """Read an instance JSON. Its shapes stay in the file: `read_span` reads those of one image when they are needed.

    Takes about twice the size of the file in memory (the official 330 MB: under 1 GiB), a parsed tree six times.

    Raises:
        DataError: it is missing, not JSON, or an entry of it cannot be taken: no such category or image, no id.
    """
    try:
        text = path.read_bytes().decode("latin-1")  # a character is a byte: what JSON is made of is ASCII
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    if text.startswith(("\xff\xfe", "\xfe\xff")):
        raise DataError(f"{path} is UTF-16 text", "save it as UTF-8")
    if text.removeprefix(BOM).lstrip().startswith("["):
        raise DataError(f"{path} is a list, as results of a network are, not an object with images, annotations", KIND)
    images: dict[int, tuple[str, int, int]] = {}
    names: dict[int, str] = {}
    spans: dict[int, list[Span]] = {}
    size, empty, marks = len(text), 0, Marks()
    try:
        for key, start, end, entry in elements(text):
            check_stop()
            if key == "annotations":
                image, span = _span(entry, start, end, path)
                spans.setdefault(image, []).append(span)
                empty += is_empty(entry["segmentation"])
                marks.see(entry, CROWD)
                marks.see_region(entry["segmentation"])
                continue
            entry = json.loads(text[start:end].encode("latin-1"))  # once more, with its letters as UTF-8
            if key == "images":
                _add_image(images, entry, path)
                marks.see(entry)
            else:
                _add_category(names, entry, path)
    except (ValueError, RecursionError) as error:
        where = f" at byte {error.pos:,} of {size:,}" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(f"{path} is not valid JSON{where}: {str(error).split(': line')[0]}", UNPACK) from error
    del text
    if not images or not names:
        raise DataError(f"{path} lists no {'categories' if images else 'images'}", "is it an instances_*.json?")
    _refuse_strays(spans, images, names, path)
    refuse_duplicates((name for name, _, _ in images.values()), f"{path}, file_name")
    listed = (Listed(*image, tuple(spans.get(key, ()))) for key, image in images.items())
    ordered = tuple(sorted(listed, key=lambda image: image.file_name))
    count, notes = sum(map(len, spans.values())), tuple(marks.lines(path.name))
    return Instances(path, dict(sorted(names.items())), ordered, count, empty, notes)


def elements(text: str, *, alone: bool = False) -> Iterator[tuple[str, int, int, Any]]:
    """(list, start, end, value) of each element of the lists named in LISTS, which stand at the top of the text.

    Args:
        alone: the text may also be a list; its elements count as annotations.
    Raises:
        JSONDecodeError: the text is not a JSON object, or one of the lists is something else.
    """
    decode = json.JSONDecoder().raw_decode
    at, sign = _sign(text, 3 if text.startswith(BOM) else 0, "{[" if alone else "{")
    if sign == "[":
        at = yield from _list(text, at, "annotations")
    elif text[at : at + 1] == "}":
        at, sign = _sign(text, at, "}")
    else:
        sign = ","
    while sign == ",":
        begin = at
        key, at = decode(text, at)
        if not isinstance(key, str):
            raise json.JSONDecodeError("Expecting a property name", text, begin)
        at, _ = _sign(text, at, ":")
        if key in LISTS:
            if text[at : at + 1] != "[":
                raise json.JSONDecodeError(f"{key} is no list", text, at)
            at, _ = _sign(text, at, "[")
            at = yield from _list(text, at, key)
        else:
            _, at = decode(text, at)
        at, sign = _sign(text, at, ",}")
    if at < len(text):
        raise json.JSONDecodeError("Extra data", text, at)


def _list(text: str, at: int, key: str) -> Generator[tuple[str, int, int, Any], None, int]:
    """Elements of the list whose first element or end is at `at`; where the text goes on after it."""
    decode = json.JSONDecoder().raw_decode
    if text[at : at + 1] == "]":
        return _skip(text, at + 1)
    sign = ","
    while sign == ",":
        value, end = decode(text, at)
        yield key, at, end, value
        at, sign = _sign(text, end, ",]")
    return at


def _sign(text: str, at: int, wanted: str) -> tuple[int, str]:
    """The sign that comes next, and where the text goes on after it and white space."""
    at = _skip(text, at)
    if at >= len(text) or text[at] not in wanted:
        raise json.JSONDecodeError(f"Expecting {' or '.join(repr(sign) for sign in wanted)}", text, at)
    return _skip(text, at + 1), text[at]


def _skip(text: str, at: int) -> int:
    space = SPACE.match(text, at)
    return space.end() if space else at


def _span(entry: Any, start: int, end: int, path: Path) -> tuple[int, Span]:
    if isinstance(entry, dict) and (other := next((key for key in OTHER_KINDS if key in entry), None)):
        raise DataError(
            f"{path} holds {OTHER_KINDS[other]}, not outlines of instances ({other} at byte {start:,})", KIND
        )
    if not isinstance(entry, dict) or not isinstance(entry.get("id"), int):
        raise DataError(f"{path}: an annotation at byte {start:,} has no integer id")
    for field in ("image_id", "category_id"):
        if not isinstance(entry.get(field), int):
            raise DataError(f"{path}: annotation {entry['id']} has no integer {field}")
    refuse_unshaped(entry, f"{path}: annotation {entry['id']}", "outlines are needed, of each instance")
    return entry["image_id"], Span(entry["category_id"], is_crowd(entry, str(path)), start, end)


def refuse_unshaped(entry: Mapping[str, Any], where: str, hint: str) -> None:
    """Refuse an annotation whose segmentation is neither polygons nor a run-length code.

    Args:
        where: the annotation, in words.
        hint: what is needed where there is none.
    Raises:
        DataError: saying what it is.
    """
    shape = entry.get("segmentation")
    if shape is None:
        raise DataError(f"{where} has no segmentation", hint)
    parts = {_kind_of_part(part) for part in shape} if isinstance(shape, list) else set()
    if parts == {"polygon"} and len(shape) > 2 and all(len(part) == 2 for part in shape):
        parts = {POINTS}
    if not isinstance(shape, (list, dict)) or parts & {CODES, PAIRS, POINTS} or parts == {FLAT}:
        of_parts = next(iter(parts)) if len(parts) == 1 else "a list of parts of several kinds"
        form = of_parts if parts else "text" if isinstance(shape, str) else json.dumps(shape)
        raise DataError(
            f"{where} has a segmentation that is {form}",
            'it is a list of polygons, [[x, y, x, y, ...], ...], or one run-length code, {"size": ..., "counts": ...}',
        )


def _kind_of_part(part: Any) -> str:
    if isinstance(part, list):
        return PAIRS if part and isinstance(part[0], list) else "polygon"
    return CODES if isinstance(part, dict) else FLAT if isinstance(part, (int, float)) else "other"


def covers_nothing(shape: list[Any] | dict[str, Any]) -> bool:
    """Whether a segmentation has no outline, or one that covers no more than a pixel."""
    return is_empty(shape) or within_pixel(shape) or is_blank(shape)


def is_empty(shape: list[Any] | dict[str, Any]) -> bool:
    """Whether no part of a polygon reaches further than one pixel, as of coordinates from 0 to 1."""
    if isinstance(shape, dict):
        return False
    try:
        return all(len(part) < 6 or (max(part) - min(part) <= 1 and max(part) <= 1) for part in shape)
    except TypeError:
        return False  # no lists of numbers: `paint` names it


def within_pixel(shape: list[Any] | dict[str, Any]) -> bool:
    """Whether every part of a polygon is less than a pixel wide and high, wherever it is."""
    if isinstance(shape, dict):
        return False
    try:
        return all(max(part[at::2]) - min(part[at::2]) < 1 for part in shape if len(part) >= 6 for at in (0, 1))
    except TypeError:
        return False  # no lists of numbers: `paint` names it


def listed_size(height: Any, width: Any) -> tuple[int, int] | None:
    """A height and a width of a JSON, whole numbers above 0, also as 48.0, as scripts write them; else None."""
    sides = [int(side) for side in (height, width) if _is_whole(side)]
    return (sides[0], sides[1]) if len(sides) == 2 and min(sides) > 0 else None


def is_id(number: Any) -> bool:
    """Whether an id may be one that is listed; true is not 1, though Python takes it for that."""
    return isinstance(number, (int, float, str)) and not isinstance(number, bool)


def _is_whole(side: Any) -> bool:
    if isinstance(side, float):
        return side.is_integer()
    return isinstance(side, int) and not isinstance(side, bool)


def _add_image(images: dict[int, tuple[str, int, int]], entry: Any, path: Path) -> None:
    fields: dict[str, Any] = entry if isinstance(entry, dict) else {}
    number, name = fields.get("id"), fields.get("file_name")
    size = listed_size(fields.get("height"), fields.get("width"))
    if size is None or not isinstance(number, int) or not isinstance(name, str):
        raise DataError(f"{path}: an image has no usable id, file_name, height and width: {json.dumps(entry)[:200]}")
    if number in images:
        raise DataError(f"{path}: image id {number} occurs twice", "every id may occur once")
    images[number] = (check_id(name, str(path)), *size)


def _add_category(names: dict[int, str], entry: Any, path: Path) -> None:
    number, name = (entry.get("id"), entry.get("name")) if isinstance(entry, dict) else (None, None)
    if not isinstance(number, int) or not isinstance(name, str) or not name or "|" in name:
        raise DataError(f"{path}: a category has no usable id and name: {json.dumps(entry)[:200]}")
    if name.strip("_").casefold() == BACKGROUND:
        raise DataError(
            f"{path}: category {number} is called {name!r}; the background is class 0 and no category",
            "take it and its annotations off the JSON",
        )
    if number in names or name in names.values():
        raise DataError(f"{path}: category {number} ({name}) occurs twice")
    names[number] = name


def _refuse_strays(
    spans: dict[int, list[Span]], images: dict[int, tuple[str, int, int]], names: dict[int, str], path: Path
) -> None:
    """An annotation must belong to a listed image and a listed category."""
    lost = [image for image in spans if image not in images]
    if lost:
        count = sum(len(spans[image]) for image in lost)
        raise DataError(
            f"{path}: {count:,} annotations belong to images that it does not list, the first to image id {lost[0]}",
            "of a shortened list, take the annotations off too",
        )
    for image, members in spans.items():
        for span in members:
            if span.category not in names:
                raise DataError(
                    f"{path}: an annotation of {images[image][0]} has the unknown category id {span.category}",
                    f"it lists {len(names)} categories, ids {min(names)} to {max(names)}",
                )


def read_span(path: Path, spans: Sequence[Span]) -> list[dict[str, Any]]:
    """The annotations in full.

    Raises:
        DataError: the file is not the one any more that the spans were read from.
    """
    try:
        with path.open("rb") as file:
            read = []
            for span in spans:
                file.seek(span.start)
                read.append(json.loads(file.read(span.end - span.start)))
            return read
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read again: {error}", "was it changed meanwhile? run again") from error
