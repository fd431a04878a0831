"""A user's own photographs with tags in a CSV, masks optional."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from wsss_cli.data.dataset import Sample, write_dataset
from wsss_cli.data.images import read_image
from wsss_cli.data.pages import pages_lines
from wsss_cli.data.sources.listed import FolderSource, Listed, Row, read_rows, refuse_unknown
from wsss_cli.data.sources.mask_checks import MaskLook, MaskTally, look_at_mask
from wsss_cli.data.sources.preparation import Look, Preparation, digest_of, look_as_json, look_of_json
from wsss_cli.data.sources.summary import Finding, Prepared, summarise, summary_lines
from wsss_cli.data.sources.tags import in_order, joined_line
from wsss_cli.data.texts import in_order_of
from wsss_cli.errors import DataError
from wsss_cli.labels import voc_palette
from wsss_cli.processes import Check, in_processes
from wsss_cli.rows import Each, Rows
from wsss_cli.talk import counted

Tick = Callable[[int, int], None]
WHOLE, NO_MASK, LOST = range(3)


@dataclass(frozen=True)
class FolderSettings:
    """How a data set is made of a folder.

    Attributes:
        name: of the data set.
        val_fraction, seed: share of the images with a mask that make the split val, and the seed by which it is drawn.
    """

    name: str
    val_fraction: float = 0.1
    seed: int = 0


@dataclass(frozen=True)
class Asked:
    """What is to be looked at, and the names of the classes without the background."""

    source: FolderSource
    listed: Listed
    names: tuple[str, ...]


def prepare_folder(
    source: FolderSource,
    out: Path,
    settings: FolderSettings,
    *,
    check: Check,
    workers: int = 1,
    tick: Tick = lambda done, total: None,
) -> Prepared:
    """Write a data set directory that refers to the images in place. Nothing is written before all was looked at.

    Images without a mask are for training. Of those with one, a part makes the val split, unless the CSV has a column
    `split` that says it. A photograph that does not decode is left out. A mask that cannot be used is left out alone,
    or with its photograph where the CSV puts that into val.

    Args:
        check: looks at a stop flag: called at least once a second; what it raises ends the work.
        tick: called with (done, total) after each image that was looked at.
    Raises:
        DataError, UsageError: the CSV cannot be taken; no photograph, or none of the masks, can be used.
    """
    asked = ask(source, out)
    return write_folder(asked, look_at(asked.listed.rows, asked.names, workers, check), out, settings, tick)


def folder_preparation(
    source: FolderSource, out: Path, settings: FolderSettings, *, check: Check, workers: int = 1
) -> Preparation:
    """What jobs do that make together what `prepare_folder` makes; `check` and `workers` as there.

    Raises:
        DataError, UsageError: the CSV cannot be taken.
    """
    asked = ask(source, out)
    places = [str(path.absolute()) if path else "" for path in (source.images, source.table, source.masks)]
    head = [places, asked.names, list(source.classes), asdict(settings)]
    return Preparation(
        asked=digest_of(chain([head], asked.listed.texts)),
        ids=lambda: (row.id for row in asked.listed.rows),
        begin=lambda: None,
        look=lambda numbers: map(look_as_json, look_at(Rows(asked.listed.rows, numbers), asked.names, workers, check)),
        read=look_of_json,
        write=lambda looks: write_folder(asked, looks, out, settings),
    )


def ask(source: FolderSource, room: Path) -> Asked:
    """The rows of the CSV with their files, and the classes.

    Args:
        room: as of `read_rows`.
    Raises:
        DataError, UsageError: the CSV cannot be taken.
    """
    listed = read_rows(source, room)
    names = tuple(source.classes) or in_order(listed.labels)
    refuse_unknown(listed.labels, names, source.table)
    return Asked(source, listed, names)


def look_at(rows: Sequence[Row], names: Sequence[str], workers: int, check: Check) -> Iterator[Look]:
    """What is to be seen of each row's files."""
    return in_processes(partial(look, count=len(names) + 1), rows, workers, check=check)


