"""Image-level tags: from Annotations/*.xml, from a file of lines or CSV, or from masks where the user says so."""

from __future__ import annotations

import ast
import json
import re
import shlex
import unicodedata
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsss_cli.data.dataset import nearest, refuse_duplicates
from wsss_cli.data.images import IMAGE_ENDINGS
from wsss_cli.data.masks import read_mask
from wsss_cli.data.sources.table import SEPARATOR_LINE, Row, Table, read_table, read_text
from wsss_cli.errors import DataError
from wsss_cli.escapes import visible
from wsss_cli.processes import check_stop
from wsss_cli.talk import counted, rename_option

Tags = dict[str, tuple[str, ...]]
SEPARATORS = re.compile(r"[|;,\s]+")
LABEL_COLUMNS = ("labels", "label")
OF_SPLITS = ("is_valid", "is_val", "is_train", "is_test")  # columns, as some programs call them
ABSENT = re.compile(r"[!~\u00ac]|-(?!\d)")  # before the name of a class: it is not there
ONES, ZEROS = {"1", "1.0", "true"}, {"0", "0.0", "false"}
QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""")
FORBIDDEN = re.compile(r"[\[\]{}\"|\x00-\x1f\x7f-\x9f]")
MISSING = {"nan", "none", "null", "n/a", "<na>", "na"}
PARTS = re.compile(r"\s*[\s#/&+:_-]\s*")
TWINS = re.compile(r"[\s_\u00ad\u200b-\u200f\u2060\ufe0f\ufeff-]+")  # with signs that have no width
SEPARATORS_BUT_SPACE = re.compile(r"\s*[|;,]\s*")


@dataclass(frozen=True)
class Layout:
    """Where the tags of a table are: in the column `labels`, or one class in each of the columns `classes` (0 or 1).

    Attributes:
        key: column of the image's name.
        split: column that says train or val.
        unused: names of columns that are not looked at.
    """

    key: int
    labels: int | None
    classes: tuple[int, ...]
    split: int | None
    unused: tuple[str, ...]


def layout_of(table: Table, *keys: str) -> Layout:
    """Which columns of a table hold what.

    Args:
        keys: what the column of the image's name may be called.
    Raises:
        DataError: no such column, none with tags, or two that may hold the tags.
    """
    key, split = table.column(*keys), table.column("split")
    both = [name for name in LABEL_COLUMNS if table.column(name) is not None]
    if key is None or (len(table.columns) < 2):
        raise DataError(
            f"{table.path}: the header needs the columns {' (or '.join(keys)}{')' * (len(keys) - 1)} and labels, "
            f"it has {', '.join(table.columns) or 'nothing'}",
            "begin with the line image,labels; separate columns by comma, semicolon or tab",
        )
    if len(both) > 1:
        raise DataError(f"{table.path}: both {' and '.join(both)} are columns", "keep the one that holds the tags")
    others = [at for at in range(len(table.columns)) if at not in (key, split)]
    labels = table.column(*both) if both else None
    if labels is not None:
        return Layout(key, labels, (), split, tuple(table.columns[at] for at in others if at != labels))
    strange = [table.columns[at] for at in others if table.columns[at].lower() in OF_SPLITS]
    if strange:
        raise DataError(
            f"{table.path}: without a column labels every other column is a class, also {strange[0]!r}",
            "call it split, with train and val in place of numbers, or take it out",
        )
    if not others:
        raise DataError(f"{table.path}: no column holds tags", "add a column labels (cat|dog), or one for each class")
    return Layout(key, None, tuple(others), split, ())


def row_labels(table: Table, layout: Layout, row: Row, *, spaces: bool) -> list[str]:
    """The tags of a row as written, each once; `check_label` says whether they can be classes.

    Args:
        spaces: whether spaces separate tags; without, names may hold them.
    Raises:
        DataError: a list that cannot be read, or a cell of a class that is not 0 or 1.
    """
    line, cells = row
    where = table.where(line)
    if layout.labels is None:
        return [table.columns[at] for at in layout.classes if _is_one(table, at, row)]
    text = cells[layout.labels]
    labels = _listed(text, where) if text.startswith("[") else split_labels(text, spaces=spaces)
    return list(dict.fromkeys(labels))


def _is_one(table: Table, at: int, row: Row) -> bool:
    value = row[1][at].lower()
    if value not in ONES and value not in ZEROS:
        raise DataError(
            f"{table.where(row[0])}: the column {table.columns[at]!r} holds {row[1][at]!r}, not 0 or 1",
            "without a column labels every other column is a class; call the one that holds the tags labels",
        )
    return value in ONES


def _listed(text: str, where: str) -> list[str]:
    """A list as JSON or Python write it."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        try:
            values = ast.literal_eval(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            values = None
    quoted = len(QUOTED.findall(text))  # Python joins 'a' 'b' into one
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values) or quoted != len(values):
        raise DataError(f"{where}: {text[:60]!r} is no list of names", 'write cat|dog, or ["cat", "dog"]')
    return [value.strip() for value in values if value.strip()]


