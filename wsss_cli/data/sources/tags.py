"""Image-level tags: from Annotations/*.xml, from a file of lines or CSV, or from masks where the user says so."""

from __future__ import annotations

import csv
import io
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from wsss_cli.data.dataset import nearest, refuse_duplicates
from wsss_cli.data.images import IMAGE_ENDINGS
from wsss_cli.data.masks import read_mask
from wsss_cli.errors import DataError

Tags = dict[str, tuple[str, ...]]
SEPARATORS = re.compile(r"[|;,\s]+")
SEPARATORS_BUT_SPACE = re.compile(r"\s*[|;,]\s*")


def read_text(path: Path) -> str:
    """A text file as UTF-8 (a byte-order mark is dropped).

    Raises:
        DataError: it is missing or not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}") from error


def read_tags(path: Path, classes: Sequence[str]) -> Tags:
    """Tags of each id from a file: lines `id tag tag ...`, or CSV whose header names id (or image) and labels.

    Args:
        classes: names that a tag may have (background not among them).
    Raises:
        DataError: an unknown tag (line and nearest name given), a duplicate id, or no such file.
    """
    text = read_text(path)
    first = text.split("\n", 1)[0].lower()
    rows = _csv_rows(text, path) if "," in first and "label" in first else _line_rows(text)
    tags: Tags = {}
    for number, name, labels in rows:
        for label in labels:
            if label not in classes:
                raise DataError(
                    f"{path}, line {number}: unknown class {label!r}",
                    f"{nearest(label, classes)}known: {', '.join(classes)}",
                )
        if name in tags:
            raise DataError(f"{path}, line {number}: id {name!r} occurs twice", "every id may occur once")
        tags[name] = tuple(dict.fromkeys(labels))
    return tags


def _line_rows(text: str) -> list[tuple[int, str, list[str]]]:
    rows = [(number, line.split()) for number, line in enumerate(text.splitlines(), 1)]
    return [(number, words[0], words[1:]) for number, words in rows if words and not words[0].startswith("#")]


def _csv_rows(text: str, path: Path) -> list[tuple[int, str, list[str]]]:
    reader = csv.DictReader(io.StringIO(text))
    fields = {(field or "").strip().lower(): field for field in reader.fieldnames or ()}
    key, labels = fields.get("id", fields.get("image")), fields.get("labels")
    if key is None or labels is None:
        raise DataError(f"{path}: the header needs the columns id (or image) and labels, it has {reader.fieldnames}")
    rows = []
    for row in reader:
        name = without_suffix((row[key] or "").strip())
        if not name:
            raise DataError(f"{path}, line {reader.line_num}: no id", "every line needs id,labels; labels may be empty")
        rows.append((reader.line_num, name, split_labels(row[labels])))
    return rows


def without_suffix(name: str) -> str:
    """A file name without the suffix of an image: 'a.b.jpg' is 'a.b', and 'a.b' stays."""
    return name[: name.rindex(".")] if name.lower().endswith(IMAGE_ENDINGS) else name


def split_labels(text: str | None, *, spaces: bool = True) -> list[str]:
    """'cat|dog', 'cat;dog', 'cat, dog' and, with `spaces`, 'cat dog' as a list; without, names may hold spaces."""
    separators = SEPARATORS if spaces else SEPARATORS_BUT_SPACE
    return [label for label in separators.split((text or "").strip()) if label]


def annotation_tags(folder: Path, ids: Sequence[str], classes: Sequence[str]) -> Tags:
    """Tags from VOC's bounding-box annotations: the names of the objects in <folder>/<id>.xml, `difficult` ones too.

    Raises:
        DataError: a file is missing or not XML, or names an unknown class.
    """
    missing = [name for name in ids if not (folder / f"{name}.xml").is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(ids)} images have no annotation in {folder}, the first: {missing[0]}.xml",
            "give tags with --tags FILE, or take them from masks with --tags-from-masks",
        )
    tags: Tags = {}
    for name in ids:
        path = folder / f"{name}.xml"
        try:
            root = ElementTree.parse(path).getroot()
        except ElementTree.ParseError as error:
            raise DataError(f"{path} is not XML: {error}") from error
        found = [(node.findtext("name") or "").strip() for node in root.findall("object")]
        unknown = [label for label in found if label not in classes]
        if unknown:
            raise DataError(f"{path} names the unknown class {unknown[0]!r}", nearest(unknown[0], classes))
        tags[name] = tuple(dict.fromkeys(found))
    return tags


def mask_tags(
    masks: dict[str, Path | None], classes: Sequence[str], read: Callable[[Path], np.ndarray] = read_mask
) -> Tags:
    """Tags as the classes that occur in each mask (1 .. len(classes)).

    Raises:
        DataError: an image has no mask, or one that cannot be read or has values outside the classes.
    """
    tags: Tags = {}
    for name, path in masks.items():
        if path is None:
            raise DataError(
                f"image {name} has no mask to take tags from", "leave out --tags-from-masks, or give its mask"
            )
        values = [int(value) for value in np.unique(read(path)) if 0 < value < 255]
        if values and values[-1] > len(classes):
            raise DataError(f"{path} holds the value {values[-1]}; the classes end at {len(classes)}")
        tags[name] = tuple(classes[value - 1] for value in values)
    return tags


def read_ids(path: Path) -> list[str]:
    """Ids of an image list, one a line (first word; VOC's class lists have a second), each once.

    Raises:
        DataError: no such file, an empty list, or a duplicate id.
    """
    ids = [line.split()[0] for line in read_text(path).splitlines() if line.strip()]
    ids = [Path(name).stem if name.startswith("/") else name for name in ids]
    if not ids:
        raise DataError(f"{path} is empty", "it should hold an image id a line")
    refuse_duplicates(ids, str(path))
    return ids
