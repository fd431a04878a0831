"""splits/<split>.csv: the images of a split. Read row by row when they are asked for; 25 bytes of each are held.

Of many images these lie in a file without a name (`data/packed.py`), which is gone with the process.

id,image,mask,labels                 mask may be empty; labels are class names joined by '|'; image may be a URL
id,image,mask,labels,width,height    of the photograph as shown, EXIF applied; both may be empty
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from json.encoder import encode_basestring_ascii as quoted
from pathlib import Path
from typing import Any, overload

from wsss_cli.data.ids import PLAIN_ID, check_id, nearest, refuse_duplicates
from wsss_cli.data.packed import Packed, has_twins
from wsss_cli.data.remote import check_url
from wsss_cli.errors import DataError
from wsss_cli.files import whole_file
from wsss_cli.processes import check_stop
from wsss_cli.rows import Rows

COLUMNS = ("id", "image", "mask", "labels")
SIZE_COLUMNS = ("width", "height")
HEADS = (COLUMNS, COLUMNS + SIZE_COLUMNS)
BLOCK = 512  # rows that are read at a time
MANY = 4096  # rows after which the stop flag is looked at
AGAIN = "run `wsss prepare` again"
Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of a split; `labels` are the class indices (1..K-1, sorted) of its image-level tags.

    Attributes:
        size: height and width as shown, as the list has them; None: it does not say.
    """

    id: str
    image: Path
    mask: Path | None
    labels: tuple[int, ...]
    size: Size | None = field(default=None, compare=False)


@dataclass(frozen=True)
class _Format:
    """How the rows of a list are read."""

    root: Path
    index: dict[str, int]
    columns: int

    def sample(self, fields: Sequence[str]) -> Sample:
        mask = self.root / fields[2] if fields[2] else None
        size = (int(fields[5]), int(fields[4])) if self.columns > len(COLUMNS) and fields[4] else None
        image = Path(fields[1]) if "://" in fields[1] else self.root / fields[1]
        return Sample(fields[0], image, mask, self.labels(fields[3]), size)

    def labels(self, text: str) -> tuple[int, ...]:
        return tuple(sorted({self.index[tag] for tag in text.split("|") if tag}))


