"""The data set directory: what `wsss prepare` writes, what every stage reads, what a user may write by hand.

dataset.json         name, classes with colours, source, protocol notes, sha256 of each split
splits/<split>.csv   id,image,mask,labels; mask may be empty; labels are class names joined by '|'
masks/               only what had to be converted
findings.json        every problem found while preparing
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from wsss_cli.config.forms import write_form
from wsss_cli.data.records import ClassRecord, DatasetRecord, SplitRecord, read_dataset
from wsss_cli.errors import DataError
from wsss_cli.files import remove_temporaries, write_json, write_text
from wsss_cli.talk import say

COLUMNS = ("id", "image", "mask", "labels")


@dataclass(frozen=True)
class Sample:
    """One image of a split; `labels` are the class indices (1..K-1, sorted) of its image-level tags."""

    id: str
    image: Path
    mask: Path | None
    labels: tuple[int, ...]


@dataclass(frozen=True)
class Dataset:
    """A data set directory; class 0 is the background, `colors` are RGB in 0..255.

    Attributes:
        split_sha256: of each list as it was when the data set was opened.
        edited: splits whose list has another SHA-256 than the one in dataset.json.
    """

    root: Path
    name: str
    classes: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    protocol: tuple[str, ...]
    split_sha256: dict[str, str]
    fingerprint: str
    edited: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """Number of classes, background included."""
        return len(self.classes)

    def split(self, name: str) -> list[Sample]:
        """The samples of a split in the order of its file, with absolute paths.

        Raises:
            DataError: there is no such split, it is empty, a row of it cannot be taken, or it has changed since the
                data set was opened: what is made of it would be taken for something made of the list before.
        """
        if name not in self.split_sha256:
            there = ", ".join(self.split_sha256) or "none"
            raise DataError(
                f"data set {self.root} has no split '{name}'", f"{nearest(name, self.split_sha256)}it has: {there}"
            )
        samples = _read_split(self.root, name, self.classes)
        if not samples:
            raise DataError(f"split '{name}' of data set {self.root} is empty", "run `wsss prepare` again")
        if _split_sha256(samples, self.classes) != self.split_sha256[name]:
            raise DataError(
                f"{self.root}/splits/{name}.csv has changed while it was worked with (another SHA-256)",
                "run the same command again: a changed list gets runs of its own",
            )
        return samples


def nearest(word: str, known: Iterable[str]) -> str:
    """'did you mean ...? ', or nothing where no known word is close."""
    matches = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean '{matches[0]}'? " if matches else ""


def data_places(root: Path | None, *names: str) -> list[Path]:
    """Where to look for source data: the folder given, else ./NAME, ./data/NAME, $WSSS_DATA and $WSSS_DATA/NAME."""
    if root is not None:
        return [root]
    places = [folder / name for name in names for folder in (Path(), Path("data"))]
    if environment := os.environ.get("WSSS_DATA"):
        places += [Path(environment), *(Path(environment) / name for name in names)]
    return places


def source_home() -> Path:
    """Where source data goes that is fetched: $WSSS_DATA, else ./data."""
    return Path(os.environ.get("WSSS_DATA") or "data")


def check_id(name: str, where: str) -> str:
    """The id itself, if files can be named after it.

    Raises:
        DataError: it is empty, absolute, holds '..' or a control character; `where` goes into the message.
    """
    parts = PurePosixPath(name).parts
    if not name or name.startswith("/") or ".." in parts or any(ord(char) < 32 for char in name):
        raise DataError(
            f"{where}: {name!r} cannot be an id",
            "ids become file names: relative, not empty, without '..' and control characters",
        )
    return name


def refuse_duplicates(ids: Iterable[str], where: str) -> None:
    """Refuse ids that occur more than once.

    Raises:
        DataError: naming the first few.
    """
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise DataError(
            f"{where}: {len(twice)} duplicate ids: {', '.join(twice[:5])}{' ...' if len(twice) > 5 else ''}",
            "every id may occur once",
        )


def open_dataset(path: str | Path, say: Callable[[str], None] = say) -> Dataset:
    """Open a data set directory; lists that were changed after `wsss prepare` are taken as they are, and that is said.

    Raises:
        DataError: there is no dataset.json, or it cannot be taken; a listed split file is missing.
    """
    root = Path(path).absolute()
    record = read_dataset(Path(path))
    classes = record.names
    names = sorted(file.stem for file in (root / "splits").glob("*.csv"))
    for name in record.splits:
        if name not in names:
            raise DataError(f"{root / 'splits' / name}.csv is missing", "run `wsss prepare` again")
    hashes = {name: _split_sha256(_read_split(root, name, classes), classes) for name in names}
    recorded = {name: split.sha256 for name, split in record.splits.items() if split.sha256}
    edited = tuple(name for name, sha256 in recorded.items() if hashes[name] != sha256)
    if edited:
        lists = ", ".join(f"{name}.csv" for name in edited)
        say(f"{root}/splits: {lists} changed after `wsss prepare` (another SHA-256 than in dataset.json): taken as is")
    return Dataset(
        root=root,
        name=record.name or root.name,
        classes=classes,
        colors=record.colors,
        protocol=record.protocol,
        split_sha256=hashes,
        fingerprint=_fingerprint(hashes, classes, record.source),
        edited=edited,
    )


def begin_dataset(root: Path) -> None:
    """To be called before anything changes in a directory: what was there is no data set any more until it is written.

    Removes dataset.json, which `write_dataset` writes last, and what killed work has left half written.
    """
    (root / "dataset.json").unlink(missing_ok=True)
    remove_temporaries(root)


def write_dataset(
    root: str | Path,
    *,
    name: str,
    classes: Sequence[str],
    colors: Sequence[tuple[int, int, int]],
    splits: Mapping[str, Sequence[Sample]],
    source: str,
    protocol: Sequence[str],
    findings: Sequence[dict[str, Any]],
) -> Dataset:
    """Write the lists and records of a data set; dataset.json comes last, so that a half-written one is not opened.

    Args:
        root: the directory; masks that had to be converted are in its `masks/` already.
        classes: names, background first.
        colors: RGB in 0..255, one for each class.
        splits: samples by split; paths inside `root` are stored relative to it.
        source: what it was made from, without absolute paths: part of the fingerprint.
        protocol: notes for the protocol lines of tables.
        findings: problems found, each with `file`, `code`, `message` and `hint`.
    Raises:
        DataError: a split is empty, has duplicate ids or ids that cannot name a file, or the disk is full.
    """
    root = Path(root).absolute()
    hashes = {}
    for split, samples in splits.items():
        if not samples:
            raise DataError(f"split '{split}' of {name} is empty", "check the lists, tags and --classes")
        refuse_duplicates((sample.id for sample in samples), f"split '{split}'")
        for sample in samples:
            check_id(sample.id, f"split '{split}'")
        hashes[split] = _split_sha256(samples, classes)
    begin_dataset(root)
    for stale in (root / "splits").glob("*.csv"):
        if stale.stem not in splits:
            stale.unlink()
    for split, samples in splits.items():
        write_text(root / "splits" / f"{split}.csv", _split_text(samples, classes, root))
    write_json(root / "findings.json", list(findings))
    record = DatasetRecord(
        name=name,
        source=source,
        classes=tuple(ClassRecord(name=label, color=color) for label, color in zip(classes, colors, strict=True)),
        protocol=tuple(protocol),
        splits={split: SplitRecord(images=len(samples), sha256=hashes[split]) for split, samples in splits.items()},
    )
    write_form(root / "dataset.json", record)
    return open_dataset(root)


def _read_split(root: Path, name: str, classes: Sequence[str]) -> list[Sample]:
    file = root / "splits" / f"{name}.csv"
    index = {label: position for position, label in enumerate(classes) if position}
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {file}: {error}", "run `wsss prepare` again") from error
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    samples = []
    try:
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise DataError(f"{file} must start with the line {','.join(COLUMNS)}", "run `wsss prepare` again")
        for row in reader:
            where = f"{file}, line {reader.line_num}"
            if None in row or None in row.values() or not row["image"]:
                raise DataError(f"{where}: not the four fields {','.join(COLUMNS)}", "quote fields that hold a comma")
            tags = [tag for tag in row["labels"].split("|") if tag]
            for tag in tags:
                if tag not in index:
                    known = f"{nearest(tag, index)}classes: {', '.join(index)}"
                    raise DataError(f"{where}: unknown class '{tag}'", known)
            mask = root / row["mask"] if row["mask"] else None
            labels = tuple(sorted({index[tag] for tag in tags}))
            samples.append(Sample(check_id(row["id"], where), root / row["image"], mask, labels))
    except csv.Error as error:
        raise DataError(f"{file}, line {reader.line_num}: {error}", "run `wsss prepare` again") from error
    refuse_duplicates((sample.id for sample in samples), str(file))
    return samples


def _split_text(samples: Sequence[Sample], classes: Sequence[str], root: Path) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for sample in samples:
        mask = _stored_path(sample.mask, root) if sample.mask else ""
        labels = "|".join(classes[label] for label in sample.labels)
        writer.writerow((sample.id, _stored_path(sample.image, root), mask, labels))
    return text.getvalue()


def _stored_path(path: Path, root: Path) -> str:
    path = path.absolute()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _split_sha256(samples: Sequence[Sample], classes: Sequence[str]) -> str:
    """Hash of a split's rows. File names count, folders do not: the same data elsewhere is the same split."""
    rows = [
        [
            sample.id,
            sample.image.name,
            f"{sample.mask.parent.name}/{sample.mask.name}" if sample.mask else "",
            [classes[label] for label in sample.labels],
        ]
        for sample in samples
    ]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _fingerprint(split_sha256: Mapping[str, str], classes: Sequence[str], source: str) -> str:
    content = {"splits": dict(sorted(split_sha256.items())), "classes": list(classes), "source": source}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
