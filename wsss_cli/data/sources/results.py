"""Instances that some tool has found, in COCO's JSON formats: results, or annotations with a score."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from wsss_cli.data.dataset import Dataset, Sample, nearest
from wsss_cli.data.sources.foreign import CONVERT, tool_of_file
from wsss_cli.data.sources.instances import SIDES, covers_nothing, elements, is_id, listed_size, refuse_unshaped
from wsss_cli.data.sources.marks import Marks
from wsss_cli.errors import DataError, UsageError
from wsss_cli.processes import check_stop
from wsss_cli.talk import counted, rename_option, say

LABELS = ("label", "category_name", "class_name", "category")
IMAGES = ("file_name", "image", "image_path")
SCORES = ("score", "confidence")
LARGE = 20_000_000  # bytes: seconds of work
ONE_LIST = "write all annotations as one list, each with its file_name, label, segmentation, and score as a number"


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance: its class index, its score in [0, 1], and its bytes [start, end) in the file."""

    label: int
    score: float
    start: int
    end: int


@dataclass(frozen=True)
class Results:
    """What a file of results holds.

    Attributes:
        by_image: the instances of each photograph that has any, by its place in the list.
        instances: number of entries.
        other_images: entries of photographs that are not in the list.
        other_labels: how often each label stands there that is no class.
        sizes: height and width of photographs, by their places, where the file, or the one with names, lists them.
        empty: entries, of these photographs and classes, whose outline covers no pixel, or a single one in the corner.
        other_image: the name of the first photograph that is not in the list; empty: all are.
        unscored: entries, of these photographs and classes, without a score, which count as 1.
        marks: lines on marks of these entries that are not looked at, and on boxes among them.
    """

    path: Path
    by_image: dict[int, list[Instance]]
    instances: int
    other_images: int
    other_labels: dict[str, int]
    sizes: dict[int, tuple[int, int]]
    empty: int = 0
    other_image: str = ""
    unscored: int = 0
    marks: tuple[str, ...] = ()


def read_results(
    path: Path, samples: Sequence[Sample], dataset: Dataset, renames: Mapping[str, str], names_from: Path | None = None
) -> Results:
    """Read a list of results, or a file with `annotations`, and `images` and `categories` that name what ids mean.

    Takes about twice the size of the file in memory; the shapes stay in the file.

    Args:
        samples: the photographs that count.
        renames: from a label of the file to a class.
        names_from: another JSON with `images` and `categories`, for results that have ids alone.
    Raises:
        DataError: it is missing, no JSON, or an entry has no image, label, shape or score that can be taken; an id is
            another one's in `names_from`; images of two names are taken for one photograph; no entry is of a
            photograph of the list, or of a class, or has an outline that covers something, or a score above 0.
        UsageError: ids without names, or a rename to no class, or of a label that is not there.
    """
    images: dict[Any, str] = {}
    categories: dict[Any, str] = {}
    listed: dict[Any, tuple[int, int]] = {}
    for file in (names_from, path):
        if file is not None:
            _read_names(file, images, categories, listed)
    places = places_by_name(samples)
    classes = {name: index for index, name in enumerate(dataset.classes) if index}
    for target in renames.values():
        if target not in classes:
            raise UsageError(f"--rename: there is no class {target!r}", known_classes(target, list(classes)))
    by_image: dict[int, list[Instance]] = {}
    named: dict[int, str] = {}
    sizes: dict[int, tuple[int, int]] = {}
    total = others = empty = taken = unscored = 0
    other = ""
    unknown: Counter[str] = Counter()
    seen: set[str] = set()
    marks = Marks()
    for key, start, end, entry in elements(json_text(path), alone=True):
        if key != "annotations":
            continue
        check_stop()
        total += 1
        where = f"{path}: entry {total}"
        image, label = _image(entry, images, where), _label(entry, categories, where)
        score = _score(entry, where)
        seen.add(label)
        refuse_unshaped(entry, where, "boxes alone make no mask: write RLE or polygons")
        place = place_of(image, places)
        index = class_of(renames.get(label, label), classes)
        if place is not None and named.setdefault(place, image) != image:
            raise DataError(
                f"{path}: {named[place]} and {image} are both taken for the photograph {samples[place].id}",
                "leave out those that are not of the list, or name photographs by their ids",
            )
        if place is None:
            others, other = others + 1, other or image
        elif index is None:
            unknown[label] += 1
        else:
            by_image.setdefault(place, []).append(Instance(index, score, start, end))
            if is_id(number := entry.get("image_id")) and number in listed:
                sizes[place] = listed[number]
            shape = entry["segmentation"]
            taken, empty = taken + 1, empty + covers_nothing(shape)
            unscored += all(entry.get(key) is None for key in SCORES)
            marks.see(entry)
            marks.see_region(shape)
    refuse_unused(renames, seen, path)
    if taken and empty == taken:
        raise DataError(
            f"{path}: no outline of its {taken:,} entries covers more than a pixel",
            "boxes alone make no mask: write RLE or polygons, in pixels and not in shares of the image",
        )
    if taken and not any(one.score for several in by_image.values() for one in several):
        raise DataError(
            f"{path}: every score is 0", f"{' or '.join(SCORES)} is from 0 to 1; without one an entry counts as 1"
        )
    _refuse_nothing(path, total, others, unknown, classes, by_image, f"{other} is none, {samples[0].id} is one")
    return Results(
        path, by_image, total, others, dict(unknown), sizes, empty, other, unscored, tuple(marks.lines(path.name))
    )