def check_label(label: str, where: str) -> str:
    """The name of a tag in composed letters (NFC), if it can be a class.

    Raises:
        DataError: it holds a bracket, a quote, '|' or a control character, is the background, stands for no value, or
            says that a class is not there.
    """
    if FORBIDDEN.search(label) or label[0] == "'" or label[-1] == "'":
        raise DataError(f"{where}: {label!r} cannot be the name of a class", "write names without brackets and quotes")
    if ABSENT.match(label):
        raise DataError(
            f"{where}: the tag {label!r} says that a class is not there",
            f"tags are of what is: leave it out (`wsss prepare folder` drops it with --rename {shlex.quote(label)}=)",
        )
    if label.strip("_").casefold() == "background":
        raise DataError(
            f"{where}: the tag {label!r} is no class: every image has background, it is class 0",
            f"leave it out (`wsss prepare folder` drops it with --rename {shlex.quote(label)}=)",
        )
    if label.casefold() in MISSING:
        raise DataError(
            f"{where}: the tag {label!r} is what programs write where there is none",
            f"leave it out (`wsss prepare folder` drops it with --rename {shlex.quote(label)}=), or rename the class",
        )
    return unicodedata.normalize("NFC", label)


def refuse_twins(lines: Mapping[str, tuple[int, int]], where: str, classes: Sequence[str] = ()) -> None:
    """Refuse names of tags that differ by case, spaces, '-' or '_' only.

    Args:
        lines: where each tag stands first, and how often it does.
        classes: names that are wanted as they are.
    Raises:
        DataError: naming them and their lines.
    """
    alike: dict[str, list[str]] = {}
    for label in lines:
        alike.setdefault(TWINS.sub("", unicodedata.normalize("NFC", label).casefold()) or label, []).append(label)
    for names in alike.values():
        composed = {unicodedata.normalize("NFC", name) for name in names}
        if len(composed) > 1:
            best = max(names, key=lambda name: (name in classes, visible(name) == name, lines[name][1]))
            said = ", ".join(
                f"{name!r} ({counted(lines[name][1], 'image')}, first in line {lines[name][0]})" for name in names
            )
            fix = " ".join(rename_option(name, best) for name in names if name != best)
            raise DataError(
                f"{where}: tags that differ by case or spaces (or signs of no width) only: {said}", f"one class? {fix}"
            )


def in_order(labels: Iterable[str]) -> tuple[str, ...]:
    """Names of classes by the alphabet, or by number where all are numbers: 2 before 10."""
    names = sorted(set(labels))
    return tuple(sorted(names, key=int) if all(name.isdecimal() for name in names) else names)


def joined_line(labels: Sequence[str]) -> list[str]:
    """A line on tags made of other tags, as `cat#dog` beside `cat` and `dog`; none where there are none."""
    joined = [
        label for label in labels if len(parts := PARTS.split(label)) > 1 and all(part in labels for part in parts)
    ]
    if not joined:
        return []
    shown = f"{', '.join(map(repr, joined[:3]))}{' ...' if len(joined) > 3 else ''}"
    return [f"made of other tags: {shown}; each is a class by itself: several tags are joined by | (cat|dog)"]


def read_tags(path: Path, classes: Sequence[str]) -> Tags:
    """Tags of each id from a file: lines `id tag tag ...`, or CSV whose header names id (or image) and labels.

    Args:
        classes: names that a tag may have (background not among them).
    Raises:
        DataError: an unknown tag (line and nearest name given), a duplicate id, a table as `read_table` refuses it, or
            no such file.
    """
    text = read_text(path)
    head = next((line for line in text.splitlines() if line.strip() and not SEPARATOR_LINE.match(line)), "").lower()
    rows = _csv_rows(path) if re.match(r"\W*(id|image)\W*[,;\t]", head) or "label" in head else _line_rows(text)
    tags: Tags = {}
    for number, name, labels in rows:
        for label in labels:
            if label not in classes:
                raise DataError(
                    f"{path}, line {number}: unknown class {label!r}",
                    f"{nearest(label, classes)}known: {', '.join(classes)}",
                )
        if name in tags:
            raise DataError(
                f"{path}, line {number}: id {name!r} occurs twice", "an image has one line, with all of its tags"
            )
        tags[name] = tuple(dict.fromkeys(labels))
    return tags


def _line_rows(text: str) -> list[tuple[int, str, list[str]]]:
    rows = [(number, line.split()) for number, line in enumerate(text.splitlines(), 1)]
    return [(number, words[0], words[1:]) for number, words in rows if words and not words[0].startswith("#")]


def _csv_rows(path: Path) -> list[tuple[int, str, list[str]]]:
    table = read_table(path)
    layout = layout_of(table, "id", "image")
    rows = []
    for row in table.rows:
        name = without_suffix(row[1][layout.key].replace("\\", "/").rsplit("/", 1)[-1])
        if not name:
            raise DataError(f"{table.where(row[0])}: no id", "every line needs id,labels; labels may be empty")
        labels = [check_label(label, table.where(row[0])) for label in row_labels(table, layout, row, spaces=True)]
        rows.append((row[0], name, labels))
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
        check_stop()
        path = folder / f"{name}.xml"
        try:
            root = ElementTree.parse(path).getroot()
        except ElementTree.ParseError as error:
            raise DataError(f"{path} is not XML: {error}") from error
        if root.tag != "annotation":
            raise DataError(
                f"{path} is no VOC annotation: it begins with <{root.tag}>, not <annotation>", "fetch it anew"
            )
        labels = [(node.findtext("name") or "").strip() for node in root.findall("object")]
        unknown = [label for label in labels if label not in classes]
        if unknown:
            raise DataError(
                f"{path} names the unknown class {unknown[0]!r}",
                f"{nearest(unknown[0], classes)}known: {', '.join(classes)}",
            )
        tags[name] = tuple(dict.fromkeys(labels))
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
        check_stop()
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
