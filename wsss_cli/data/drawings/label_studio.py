"""Label Studio's JSON: tasks with brush strokes, polygons, rectangles and key points."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import quoteattr

import numpy as np

from wsss_cli.data.drawings.outgoing import Outgoing, Palette
from wsss_cli.data.drawings.shapes import UNDECIDED, Drawing, Shape, Size, class_shapes, in_words
from wsss_cli.data.images import IMAGE_ENDINGS, check_pixels
from wsss_cli.data.masks import BORDER_COLOR
from wsss_cli.data.remote import url_of
from wsss_cli.data.sources.instances import SIDES, elements, listed_size
from wsss_cli.data.sources.results import json_text
from wsss_cli.errors import DataError
from wsss_cli.talk import counted, say

FORMS = ("brush", "polygon", "rectangle", "keypoint")
OTHER_FORMS = ("ellipse", "vector", "bitmask", "magicwand", "videorectangle", "cube")
RUN_BITS = (3, 4, 8, 16)  # of the lengths of runs, as Label Studio writes them
WORD_BITS = 8
PREFIX = "/data/local-files/?d="  # of photographs that lie in a folder that Label Studio was started with
HINT = "of Label Studio export JSON (not JSON-MIN), of COCO instances; results (a list) are no labels"
UPLOAD = re.compile(r"^[0-9a-f]{8}-")  # before the names of photographs that were uploaded
PHOTOGRAPH = "photograph"  # the key of a task that has the id


def read_label_studio(path: Path) -> Iterator[Drawing]:
    """The tasks of a JSON export that were annotated; predictions and drafts count for nothing, which is told.

    Takes about twice the size of the file in memory.

    Raises:
        DataError: it is no such export, a task has two annotations, or a result is no shape.
    """
    text, where = json_text(path), str(path)
    tasks = predicted = annotated = drafted = cancelled = 0
    furthest = 0.0
    try:
        for _, start, end, _ in elements(text, alone=True):
            task = json.loads(text[start:end].encode("latin-1"))
            where = f"{path}: task {task.get('id', '?') if isinstance(task, dict) else '?'}"
            if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
                raise DataError(f"{where} has no data: it is none of Label Studio", HINT)
            drawn = task.get("annotations") or task.get("completions") or ()  # the name before Label Studio 1.0
            listed = [one for one in drawn if not (one.get("was_cancelled") or one.get("skipped"))]
            tasks += 1
            if not listed:
                predicted += bool(task.get("predictions"))
                drafted += bool(task.get("drafts"))
                cancelled += bool(drawn)
            if len(listed) > 1:
                raise DataError(f"{where} has {len(listed)} annotations", "leave one in Label Studio, and export again")
            if listed:
                annotated += 1
                drawing = _drawing(task, listed[0].get("result") or [], where)
                furthest = max(furthest, _furthest(drawing))
                yield drawing
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON: {error}", "export it again") from error
    except (AttributeError, TypeError, KeyError) as error:
        said = f"{where} is not as Label Studio exports it: {in_words(error)}"
        raise DataError(said, "export the project as JSON") from error
    if 0 < furthest <= 1:
        raise DataError(f"{path}: no coordinate is above 1", "coordinates are per cent of the photograph, 0 to 100")
    if annotated and (others := tasks - annotated):
        kinds = {"predictions": predicted, "drafts": drafted, "skipped ones": cancelled}
        what = ", ".join(f"{count:,} with {kind}" for kind, count in kinds.items() if count)
        have = "has" if others == 1 else "have"
        say(
            f"{path.name}: {others:,} of {counted(tasks, 'task')} {have} no annotation: left out{what and f' ({what})'}"
        )
    if predicted and not annotated:
        raise DataError(
            f"{path}: no task has an annotation; predictions are no labels", "submit the tasks, and export again"
        )


def _drawing(task: Mapping[str, Any], results: list[dict[str, Any]], where: str) -> Drawing:
    labels = {one.get("id"): one["value"]["labels"] for one in results if one.get("type") == "labels"}
    shapes: list[Shape] = []
    images = set()
    sizes = set()
    for number, one in enumerate(results, 1):
        form, at = str(one.get("type")).removesuffix("labels"), f"{where}, result {number}"
        if form in OTHER_FORMS:
            raise DataError(f"{at} is of type {one['type']}", "brushes, polygons, rectangles and key points are read")
        if form not in FORMS:
            continue
        if one.get("image_rotation") or one["value"].get("rotation"):
            raise DataError(f"{at} is rotated", "draw it without rotation")
        if one.get("is_positive") is False:  # a click for a model
            raise DataError(f"{at} says where its label is not", "take it out, or give it the label of what is there")
        if one["value"].get("closed") is False:
            raise DataError(f"{at} is a polygon that is not closed", "close it, or take it out")
        names = one["value"].get(f"{form}labels") or labels.get(one.get("id")) or []
        if len(names) != 1:
            raise DataError(f"{at} has {len(names)} labels", "one is needed")
        size = _size(one, at)
        sizes.add(size)
        images.add((one.get("to_name"), one.get("item_index")))
        shapes.append(_shape(form, one["value"], names[0], size, at))
    if len(sizes) > 1:
        raise DataError(f"{where}: its results are of photographs of different sizes")
    if len(images) > 1:
        raise DataError(
            f"{where} is drawn on several photographs: {', '.join(sorted(str(name) for name, _ in images))}",
            "a task has one photograph",
        )
    drawn = str(images.pop()[0]) if images else ""
    return Drawing(_image(task, drawn, where), sizes.pop() if sizes else None, tuple(shapes), where)


def _size(result: Mapping[str, Any], where: str) -> Size:
    height, width = result.get("original_height"), result.get("original_width")
    if height is None or width is None:
        raise DataError(f"{where} has no original_height and original_width", "export the project as JSON")
    size = listed_size(height, width)
    if size is None:
        said = f"original_height {height!r} and original_width {width!r}, no whole numbers above 0"
        raise DataError(f"{where} has the {said}", SIDES)
    check_pixels(*size, where)
    return size


def _shape(form: str, value: Mapping[str, Any], label: str, size: Size, where: str) -> Shape:
    percent = np.array([size[1], size[0]]) / 100
    try:
        if form == "brush":
            return Shape(label, "mask", np.zeros((1, 2)), where, decode_rle(value["rle"], size))
        if form == "polygon":
            return Shape(label, "polygon", np.array(value["points"], float).reshape(-1, 2) * percent, where)
        point = np.array([[value["x"], value["y"]]], float)
        if form == "keypoint":
            return Shape(label, "point", point * percent, where)
        side = np.array([[value["width"], value["height"]]], float)
        return Shape(label, "box", np.concatenate([point, point + side]) * percent, where)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{where} is no {form}: {in_words(error)}", "export the project as JSON") from error


def _furthest(drawing: Drawing) -> float:
    """The largest coordinate of its polygons, rectangles and key points, per cent; 0 where it has none."""
    height, width = drawing.size or (1, 1)
    points = [shape.points for shape in drawing.shapes if shape.form != "mask"]
    return max((float((one / (width, height)).max()) for one in points), default=0.0) * 100


def _image(task: Mapping[str, Any], drawn: str, where: str) -> str:
    """The photograph of a task: its id where the task came from here, else the file behind its address.

    Args:
        drawn: the name of what was drawn on; of several files it is that of this key.
    """
    data = task["data"]
    if isinstance(data.get(PHOTOGRAPH), str):
        return str(data[PHOTOGRAPH])
    files: dict[str, str] = {}
    for key, address in data.items():
        parts = urlsplit(address) if isinstance(address, str) else None
        if parts is not None:
            name = parse_qs(parts.query).get("d", [unquote(parts.path)])[0]
            if name.lower().endswith(IMAGE_ENDINGS):
                folder, slash, file = name.rpartition("/")
                files[key] = f"{folder}{slash}{UPLOAD.sub('', file) if 'upload' in folder.split('/') else file}"
    if drawn in files or len(set(files.values())) == 1:
        return files.get(drawn) or next(iter(files.values()))
    if files:
        raise DataError(
            f"{where} names several images ({', '.join(files)}), and its shapes are on {drawn!r}",
            "leave in `data` the one that was drawn on, or give it that key",
        )
    raise DataError(f"{where} names no image in its data", f"one of its values ends in {', '.join(IMAGE_ENDINGS)}")


def write_label_studio(file: BinaryIO, masks: Iterable[Outgoing], palette: Palette, prefix: str = PREFIX) -> None:
    """Write tasks whose predictions are label maps, to be corrected and submitted.

    Args:
        prefix: what Label Studio finds photographs under; their paths follow, without the first slash, quoted where it
            is a web address. URLs stay.
    """
    sign = b"[\n"
    written = quote if prefix.startswith(("/", "http://", "https://")) else str
    for one in masks:
        height, width = one.mask.shape
        results = [
            {
                "id": f"{one.id}-{number}",
                "type": "brushlabels",
                "from_name": "label",
                "to_name": "image",
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "value": {"format": "rle", "rle": encode_rle(pixels), "brushlabels": [name]},
            }
            for number, (name, pixels) in enumerate(class_shapes(one.mask, palette.names))
        ]
        data = {"image": url_of(one.image) or prefix + written(str(one.image).lstrip("/")), PHOTOGRAPH: one.id}
        task = {"data": data, "predictions": [{"model_version": "wsss", "result": results}]}
        file.write(sign + json.dumps(task, ensure_ascii=False).encode())
        sign = b",\n"
    file.write(b"\n]\n")


def labelling_interface(palette: Palette) -> str:
    """The labelling interface of a project that such tasks are imported into."""
    names = [*((name, palette.hexadecimal(at)) for at, name in enumerate(palette.names))]
    names.append((UNDECIDED, "#{:02x}{:02x}{:02x}".format(*BORDER_COLOR)))
    lines = [f"    <Label value={quoteattr(name)} background={quoteattr(color)}/>" for name, color in names]
    return "\n".join(
        [
            "<View>",
            '  <Image name="image" value="$image" zoom="true" zoomControl="true"/>',
            '  <BrushLabels name="label" toName="image">',
            *lines,
            "  </BrushLabels>",
            "</View>",
            "",
        ]
    )


def encode_rle(pixels: np.ndarray) -> list[int]:
    """A mask as Label Studio's run-length code of its four channels (RGBA), all 255 where it is set.

    Args:
        pixels: bool [H, W].
    Returns:
        Bytes. The words in it: 32 bits, the number of values; 5, the bits of a value less 1; four times 4, the bits of
        a length less 1; then for each run a bit 1, two that say which of these lengths, the length less 1, the value.

    Source: package rle-pack of thi.ng/umbrella, its format.
    """
    values = pixels.ravel().astype(np.uint8) * 255
    ends = np.flatnonzero(np.append(values[1:] != values[:-1], True)) + 1
    words = [f"{4 * values.size:032b}", f"{WORD_BITS - 1:05b}", *(f"{bits - 1:04b}" for bits in RUN_BITS)]
    for end, length in zip(ends, 4 * np.diff(ends, prepend=0), strict=True):
        left = int(length)
        while left:
            part = min(left, 1 << RUN_BITS[-1])
            which = next(number for number, bits in enumerate(RUN_BITS) if part <= 1 << bits)
            words.append(f"1{which:02b}{part - 1:0{RUN_BITS[which]}b}{values[end - 1]:08b}")
            left -= part
    bits = "".join(words)
    bits += "0" * (-len(bits) % 8)
    return list(int(bits, 2).to_bytes(len(bits) // 8))


def decode_rle(code: Any, size: Size) -> np.ndarray:
    """The mask of Label Studio's run-length code: where its fourth channel is not 0, bool [H, W].

    Raises:
        ValueError: it is no such code, or of another size.
    """
    if not isinstance(code, list) or not all(isinstance(byte, int) and 0 <= byte < 256 for byte in code):
        raise ValueError("its code is no list of bytes, 0 to 255, as Label Studio writes it")
    data, soon = bytes(code), ValueError("its code ends too soon")
    bits = f"{int.from_bytes(data):0{8 * len(data)}b}"
    count = int(bits[:32] or "0", 2)
    if count != 4 * size[0] * size[1]:
        raise ValueError(f"its code is of {count:,} values, four channels of its size are {4 * size[0] * size[1]:,}")
    if len(bits) < 53:
        raise soon
    if int(bits[32:37], 2) + 1 != WORD_BITS:
        raise ValueError("its values are not of 8 bits")
    lengths = [int(bits[at : at + 4], 2) + 1 for at in range(37, 53, 4)]
    values, at, done = np.zeros(count, np.uint8), 53, 0
    while done < count:
        if at + 3 + min(lengths) > len(bits):
            raise soon
        wide = lengths[int(bits[at + 1 : at + 3], 2)]
        end = done + int(bits[at + 3 : at + 3 + wide], 2) + 1
        repeated, at = bits[at] == "1", at + 3 + wide
        size_of_it = WORD_BITS * (1 if repeated else end - done)
        if end > count or at + size_of_it > len(bits):
            raise soon
        values[done:end] = np.frombuffer(int(bits[at : at + size_of_it], 2).to_bytes(size_of_it // 8), np.uint8)
        at, done = at + size_of_it, end
    pixels: np.ndarray = values.reshape(*size, 4)[..., 3] > 0
    return pixels