def write_folder(
    asked: Asked,
    looks: Iterable[Look],
    out: Path,
    settings: FolderSettings,
    tick: Tick = lambda done, total: None,
) -> Prepared:
    """Write the data set directory, once all looks at its rows have come.

    Args:
        tick: called with (done, total) after each.
    Raises:
        DataError: no photograph, or none of the masks, can be used; the split that the CSV asks for cannot be.
    """
    source, listed, names, table = asked.source, asked.listed, asked.names, asked.source.table
    rows = Looked(listed.rows, names)
    for done, (row, result) in enumerate(zip(listed.rows, looks, strict=True), 1):
        rows.add(row, result)
        tick(done, len(listed.rows))
    rows.refuse_useless(table)
    splits = _splits(rows, table, settings, out)
    summary = summarise(chain.from_iterable(splits.values()), ("background", *names))
    lines = [*summary_lines(summary), *_untaught(splits["train"], summary), *joined_line(names)]
    lines += [*listed.notes, *pages_lines(str(row.image) for _, row in rows.good()), *rows.mask_lines()]
    if rows.tally.looks and not source.classes:
        order = ", ".join(f"{value} {name}" for value, name in enumerate(names[:6], 1))
        lines.append(f"without --classes mask values are taken as {order}{', ...' if len(names) > 6 else ''}")
    dataset = write_dataset(
        out,
        name=settings.name,
        classes=("background", *names),
        colors=voc_palette(len(names) + 1),
        splits=splits,
        source=f"folder {source.images.name}, {table.name}",
        protocol=[f"tags from {table.name}"],
        findings=rows.findings,
    )
    masks = sum(row.mask is not None for _, row in rows.good())
    return Prepared(dataset, rows.findings, {**summary, "masks": masks}, lines)


# -- photographs and masks ---------------------------------------------------------------------------------------------


def look(row: Row, count: int) -> Look:
    """The size of a photograph, and a look at its mask, None where it has none; a finding where it cannot be used."""
    try:
        image = read_image(row.image)
    except DataError as error:
        fix = error.hint or "repair or remove the file"
        return None, _finding(row, row.image, "unreadable", error.message, fix, "photograph")
    size = (image.shape[0], image.shape[1])
    return size, look_at_mask(row.mask, row.image, size, count) if row.mask else None


def _finding(row: Row, file: Path, code: str, problem: str, fix: str, lost: str) -> Finding:
    return {"id": row.id, "file": str(file), "code": code, "problem": problem, "fix": fix, "lost": lost}