class Split(Sequence[Sample]):
    """The samples of a split in the order of its list, each made from its row when it is asked for.

    The file is held open: one that takes its place is not looked at. Where this one is changed in place, its content is
    compared with what it was.

    Attributes:
        sha256: of its rows. File names count, folders and sizes do not: the same data elsewhere is the same split.
        hashes: of the ids, 64 bits, as this process hashes text.
        masked: whether each has a mask, 1 or 0.
        sizes: height and width of each, 0 where the list does not say; empty where it does so of none.
    """

    def __init__(self, root: Path, name: str, classes: Sequence[str], limit: int = 0) -> None:
        """Read a list, and see that all its rows can be taken.

        Args:
            limit: rows that count, the first ones; 0: all. The SHA-256 is of all.
        Raises:
            DataError: there is no such list, it is no CSV, or a row cannot be taken.
        """
        self.file = root / "splits" / f"{name}.csv"
        index = {label: position for position, label in enumerate(classes) if position}
        self._handle = _open(self.file)
        weakref.finalize(self, os.close, self._handle)
        self._stamp = _stamp(os.fstat(self._handle))
        self._format = _Format(root, index, len(COLUMNS))
        self._block: tuple[int, bytes] = (-1, b"")
        self.limit = limit
        columns = [Packed(code, self.file.parent) for code in "QqBI"]
        self.sha256 = self._read(classes, *columns)
        self._starts, self.hashes, self.masked, self.sizes = (column.numbers() for column in columns)
        if has_twins(self.hashes):
            refuse_duplicates(self.names(), str(self.file))
        if 0 < limit < len(self):
            self._starts, self.hashes = self._starts[: limit + 1], self.hashes[:limit]
            self.masked, self.sizes = self.masked[:limit], self.sizes[: 2 * limit]

    def __len__(self) -> int:
        return len(self.hashes)

    def __iter__(self) -> Iterator[Sample]:
        return (self._format.sample(self._fields(row)) for row in self._rows())

    def __eq__(self, other: object) -> bool:
        same = isinstance(other, Sequence) and len(self) == len(other)
        return same and all(one == another for one, another in zip(self, other, strict=True))  # type: ignore[call-overload]

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return Split, (self._format.root, self.file.stem, ("", *self._format.index), self.limit)

    @overload
    def __getitem__(self, at: int) -> Sample: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Sample]: ...
    def __getitem__(self, at: int | slice) -> Sample | Sequence[Sample]:
        if isinstance(at, slice):
            return Rows(self, range(len(self))[at])
        return self._format.sample(self._fields(self._row(range(len(self))[at])))

    def name(self, number: int) -> str:
        """The id of a row."""
        return self._name(self._row(number))

    def names(self) -> Iterator[str]:
        """The ids of all rows."""
        return map(self._name, self._rows())

    def _name(self, row: bytes) -> str:
        return row[: row.index(b",")].decode() if b'"' not in row else self._fields(row)[0]

    def is_as_opened(self) -> bool:
        """Whether the list in the folder is still this file, as it was when it was opened."""
        try:
            return _stamp(self.file.stat()) == self._stamp
        except OSError:
            return False

    @staticmethod
    def _fields(row: bytes) -> list[str]:
        text = row.decode()
        if '"' not in text:
            return text.rstrip("\r\n").split(",")
        return next(csv.reader(io.StringIO(text, newline=""), strict=True))

    def _row(self, number: int) -> bytes:
        """The bytes of a row, with the end of its line."""
        first, data = self._block
        if first != number - number % BLOCK:
            first = number - number % BLOCK
            data = self._rows_from(first)
            self._block = (first, data)
        return data[self._starts[number] - self._starts[first] : self._starts[number + 1] - self._starts[first]]

    def _rows(self) -> Iterator[bytes]:
        """Row by row, by one who does not disturb others."""
        for first in range(0, len(self), BLOCK):
            data, offset = self._rows_from(first), self._starts[first]
            for number in range(first, min(first + BLOCK, len(self))):
                yield data[self._starts[number] - offset : self._starts[number + 1] - offset]

    def _rows_from(self, first: int) -> bytes:
        begin, end = self._starts[first], self._starts[min(first + BLOCK, len(self))]
        self._refuse_changed()
        data = os.pread(self._handle, end - begin, begin)
        if len(data) != end - begin:
            raise self.changed()
        return data

    def _refuse_changed(self) -> None:
        now = _stamp(os.fstat(self._handle))
        if now != self._stamp:
            again = Split(self._format.root, self.file.stem, ["", *self._format.index], self.limit)
            if again.sha256 != self.sha256 or again._starts != self._starts:
                raise self.changed()
            self._stamp = now

    def changed(self) -> DataError:
        """What is raised where the list is another one now."""
        return DataError(
            f"{self.file} has changed while it was worked with (another SHA-256)",
            "run the same command again: a changed list gets runs of its own",
        )

    def _read(self, classes: Sequence[str], starts: Packed, hashes: Packed, masked: Packed, sizes: Packed) -> str:
        """Add what is held of each row; returns the SHA-256 of all."""
        lines = _Lines(self._handle)
        reader = csv.reader(lines.each(), strict=True)
        digest, rows = hashlib.sha256(b"["), list[str]()
        known: dict[str, str] = {}  # JSON of the labels of a row
        sized, count = False, 0
        try:
            columns = tuple(next(reader, ()))
            if columns not in HEADS:
                hint = "save it with commas between columns" if set(";\t") & set("".join(columns)) else AGAIN
                raise DataError(f"{self.file} must start with the line {','.join(COLUMNS)}", hint)
            self._format = _Format(self._format.root, self._format.index, len(columns))
            start = lines.at
            for row in reader:
                if not row:
                    start = lines.at  # an empty line
                    continue
                where = f"{self.file}, line {reader.line_num}"
                if len(row) != len(columns) or not row[1]:
                    raise DataError(
                        f"{where}: not the {'four' if len(columns) == 4 else 'six'} fields {','.join(columns)}",
                        "quote fields that hold a comma",
                    )
                if row[3] not in known:
                    known[row[3]] = self._json_labels(row[3], classes, where)
                if "://" in row[1]:
                    check_url(row[1], where)
                if "://" in row[2]:
                    raise DataError(f"{where}: the mask is a URL", "masks are files: copy them to a disk")
                if not PLAIN_ID.fullmatch(row[0]):
                    check_id(row[0], where)
                if len(columns) > len(COLUMNS):
                    size = _size(row[4], row[5], where)
                    sized = sized or size is not None
                    sizes.tail.extend(size or (0, 0))
                rows.append(_json_row(row[0], row[1], row[2], known[row[3]], self._format.root))
                starts.tail.append(start)
                hashes.tail.append(hash(row[0]))
                masked.tail.append(bool(row[2]))
                start, count = lines.at, count + 1
                if len(rows) == MANY:
                    check_stop()
                    digest.update((", " if count > MANY else "").encode() + ", ".join(rows).encode())
                    rows.clear()
                    for column in (starts, hashes, masked, sizes):
                        column.settle()
        except csv.Error as error:
            raise DataError(f"{self.file}, line {reader.line_num}: {error}", AGAIN) from error
        except UnicodeDecodeError as error:
            raise DataError(f"cannot read {self.file}: {error}", AGAIN) from error
        starts.tail.append(lines.at)
        digest.update(((", " if rows and count > len(rows) else "") + ", ".join(rows) + "]").encode())
        if not sized:
            sizes.clear()
        return digest.hexdigest()

    def _json_labels(self, text: str, classes: Sequence[str], where: str) -> str:
        for tag in text.split("|"):
            if tag and tag not in self._format.index:
                known = f"{nearest(tag, self._format.index)}classes: {', '.join(self._format.index)}"
                joined = "; several are joined by | (cat|dog)" if set(";,") & set(tag) else ""
                raise DataError(f"{where}: unknown class '{tag}'", f"{known}{joined}")
        return _json_list(self._format.labels(text), classes)


