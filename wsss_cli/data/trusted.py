"""Labels of a data set that may be trained on, beside the truth that it is scored with: whole masks, and partial ones.

trusted/<id>.png    class indices; 255: nothing is said (of a whole mask: no label)
trusted/index.csv   id,kind,sha256,source: which there are; written last
trusted/.parts      of what kinds they are (`data/joined.py`)
"""

from __future__ import annotations

import csv
import hashlib
import io
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from wsss_cli.data.dataset import Dataset, Sample
from wsss_cli.data.joined import (
    HINT,
    PARTS,
    Joined,
    Part,
    PartKind,
    Parts,
    join,
    joined_source,
    part_place,
    read_part,
    read_parts,
    write_parts,
)
from wsss_cli.errors import DataError
from wsss_cli.files import remove_temporaries, sha256_file, write_text
from wsss_cli.labels import IGNORE
from wsss_cli.talk import sides

if TYPE_CHECKING:
    import numpy as np  # which planning does without

Kind = Literal["mask", "partial"]
FOLDER, INDEX, COLUMNS = "trusted", "index.csv", ["id", "kind", "sha256", "source"]
ASIDE = ".trusted.new"  # beside them: label maps that are not all there yet


@dataclass(frozen=True)
class Entry:
    """A label map: whole ('mask'), or 'partial'; SHA-256 of its file; what it came from, in words."""

    kind: Kind
    sha256: str
    source: str

    def verify(self, file: Path) -> None:
        """See that a file is the one that the index says.

        Raises:
            DataError: it is gone, or another one.
        """
        if sha256_file(file) != self.sha256:
            raise DataError(f"{file} is another one than {INDEX} says", "add it again: wsss prepare labels")