class Looked:
    """The rows, and what was seen of their files: 9 bytes of each are held.

    Args:
        names: of the classes, without the background.
    Attributes:
        findings: what is wrong with photographs and masks.
        tally: what the masks hold.
    """

    def __init__(self, rows: Sequence[Row], names: Sequence[str]) -> None:
        self.rows, self.findings = rows, list[Finding]()
        self.tally = MaskTally(("background", *names))
        self._indices = {label: index for index, label in enumerate(names, 1)}
        self._states, self._sizes = bytearray(), array("I")

    def add(self, row: Row, result: Look) -> None:
        """Take what was seen of the next row."""
        size, seen = result
        state = WHOLE
        if isinstance(seen, MaskLook):
            self.tally.add(seen, self._labels(row))
            if seen.code:
                state = LOST if row.split == "val" else NO_MASK
                lost = "photograph" if state == LOST else "mask"
                self.findings.append(_finding(row, row.mask or row.image, seen.code, seen.problem, seen.fix, lost))
        elif seen:
            state = LOST
            self.findings.append(seen)
        self._states.append(state)
        self._sizes.extend(size or (0, 0))

    def refuse_useless(self, table: Path) -> None:
        """Refuse photographs, or masks, of which none can be used.

        Raises:
            DataError: with the reason.
        """
        if self._states.count(LOST) == len(self._states):
            raise DataError(
                f"none of the images of {table} can be used, first: {self.findings[0]['problem']}",
                self.findings[0]["fix"],
            )
        self.tally.refuse_useless()

    def good(self) -> Iterator[tuple[int, Row]]:
        """Number and row of each photograph that can be used, its mask None where that cannot."""
        for number, row in enumerate(self.rows):
            if self._states[number] != LOST:
                yield number, row if self._states[number] == WHOLE else replace(row, mask=None)

    def sample(self, number: int) -> Sample:
        """What the list has of a photograph that can be used."""
        row = self.rows[number]
        height, width = self._sizes[2 * number : 2 * number + 2]
        mask = row.mask if self._states[number] == WHOLE else None
        return Sample(row.id, row.image, mask, tuple(sorted(self._labels(row))), (height, width) if height else None)

    def mask_lines(self) -> list[str]:
        """What the masks hold, in words; nothing where there are none."""
        if not self.tally.looks:
            return []
        images = len(self._states) - self._states.count(LOST)
        bad = self.tally.bad
        left_out = f"; {counted(bad, 'mask')} left out" if bad else ""
        return [f"masks for {self.tally.looks - bad:,} of {counted(images, 'image')}{left_out}", *self.tally.lines()]

    def _labels(self, row: Row) -> set[int]:
        return {self._indices[label] for label in row.labels}


# -- splits ------------------------------------------------------------------------------------------------------------


def _splits(rows: Looked, table: Path, settings: FolderSettings, room: Path) -> dict[str, Sequence[Sample]]:
    """Samples by split.

    Raises:
        DataError: an image of val has no mask, or none is left for training.
    """
    val = _val_numbers(rows, settings.val_fraction, settings.seed, room)
    numbers = {"train": array("I"), "val": array("I")}
    for number, row in rows.good():
        if val[number] and row.mask is None:
            raise DataError(
                f"{table}, line {row.line}: {row.id} is in the val split but has no mask",
                "networks are scored on val: give --masks with its mask, or take it out of val",
            )
        numbers["val" if val[number] else "train"].append(number)
    if not numbers["train"]:
        told = any(row.split for _, row in rows.good())
        hint = "mark some rows with split train" if told else "--val-fraction 0 keeps all for training"
        raise DataError(f"{table} leaves no image for training: all are for validation", hint)
    return {split: Each(members, rows.sample) for split, members in numbers.items() if members}


def _untaught(train: Iterable[Sample], summary: Mapping[str, Any]) -> list[str]:
    """A line on classes whose photographs are all in val."""
    taught = summarise(train, ("background", *summary["images"]))["images"]
    names = [name for name, count in summary["images"].items() if count and not taught[name]]
    if not names:
        return []
    fix = "a column split (train, val), or another --seed, puts some into train"
    return [f"in no image of train, as all are in val: {', '.join(names)}; nothing teaches that; {fix}"]


def _val_numbers(rows: Looked, fraction: float, seed: int, room: Path) -> bytearray:
    """1 for each row that is in val: as the CSV says, or by chance of those that have a mask."""
    val, masked, told = bytearray(len(rows.rows)), 0, False
    for number, row in rows.good():
        told = told or bool(row.split)
        val[number] = row.split == "val"
        masked += row.mask is not None
    count = min(max(1, round(fraction * masked)), masked) if masked and fraction > 0 else 0
    if told or not count:
        return val
    chosen = bytearray(masked)
    for place in np.random.default_rng(seed).permutation(masked)[:count].tolist():
        chosen[place] = 1
    names = in_order_of((f"{row.id}\t{number}" for number, row in rows.good() if row.mask is not None), room)
    for name, taken in zip(names, chosen, strict=True):
        if taken:
            val[int(name.rpartition("\t")[2])] = 1
    return val