class _Lines:
    """Lines of an open list; `at` is the byte after the last of them."""

    def __init__(self, handle: int) -> None:
        os.lseek(handle, 0, os.SEEK_SET)
        self.at = 3 if os.pread(handle, 3, 0) == b"\xef\xbb\xbf" else 0
        self.handle = handle

    def each(self) -> Iterator[str]:
        with os.fdopen(os.dup(self.handle), encoding="utf-8-sig", newline="") as file:
            for line in file:
                self.at += len(line) if line.isascii() else len(line.encode())
                yield line


def _open(file: Path) -> int:
    try:
        return os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}", AGAIN) from error


def _stamp(state: os.stat_result) -> tuple[int, ...]:
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns


def _size(width: str, height: str, where: str) -> Size | None:
    """(height, width) of a row; None where both fields are empty."""
    if not width and not height:
        return None
    if not (width.isdecimal() and height.isdecimal() and 0 < int(width) < 2**32 and 0 < int(height) < 2**32):
        raise DataError(
            f"{where}: width {width!r} and height {height!r}", "whole numbers of pixels as shown, or both empty"
        )
    return int(height), int(width)


def _json_row(name: str, image: str, mask: str, labels: str, root: Path) -> str:
    """What of a row its list's SHA-256 is made of, as JSON; see `Split.sha256`."""
    file = image.rpartition("/")[2]
    if file in ("", "."):
        file = (root / image).name
    if mask:
        folder, slash, last = mask.rpartition("/")
        parent = folder.rpartition("/")[2]
        if not slash or last in ("", ".") or parent in ("", "."):
            path = root / mask
            parent, last = path.parent.name, path.name
        mask = f"{parent}/{last}"
    return f"[{quoted(name)}, {quoted(file)}, {quoted(mask)}, {labels}]"


def _json_list(labels: Iterable[int], classes: Sequence[str]) -> str:
    return f"[{', '.join(quoted(classes[label]) for label in labels)}]"


# -- writing -----------------------------------------------------------------------------------------------------------


def write_split(root: Path, name: str, samples: Sequence[Sample], classes: Sequence[str]) -> None:
    """Write the list of a split, whole or not at all; sizes where any is known. Paths inside `root` become relative.

    Raises:
        WriteError: the disk is full, or the folder cannot be written.
    """
    sized = any(sample.size for sample in samples)
    with whole_file(root / "splits" / f"{name}.csv") as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(HEADS[sized])
        for sample in samples:
            mask = _stored_path(sample.mask, root) if sample.mask else ""
            labels = "|".join(classes[label] for label in sample.labels)
            size = (sample.size[::-1] if sample.size else ("", "")) if sized else ()
            writer.writerow((sample.id, _stored_path(sample.image, root), mask, labels, *size))
        text.detach()


def _stored_path(path: Path, root: Path) -> str:
    return str(path if path.is_absolute() else path.absolute()).removeprefix(os.path.join(root, ""))  # noqa: PTH118