@dataclass(frozen=True)
class Labels:
    """The label map of a photograph: what the index says of it, and its file."""

    entry: Entry
    file: Path

    def read(self) -> np.ndarray:
        """Class indices and 255, uint8 [H, W].

        Raises:
            DataError: it is gone, damaged, or another one than the index says.
        """
        from wsss_cli.data.masks import read_mask

        self.entry.verify(self.file)
        return read_mask(self.file)

    @property
    def kind(self) -> Kind:
        """Whole ('mask'), or 'partial'."""
        return self.entry.kind

    def over(self, pseudo: np.ndarray, confidence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A pseudo mask with what is given in its place: all of it by a whole mask, what is said by a partial one.

        Args:
            pseudo: class indices or 255, uint8 [H, W].
            confidence: of it, float32 [H, W] in [0, 1].
        Returns:
            (mask, confidence); what is given is certain.
        Raises:
            DataError: as `read`; or the sizes differ.
        """
        import numpy as np

        labels = self.read()
        if labels.shape != pseudo.shape:
            raise DataError(
                f"{self.file} is {sides(labels.shape)}, its photograph {sides(pseudo.shape)}",
                "add it again at the size of the photograph as shown: wsss prepare labels",
            )
        said = labels != IGNORE
        if self.kind == "mask":
            return labels, said.astype(np.float32)
        return np.where(said, labels, pseudo), np.where(said, np.float32(1), confidence)


@dataclass(frozen=True)
class TrustedLabels:
    """The labels of a data set, by id of their photographs.

    Attributes:
        fingerprint: SHA-256 of the index, which has that of every file; empty where there are none.
    """

    folder: Path
    entries: Mapping[str, Entry]
    fingerprint: str

    def file(self, name: str) -> Path:
        """The label map of a photograph."""
        return self.folder / f"{name}.png"

    def of(self, name: str) -> Labels | None:
        """Those of a photograph; None: it has none."""
        entry = self.entries.get(name)
        return Labels(entry, self.file(name)) if entry else None


def read_trusted(root: Path) -> TrustedLabels:
    """The labels of a data set directory; none where it has no index.

    Raises:
        DataError: the index is damaged.
    """
    folder = root / FOLDER
    try:
        data = (folder / INDEX).read_bytes()
    except FileNotFoundError:
        return TrustedLabels(folder, {}, "")
    except OSError as error:
        raise DataError(f"cannot read {folder / INDEX}: {error.strerror}") from error
    entries: dict[str, Entry] = {}
    try:
        rows = list(csv.reader(io.StringIO(data.decode("utf-8"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{folder / INDEX} is damaged: {error}", HINT) from error
    if not rows or rows[0] != COLUMNS:
        raise DataError(f"{folder / INDEX} has not the columns {','.join(COLUMNS)}", HINT)
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(COLUMNS) or row[1] not in ("mask", "partial") or row[0] in entries:
            raise DataError(f"{folder / INDEX}, line {number}: {','.join(row)[:200]!r} is no entry", HINT)
        entries[row[0]] = Entry(cast(Kind, row[1]), row[2], row[3])
    return TrustedLabels(folder, entries, hashlib.sha256(data).hexdigest())


def add_trusted(
    dataset: Dataset,
    maps: Iterable[tuple[Sample, Path, np.ndarray]],
    kind: PartKind,
    source: str,
    check: Callable[[], object] = lambda: None,
    *,
    clear: bool = False,
    joined: Joined | None = None,
) -> TrustedLabels:
    """Add label maps of one kind to a data set: they take the place of those of this kind, and are joined with others.

    They are all looked at, and written aside, before any that is there is touched.

    Args:
        maps: (photograph, the file that the map is of, class indices and 255, uint8 [H, W]).
        source: what they came from, in words.
        check: called for each; what it raises ends the work, and nothing is added.
        clear: the others go.
        joined: told of photographs that have labels of several kinds, or of classes that are none of their tags.
    Raises:
        DataError: one has another size than its photograph, or a value that is no class; nothing is added, and all that
            was there still is.
    """
    there = TrustedLabels(dataset.root / FOLDER, {}, "")
    entries = {} if clear else dict(read_trusted(dataset.root).entries)
    noted = {} if clear else read_parts(there.folder)
    parts: Parts = {name: noted.get(name) or {one.kind: Part(one.sha256, one.source)} for name, one in entries.items()}
    aside = TrustedLabels(dataset.root / ASIDE, {}, "")
    shutil.rmtree(aside.folder, ignore_errors=True)  # of a process that was killed
    try:
        for sample, of, labels in maps:
            check()
            (joined := joined or Joined()).turned += _check_labels(dataset, sample, of, labels)
            joined.untagged += _beside_tags(sample, labels)
            before = {other: part for other, part in parts.get(sample.id, {}).items() if other != kind}
            every = {other: read_part(there.folder, sample.id, other, part) for other, part in before.items()}
            one = _write_one(dataset, aside, sample.id, {**every, kind: labels}, joined)
            alone = part_place(aside.folder, sample.id, kind) if every else aside.file(sample.id)
            parts[sample.id] = {**before, kind: Part(sha256_file(alone), source)}
            whole = "mask" in parts[sample.id]
            entries[sample.id] = Entry("mask" if whole else "partial", one, joined_source(parts[sample.id]))
        _move(aside.folder, there.folder)
        write_parts(there.folder, parts)
        write_index(there.folder, entries)
    finally:
        shutil.rmtree(aside.folder, ignore_errors=True)
    if clear:
        listed = {there.file(name) for name in entries}
        for file in [file for file in there.folder.rglob("*.png") if file not in listed]:
            file.unlink()
    return read_trusted(dataset.root)


def _check_labels(dataset: Dataset, sample: Sample, of: Path, labels: np.ndarray) -> bool:
    """Refuse labels of another size or with other values; whether the photograph is turned, and its size the same."""
    from wsss_cli.data.images import shown, stored_size
    from wsss_cli.data.masks import check_values

    stored, orientation = stored_size(sample.image)
    size = shown(stored, orientation)
    if labels.shape != size:
        raise DataError(
            f"{of} is {sides(labels.shape)}, its photograph {sides(size)}",
            "label maps have the size of the photograph as it is shown (EXIF applied)",
        )
    check_values(labels, dataset.num_classes, of)
    return orientation != 1 and size == stored


def _beside_tags(sample: Sample, labels: np.ndarray) -> bool:
    """Whether labels hold a class that is no tag of their photograph, which has some."""
    import numpy as np

    return bool(sample.labels) and not set(np.unique(labels).tolist()) <= {0, IGNORE, *sample.labels}


def _write_one(
    dataset: Dataset, aside: TrustedLabels, name: str, maps: Mapping[PartKind, np.ndarray], joined: Joined
) -> str:
    """Write the labels of a photograph aside, each kind by itself where there are several: SHA-256 of all in one."""
    from wsss_cli.data.masks import write_mask

    if len(maps) > 1:
        for kind, labels in maps.items():
            write_mask(part_place(aside.folder, name, kind), labels, dataset.colors)
    labels = join(maps, joined) if len(maps) > 1 else next(iter(maps.values()))
    write_mask(aside.file(name), labels, dataset.colors)
    return sha256_file(aside.file(name))


def _move(aside: Path, there: Path) -> None:
    """Put what was written aside in its place, each kind by itself before what several make."""
    there.mkdir(exist_ok=True)
    remove_temporaries(there)
    files = [file.relative_to(aside) for file in aside.rglob("*.png")]
    for file in sorted(files, key=lambda file: (file.parts[0] != PARTS, file)):
        (there / file).parent.mkdir(parents=True, exist_ok=True)
        (aside / file).replace(there / file)


def clear_trusted(root: Path) -> None:
    """Take away the labels of a data set; the index first, so that none is believed that is gone."""
    folder = root / FOLDER
    if folder.is_dir():
        (folder / INDEX).unlink(missing_ok=True)
        shutil.rmtree(folder)


def write_index(folder: Path, entries: Mapping[str, Entry]) -> None:
    """Write which labels there are, in the order of their ids."""
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    rows.writerows((name, one.kind, one.sha256, one.source) for name, one in sorted(entries.items()))
    write_text(folder / INDEX, text.getvalue())
