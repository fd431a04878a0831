"""Tables that users bring: CSV as spreadsheets and scripts write it, read strictly, every complaint with its line."""

from __future__ import annotations

import csv
import heapq
import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from wsss_cli.errors import DataError
from wsss_cli.files import refuse_named_pipe
from wsss_cli.kinds import LOOKED_AT, TEXT, kind_of_file

DELIMITERS = (",", ";", "\t")
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
SEPARATOR_LINE = re.compile(r"\W*sep=.?\W*$", re.IGNORECASE)  # spreadsheets begin a CSV with it
Row = tuple[int, tuple[str, ...]]


@dataclass(frozen=True)
class Table:
    """A CSV file: names of its columns as written, and (line, cells) of each row that holds anything.

    Cells are stripped of the space around them; every row has one for each column, all but the first empty where a line
    holds a name alone. Of `open_table` the rows can be gone through once.
    """

    path: Path
    columns: tuple[str, ...]
    rows: Iterable[Row]

    def column(self, *names: str) -> int | None:
        """Position of the first of these columns (lower case) that is there."""
        there = [column.lower() for column in self.columns]
        return next((there.index(name) for name in names if name in there), None)

    def where(self, line: int) -> str:
        """For the start of a message."""
        return f"{self.path}, line {line}"


def read_text(path: Path) -> str:
    """A text file: UTF-8 with or without a byte-order mark, or UTF-16 with one.

    Raises:
        DataError: it is missing, or in another encoding; the message shows the first letter that is not UTF-8.
    """
    refuse_named_pipe(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    encoding = "utf-16" if data.startswith(UTF16_MARKS) else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text: {_first_bad(data, error)}", "save it as UTF-8 (or as 'CSV UTF-8')"
        ) from error
    if "\0" in text:
        raise _zeros(path)
    return text


def _zeros(path: Path) -> DataError:
    return DataError(f"{path} is not UTF-8 text: it holds zero bytes, as UTF-16 does", "save it as UTF-8")


def _first_bad(data: bytes, error: UnicodeDecodeError) -> str:
    if error.encoding.startswith("utf-16"):
        return "its mark says UTF-16, and it is not"
    line = data.count(b"\n", 0, error.start) + 1
    letter = data[error.start : error.start + 1].decode("cp1252", "replace")
    return f"line {line} holds byte 0x{data[error.start]:02x}, in Latin-1 (Windows-1252) {letter!r}"


def read_table(path: Path) -> Table:
    """`open_table` with all of its rows in memory.

    Raises:
        DataError: as `open_table`, for any of its rows.
    """
    table = open_table(path)
    return replace(table, rows=tuple(table.rows))


def open_table(path: Path) -> Table:
    """Open a CSV, whose rows are read one by one, once.

    What separates its columns (comma, semicolon or tab) is told from its first line, also `sep=;`.

    Raises:
        DataError: here or while rows are read: too many or too few fields in a row, a column that occurs twice, a quote
            that is not closed, or a field that holds a line feed or another control character, with the line; it is
            missing, or not in UTF-8.
    """
    if not path.exists():
        raise DataError(
            f"cannot read {path}: no such file",
            "write one: a line image,labels and then one for each image, 1.jpg,cat|dog",
        )
    refuse_named_pipe(path)
    if path.suffix.lower() in (".json", ".xml"):
        raise DataError(
            f"{path} is no table of tags",
            "write a CSV: a line image,labels and then one for each image, 1.jpg,cat|dog; what a tool has drawn is for "
            "wsss prepare labels, once the data set is there",
        )
    if (kind := _kind(path)) not in TEXT:
        raise DataError(f"{path} is no table of tags: it is {kind}", "save it as CSV (of a spreadsheet, 'CSV UTF-8')")
    records = _records(path, _lines(path))
    first, heads = next(records, (1, ()))
    if heads and SEPARATOR_LINE.match(heads[0]):
        first, heads = next(records, (1, ()))
    while heads and not heads[-1]:  # spreadsheets leave empty columns at the right
        heads = heads[:-1]
    twice = [name for name, count in Counter(name.lower() for name in heads).items() if count > 1]
    if twice:
        raise _twice(f"{path}, line {first}", sorted({name for name in heads if name.lower() == twice[0]}))
    if "" in heads:
        raise DataError(f"{path}, line {first}: a column has no name", f"the header is {','.join(heads)}")
    return Table(path, heads, _rows(path, heads, records))


