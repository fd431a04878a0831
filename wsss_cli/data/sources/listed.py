"""The rows of a user's table with the photographs and masks that belong to them."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wsss_cli.data.dataset import check_id, nearest, refuse_duplicates
from wsss_cli.data.images import why_unread
from wsss_cli.data.packed import has_twins
from wsss_cli.data.sources.foreign import PICTURES, beside_pngs
from wsss_cli.data.sources.mask_checks import refuse_unmatched
from wsss_cli.data.sources.photographs import Photographs, by_folders
from wsss_cli.data.sources.results import composed
from wsss_cli.data.sources.table import Few, Table, open_table, show_some, smallest
from wsss_cli.data.sources.tags import Layout, check_label, layout_of, refuse_twins, row_labels, without_suffix
from wsss_cli.data.texts import Index, Spool
from wsss_cli.errors import DataError, UsageError
from wsss_cli.files import is_hidden, names_below
from wsss_cli.processes import check_stop
from wsss_cli.rows import Each
from wsss_cli.talk import counted, rename_option


@dataclass(frozen=True)
class FolderSource:
    """What a data set is made of.

    Attributes:
        images: folder of the photographs.
        table: CSV with a header: image, labels (or one column for each class) and optionally split (train or val).
        masks: folder of palette or grey PNGs named after the images, pixels 0 .. number of classes and 255.
        classes: names in the order of the mask values 1, 2, ...; if empty those of the CSV, `in_order`.
        rename: tags to take under another name or, where that is empty, to drop.
    """

    images: Path
    table: Path
    masks: Path | None = None
    classes: Sequence[str] = ()
    rename: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the CSV, with the files that belong to it."""

    line: int
    id: str
    image: Path
    labels: tuple[str, ...]
    split: str
    mask: Path | None = None


@dataclass(frozen=True)
class Listed:
    """All rows of a CSV.

    Attributes:
        rows: each made anew from its text when it is asked for; 8 bytes of each are held.
        texts: what each is made from: line, photograph, mask, split, labels joined by '|', with tabs between them.
        labels: tags that occur, as they are taken, and the line of the first of each.
        notes: lines for the user on what does not match.
    """

    rows: Sequence[Row]
    texts: Spool
    labels: dict[str, int]
    notes: list[str]


class Masks:
    """Files NAME.png of a folder and below, by name without suffix in composed letters; none without a folder."""

    def __init__(self, folder: Path | None, room: Path) -> None:
        self.folder = folder
        self.names = Spool(room)
        for name in names_below(folder) if folder else ():
            check_stop()
            if Path(name).suffix == ".png" and Path(f"{folder}/{name}").is_file():
                self.names.append(name)
        self._by_name = Index(self.names, lambda name: (composed(name.removesuffix(".png")),))
        self._used = bytearray(len(self.names))

    def find(self, name: str) -> str:
        """The mask of the photograph of that name without suffix; empty where there is none."""
        numbers = self._by_name.find(composed(name))
        if not numbers:
            return ""
        number = max(numbers, key=lambda number: by_folders(self.names[number]))
        self._used[number] = 1
        return self.names[number]

    def unused(self) -> Iterator[str]:
        """Those that `find` has not returned."""
        return (name for name, used in zip(self.names, self._used, strict=True) if not used)


def read_rows(source: FolderSource, room: Path) -> Listed:
    """Rows of the CSV with the files that belong to them.

    Args:
        room: a folder where texts may lie meanwhile; where it is not there, the nearest above it.
    Raises:
        DataError: the table cannot be read or has no rows; a tag without a photograph, or one that cannot be a class;
            duplicate ids; masks of which none belongs to a row.
        UsageError: `rename` names a tag that does not occur.
    """
    table, rename = source.table, source.rename
    photographs = Photographs(source.images, room)
    if source.masks is not None and not source.masks.is_dir():
        raise DataError(f"--masks: {source.masks} is no folder")
    listed = open_table(table)
    layout = layout_of(listed, "image")
    masks, texts = Masks(source.masks, room), Spool(room)
    missing, other_names, seen = Few(), Few(), dict[str, tuple[int, int]]()
    taken, ids, masked, empty = dict[str, int](), array("q"), False, True
    for record in listed.rows:
        check_stop()
        empty = False
        line, written = record[0], record[1][layout.key]
        where = listed.where(line)
        labels = row_labels(listed, layout, record, spaces=False)
        for label in labels:
            first, count = seen.get(label, (line, 0))
            seen[label] = (first, count + 1)
        file = photographs.find(written, where) if written else None
        if file is None:
            why = photographs.why_missing(written) if missing.count < SHOWN else ""
            missing.add(f"line {line}: {written!r}{f' ({why})' if why else ''}", SHOWN)
            continue
        name = check_id(without_suffix(file), where)
        if written not in (file, name):
            other_names.add(f"line {line}: {written!r} is {file}")
        labels = [check_label(new, where) for label in labels if (new := rename.get(label, label))]
        for label in labels:
            taken.setdefault(label, line)
        mask = masks.find(name)
        masked = masked or bool(mask)
        ids.append(hash(name))
        texts.append("\t".join((str(line), file, mask, _split(listed, layout, record), "|".join(labels))))
    if empty:
        raise DataError(f"{table} has no rows", "a line for each image: name.jpg,cat|dog")
    if missing.count:
        raise DataError(
            f"{table} tags {counted(missing.count, 'image')} not in {source.images}; {'; '.join(missing.first)}",
            "correct the file or add the images",
        )
    _refuse_unused(rename, seen)
    refuse_twins({rename.get(label, label): lines for label, lines in seen.items()}, str(table), source.classes)
    rows = Each(texts, RowOf(source.images, source.masks))
    if has_twins(ids):
        _refuse_second_rows(rows, table)
        refuse_duplicates((row.id for row in rows), str(table))
    if source.masks is not None and not masked:
        refuse_unmatched(Each(rows, lambda row: f"{row.id}.png"), source.masks)
    return Listed(rows, texts, taken, _notes(photographs, other_names, layout, table, masks))


