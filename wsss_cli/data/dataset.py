"""The data set directory: what `wsss prepare` writes, what every stage reads, what a user may write by hand.

dataset.json         name, classes with colours, source, protocol notes, sha256 of each split
splits/<split>.csv   id,image,mask,labels[,width,height]: see `data/splits.py`
masks/               only what had to be converted
findings.json        every problem found while preparing
"""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsss_cli.config.forms import write_form
from wsss_cli.data.ids import check_id as check_id
from wsss_cli.data.ids import nearest as nearest
from wsss_cli.data.ids import refuse_duplicates as refuse_duplicates
from wsss_cli.data.packed import has_twins
from wsss_cli.data.records import ClassRecord, DatasetRecord, SplitRecord, read_dataset
from wsss_cli.data.splits import Sample as Sample
from wsss_cli.data.splits import Split, write_split
from wsss_cli.errors import DataError
from wsss_cli.files import at_home, remove_temporaries, write_json
from wsss_cli.talk import counted, say


@dataclass(frozen=True)
class Dataset:
    """A data set directory; class 0 is the background, `colors` are RGB in 0..255.

    Attributes:
        split_sha256: of each list as it was when the data set was opened.
        edited: splits whose list has another SHA-256 than the one in dataset.json.
        lists: by name, as they are held open.
        limit: images of each split that count, the first ones; 0: all. A data set with a limit is another one by its
            fingerprint, and says in its protocol that nothing made from it is a result.
    """

    root: Path
    name: str
    classes: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    protocol: tuple[str, ...]
    split_sha256: dict[str, str]
    fingerprint: str
    edited: tuple[str, ...] = ()
    lists: dict[str, Split] = field(default_factory=dict, compare=False, repr=False)
    limit: int = 0

    @property
    def num_classes(self) -> int:
        """Number of classes, background included."""
        return len(self.classes)

    def has_masks(self, name: str) -> bool:
        """Whether there is a split of this name, and an image in it has a mask to score against.

        Raises:
            DataError: as `split`.
        """
        return name in self.split_sha256 and any(self.split(name).masked)

    def split(self, name: str) -> Split:
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
        samples = self.lists.get(name)
        if samples is None or not samples.is_as_opened():
            samples = Split(self.root, name, self.classes, self.limit)
            if not samples:
                raise _empty(name, self.root)
            if samples.sha256 != self.split_sha256[name]:
                raise samples.changed()
            self.lists[name] = samples
        if not samples:
            raise _empty(name, self.root)
        return samples


def _empty(split: str, root: Path) -> DataError:
    return DataError(f"split '{split}' of data set {root} is empty", "run `wsss prepare` again")


def data_places(root: Path | None, *names: str) -> list[Path]:
    """Where to look for source data: the folder given, else ./NAME, ./data/NAME, $WSSS_DATA and $WSSS_DATA/NAME."""
    if root is not None:
        return [root]
    places = [folder / name for name in names for folder in (Path(), Path("data"))]
    if environment := at_home(os.environ.get("WSSS_DATA", "")):
        places += [Path(environment), *(Path(environment) / name for name in names)]
    return places


def source_home() -> Path:
    """Where source data goes that is fetched: $WSSS_DATA, else ./data."""
    return Path(at_home(os.environ.get("WSSS_DATA") or "data"))


def open_dataset(path: str | Path, say: Callable[[str], None] = say, limit: int = 0) -> Dataset:
    """Open a data set directory; lists that were changed after `wsss prepare` are taken as they are, and that is said.

    Args:
        limit: see `Dataset`.
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
    lists = {name: Split(root, name, classes, limit) for name in names}
    hashes = {name: listed.sha256 for name, listed in lists.items()}
    recorded = {name: split.sha256 for name, split in record.splits.items() if split.sha256}
    edited = tuple(name for name, sha256 in recorded.items() if hashes[name] != sha256)
    if edited:
        changed = ", ".join(f"{name}.csv" for name in edited)
        say(
            f"{root}/splits: {changed} changed after `wsss prepare` (another SHA-256 than in dataset.json): taken as is"
        )
    return Dataset(
        root=root,
        name=record.name or root.name,
        classes=classes,
        colors=record.colors,
        protocol=(*([not_a_result(limit)] if limit else []), *record.protocol),
        split_sha256=hashes,
        fingerprint=_fingerprint(hashes, classes, record.source, limit),
        edited=edited,
        lists=lists,
        limit=limit,
    )


def begin_dataset(root: Path) -> None:
    """To be called before anything changes in a directory: what was there is no data set any more until it is written.

    Removes dataset.json, which `write_dataset` writes last, and what killed work has left half written.
    """
    (root / "dataset.json").unlink(missing_ok=True)
    (root / "shards" / "done.json").unlink(missing_ok=True)  # see `stages/prepare_shards.py`
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
    for split, samples in splits.items():
        if not samples:
            raise DataError(f"split '{split}' of {name} is empty", "check the lists, tags and --classes")
        hashes_of_ids = array("q")
        for sample in samples:
            check_id(sample.id, f"split '{split}'")
            hashes_of_ids.append(hash(sample.id))
        if has_twins(hashes_of_ids):
            refuse_duplicates((sample.id for sample in samples), f"split '{split}'")
    begin_dataset(root)
    for stale in (root / "splits").glob("*.csv"):
        if stale.stem not in splits:
            stale.unlink()
    hashes = {}
    for split, samples in splits.items():
        write_split(root, split, samples, classes)
        hashes[split] = Split(root, split, classes).sha256
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


HIGHER = "a higher --limit takes more images"
"""What helps where the first images of a split are not enough."""


def first_ones(limit: int) -> str:
    """' (limit 4: the first 4 images)', behind the name of a split; empty without a limit."""
    return f" (limit {limit}: the first {counted(limit, 'image')})" if limit else ""


def not_a_result(limit: int) -> str:
    """What all that is made with a limit says of itself."""
    return f"limit {limit}: not a result"


def _fingerprint(split_sha256: Mapping[str, str], classes: Sequence[str], source: str, limit: int = 0) -> str:
    content = {"splits": dict(sorted(split_sha256.items())), "classes": list(classes), "source": source}
    if limit:
        content["limit"] = [str(limit)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