def places_by_name(samples: Sequence[Sample]) -> dict[str, int]:
    """The place of each photograph by its id, its file name and that without its ending; -1 where two share one.

    Accents are composed, but in ids also as they are written. Where an id with the ending of its file is the id of
    another one (a.jpg beside a.jpg.png), '/' and that name has the place of the file.
    """
    places: dict[str, int] = {}
    for place, sample in enumerate(samples):
        if place % 4096 == 0:
            check_stop()
        for name in {*map(composed, (sample.id, sample.image.name, sample.image.stem))} - {sample.id}:
            places[name] = -1 if name in places else place
    for place, sample in enumerate(samples):  # an id is what it names, whatever else is called so
        places[sample.id] = place
    for place, sample in enumerate(samples):
        name = f"{sample.id}{sample.image.suffix}"
        if places.get(name, place) != place:
            places[f"/{name}"] = place
    return places


def refuse_unused(renames: Mapping[str, str], labels: Collection[str], path: Path) -> None:
    """Refuse renames of labels that a file does not have.

    Raises:
        UsageError: naming the first, and the labels.
    """
    for old in renames:
        if labels and old not in labels:
            known = ", ".join(sorted(labels)[:20])
            raise UsageError(f"--rename: no label in {path} is {old!r}", f"{nearest(old, labels)}labels: {known}")


def composed(name: str) -> str:
    """A name with composed accents (NFC): some systems and archives write a letter and its accent one by one."""
    return unicodedata.normalize("NFC", name)


def place_of(image: str, places: Mapping[str, int], *, of_map: bool = False) -> int | None:
    """The place of the photograph that a name in a file means; None: it is not in the list.

    A name that is an id, but for an ending, means that one, whatever others are called; digits are no ending. Where
    it is an id as it stands, too, that of another one, it means the photograph whose file is called so.

    Args:
        of_map: it is the name of a label map or of scores, ID.png or ID.npz: its ending is none of the photograph's.
    Raises:
        DataError: it may be two.
    """
    plain = PurePosixPath(image.replace("\\", "/"))
    if not plain.name:  # '', '.' or '/'
        return None
    whole = plain if plain.suffix[1:].isdigit() else plain.with_suffix("")
    if not of_map and (file := places.get(f"/{plain}")) is not None:
        return file
    written = (str(whole), image, plain.name, whole.name) if of_map else (image, str(whole), plain.name, whole.name)
    names = written if image.isascii() else (*written, *map(composed, written))
    seen = [places[name] for name in names if name in places]
    exact = [places[name] for name in written[:2] if places.get(name, -1) >= 0]
    place = next(iter(exact or seen), None)
    if place is not None and place < 0:
        raise DataError(f"{image} may be more than one photograph", "name photographs by their ids")
    return place


def json_text(path: Path) -> str:
    """A JSON file with a character for each byte, which is what `elements` reads. Of a large one it is said that it is
    read: that takes a while.

    Raises:
        DataError: it cannot be read, or is UTF-16.
    """
    try:
        if (size := path.stat().st_size) > LARGE:
            say(f"reading {path}, {size / 1e6:,.0f} MB")
        text = path.read_bytes().decode("latin-1")  # a character is a byte: what JSON is made of is ASCII
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    if text.startswith(("\xff\xfe", "\xfe\xff")):
        raise DataError(f"{path} is UTF-16 text", "save it as UTF-8")
    return text