def _refuse_second_rows(rows: Iterable[Row], table: Path) -> None:
    """Refuse a photograph that has two rows, as where each of its tags or boxes has one."""
    first: dict[str, Row] = {}
    for row in rows:
        other = first.setdefault(row.id, row)
        if other.line != row.line and other.image == row.image:
            raise DataError(
                f"{table}, line {row.line}: {row.image.name!r} has a row already, line {other.line}",
                "a photograph has one row: join its tags by | (cat|dog)",
            )


SHOWN = 5  # photographs that a message names


@dataclass(frozen=True)
class RowOf:
    """Makes a row from its text."""

    images: Path
    masks: Path | None

    def __call__(self, text: str) -> Row:
        line, file, mask, split, labels = text.split("\t")
        return Row(
            int(line),
            without_suffix(file),
            self.images / file,
            tuple(labels.split("|")) if labels else (),
            split,
            self.masks / mask if self.masks and mask else None,
        )


def _split(table: Table, layout: Layout, record: tuple[int, tuple[str, ...]]) -> str:
    split = record[1][layout.split].lower() if layout.split is not None else ""
    if split not in ("", "train", "val"):
        raise DataError(f"{table.where(record[0])}: split {record[1][layout.split or 0]!r}", "train, val, or nothing")
    return split


def _refuse_unused(rename: Mapping[str, str], seen: Mapping[str, tuple[int, int]]) -> None:
    for old in rename:
        if old not in seen:
            raise UsageError(f"--rename: no image has the tag {old!r}", f"{nearest(old, seen)}tags: {', '.join(seen)}")


def refuse_unknown(labels: Mapping[str, int], names: Sequence[str], table: Path) -> None:
    """Refuse tags, given with their first lines, that are none of the classes, and more classes than masks can hold.

    Raises:
        DataError: naming the first, that there is no class, or how many there are.
    """
    if not names:
        raise DataError(f"{table} names no class at all", "put tags into the column labels: cat|dog")
    if len(names) > 254:
        raise DataError(
            f"{table}: {len(names)} classes, such as {show_some(names)}; masks have room for 254",
            "is it the right column? --rename OLD=NEW takes two tags as one, --rename OLD= drops a tag",
        )
    unknown = [label for label in labels if label not in names]
    if unknown:
        label = min(unknown, key=lambda label: labels[label])
        raise DataError(
            f"{table}, line {labels[label]}: unknown class {label!r}",
            f"{nearest(label, names)}known: {', '.join(names)}; {rename_option(label, 'NAME')} takes it as another",
        )


def _notes(photographs: Photographs, other_names: Few, layout: Layout, table: Path, masks: Masks) -> list[str]:
    """What of the folders and the table was not used, or not as it is written."""
    notes = []
    bare = smallest((name for name in photographs.unused() if not is_hidden(name)), by_folders)
    if bare.count:
        notes.append(f"{counted(bare.count, 'photograph')} without a row in {table.name}: {show_some(bare.first)}")
    if other_names.count:
        shown = show_some(other_names.first, 2)
        notes.append(f"{counted(other_names.count, 'name')} taken in another form: {shown}")
    if layout.unused:
        notes.append(f"{table.name}: not looked at: {', '.join(layout.unused)}")
    stray = smallest(masks.unused(), by_folders)
    if stray.count:
        shown = show_some([name.rpartition("/")[2] for name in stray.first])
        notes.append(f"{counted(stray.count, 'mask')} of no image in {table.name}: {shown}")
    for folder in filter(None, [masks.folder]):
        broken = smallest(
            name for name in names_below(folder) if name.endswith(".png") and not (folder / name).is_file()
        )
        if broken.count:
            said = f"first {broken.first[0]}, which {why_unread(folder / broken.first[0])}"
            notes.append(f"{counted(broken.count, 'file')} not taken for masks: {said}")
    for folder in filter(None, [masks.folder]):
        mixed = photographs.folder.resolve().is_relative_to(folder.resolve())  # the others are photographs
        plain = (name for name in names_below(folder) if not is_hidden(name))
        unread = (name for name in plain if Path(name).suffix != ".png")
        notes += beside_pngs(unread, "masks", (".png",) if mixed else (".png", *PICTURES))
    return notes