def _twice(where: str, names: list[str]) -> DataError:
    if len(names) > 1:
        what = f"the columns {names[0]!r} and {names[1]!r} differ by case only"
        return DataError(f"{where}: {what}", "make them one column, or give one another name")
    what = f"the column {names[0]!r} occurs twice" if names[0] else "a column has no name"
    return DataError(f"{where}: {what}", "several tags go into one field: cat|dog")


def _kind(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return kind_of_file(file.read(LOOKED_AT))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def _rows(path: Path, heads: tuple[str, ...], records: Iterable[Row]) -> Iterator[Row]:
    for line, cells in records:
        while len(cells) > len(heads) and not cells[-1]:
            cells = cells[:-1]
        if len(cells) == 1 and not any(sign in cells[0] for sign in DELIMITERS):  # a name alone
            cells += ("",) * (len(heads) - 1)
        if len(cells) != len(heads):
            raise DataError(
                f"{path}, line {line}: {_fields(len(cells))} where the header has {len(heads)} ({','.join(heads)})",
                "join several tags by | (cat|dog); an image without a tag is written `name.jpg,`",
            )
        yield line, cells


def _lines(path: Path) -> Iterator[str]:
    """The lines of a text file, with their ends."""
    try:
        with path.open("rb") as file:
            mark = file.peek(2)[:2]
            encoding = "utf-16" if mark in UTF16_MARKS else "utf-8-sig"
            for line in io.TextIOWrapper(file, encoding=encoding, newline=""):
                if "\0" in line:
                    raise _zeros(path)
                yield line
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        if path.is_file():
            read_text(path)  # which says where
        raise DataError(f"{path} is not UTF-8 text", "save it as UTF-8 (or as 'CSV UTF-8')") from error


def _fields(count: int) -> str:
    return f"{count} field" if count == 1 else f"{count} fields"


def _records(path: Path, lines: Iterator[str]) -> Iterator[Row]:
    """(first line, stripped cells) of each record that is not blank."""
    head = []
    for text in lines:
        head.append(text)
        if text.strip():
            break
    sign = delimiter_of("".join(head))
    reader = csv.reader(chain(head, lines), delimiter=sign, strict=True, skipinitialspace=True)
    line = 1
    try:
        for record in reader:
            if len(record) and any(cell.strip() for cell in record):
                cells = tuple(cell.strip() for cell in record)
                for cell in cells:
                    if CONTROL.search(cell):
                        raise _unclosed(path, line, f"the field {cell[:40]!r} holds a line feed or control character")
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise _unclosed(path, line, str(error)) from error


def _unclosed(path: Path, line: int, what: str) -> DataError:
    return DataError(f"{path}, line {line}: {what}", 'is a quote (") not closed, or closed too soon?')


def delimiter_of(text: str) -> str:
    """The sign that separates the columns of the first line that is not blank; a comma where there is none."""
    head = next((line for line in text.splitlines() if line.strip()), "")
    return max(DELIMITERS, key=lambda sign: (head.count(sign), sign == ","))


def show_some(names: Sequence[str], most: int = 3) -> str:
    """'a, b, c ...'"""
    return f"{', '.join(names[:most])}{' ...' if len(names) > most else ''}"


@dataclass
class Few:
    """Of many names their number and the first ones, which is what a line shows: `show_some(few.first)`."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, name: str, most: int = 4) -> None:
        """Count a name; the first ones are held, one more than a line shows."""
        self.count += 1
        if len(self.first) < most:
            self.first.append(name)


def smallest(names: Iterable[str], key: Callable[[str], list[str]] | None = None, most: int = 4) -> Few:
    """`Few` of names in no order: the smallest ones are held."""
    few = Few()

    def each() -> Iterator[str]:
        for name in names:
            few.count += 1
            yield name

    few.first = heapq.nsmallest(most, each(), key=key) if key else heapq.nsmallest(most, each())
    return few