def _read_names(
    path: Path, images: dict[Any, str], categories: dict[Any, str], sizes: dict[Any, tuple[int, int]]
) -> None:
    """Add the names of the images and categories of a file, and the sizes of images; ids keep what they mean."""
    text, known = json_text(path), dict[tuple[str, Any], str]()
    before = {"images": dict(images), "categories": dict(categories)}
    try:
        for key, start, end, _ in elements(text, alone=True):
            if key == "annotations":
                continue
            entry = json.loads(text[start:end].encode("latin-1"))
            field, names = ("file_name", images) if key == "images" else ("name", categories)
            if not isinstance(entry, dict) or "id" not in entry or not isinstance(entry.get(field), str):
                raise DataError(f"{path}: an entry of {key} has no id and {field}: {json.dumps(entry)[:200]}")
            if known.setdefault((key, entry["id"]), entry[field]) != entry[field]:
                both = f"{known[key, entry['id']]!r} and {entry[field]!r}"
                raise DataError(f"{path}: {key} of id {entry['id']!r} are {both}", "give each an id of its own")
            other: str = before[key].get(entry["id"]) or entry[field]
            if PurePosixPath(other).name.casefold() != PurePosixPath(entry[field]).name.casefold():
                raise DataError(
                    f"{path}: {key} of id {entry['id']!r} are {entry[field]!r}, and {other!r} in the file of --names",
                    "leave out --names: the file names its own ids; or take another file of names",
                )
            names[entry["id"]] = entry[field]
            sides = entry.get("height") or None, entry.get("width") or None
            if key == "images" and sides != (None, None):  # 0, too, says that it is not known
                if (size := listed_size(*sides)) is None:
                    said = "the height and width of an image are no whole numbers above 0"
                    raise DataError(f"{path}: {said}: {json.dumps(entry)[:200]}", f"{SIDES}; or leave both out")
                sizes[entry["id"]] = size
    except (ValueError, RecursionError) as error:
        where = f" at byte {error.pos:,} of {len(text):,}" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(f"{path} is not valid JSON{where}: {str(error).split(': line')[0]}", "write it anew") from error


def _utf8(text: str) -> str:
    """A text of the file, whose bytes were taken for characters."""
    return text.encode("latin-1", "replace").decode("utf-8", "replace") if not text.isascii() else text


def _image(entry: Any, images: Mapping[Any, str], where: str) -> str:
    if not isinstance(entry, dict):
        raise DataError(f"{where} is no object with an image, a label and a segmentation")
    if isinstance(entry.get("annotations"), list):
        raise DataError(f"{where} is an image with annotations of its own, as Grounded SAM 2 writes them", ONE_LIST)
    named = next((entry[key] for key in IMAGES if isinstance(entry.get(key), str)), None)
    if named is not None:
        return _utf8(named)
    number = entry.get("image_id")
    if is_id(number) and number in images:
        return images[number]
    if isinstance(number, str):
        return _utf8(number)
    raise DataError(
        f"{where} names no image" if number is None else f"{where} has image_id {number!r}, which nothing names",
        "results need a file_name, or --names FILE with the `images` and `categories` that they were made for",
    )


def _label(entry: Mapping[str, Any], categories: Mapping[Any, str], where: str) -> str:
    named = next((entry[key] for key in LABELS if isinstance(entry.get(key), str)), None)
    if named is not None:
        return _utf8(named)
    number = entry.get("category_id")
    if is_id(number) and number in categories:
        return categories[number]
    if number is None:
        raise DataError(f"{where} has no label", f"one of {', '.join(LABELS)}, or a category_id")
    return str(number)  # which --rename may name


def _score(entry: Mapping[str, Any], where: str) -> float:
    score = next((entry[key] for key in SCORES if entry.get(key) is not None), 1.0)
    if isinstance(score, bool) or not isinstance(score, (int, float)) or not 0 <= score <= 1:
        raise DataError(f"{where} has the score {score!r}", "scores are numbers from 0 to 1")
    return float(score)


def class_of(label: str, classes: Mapping[str, int]) -> int | None:
    """The class that a label means: its name, also in other case, with accents written otherwise, or with a full stop
    at its end, as prompts have it.
    """
    if label in classes:
        return classes[label]
    plain = composed(label.strip().rstrip(".").strip().casefold())
    alike = [index for name, index in classes.items() if composed(name.casefold()) == plain]
    return alike[0] if len(alike) == 1 else None


def known_classes(name: str, classes: Sequence[str]) -> str:
    """The first classes, and the one that a name is near to: a hint."""
    return f"{nearest(name, classes)}classes are {', '.join(classes[:20])}{', ...' if len(classes) > 20 else ''}"


def _refuse_nothing(
    path: Path,
    total: int,
    others: int,
    unknown: Counter[str],
    classes: Mapping[str, int],
    by_image: Mapping[int, Sequence[Instance]],
    names: str,
) -> None:
    if by_image:
        return
    if not total:
        if tool := tool_of_file(path):
            raise DataError(f"{path} is {tool}, which is not read", CONVERT)
        raise DataError(f"{path} has no entry", "is it a list of results, or a file with annotations?")
    if others == total:
        raise DataError(
            f"{path}: of {counted(total, 'instance')} none is of a photograph of the list: {names}",
            "they name photographs by their files or ids; of which list, --split says",
        )
    first = unknown.most_common(1)[0][0]
    raise DataError(
        f"none of the labels in {path} is a class: {', '.join(repr(name) for name, _ in unknown.most_common(5))}",
        f"{rename_option(first, 'CLASS')} maps one; classes are {', '.join(list(classes)[:20])}",
    )
