"""A user's own photographs with tags in a CSV, masks optional."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from wsss_cli.data.dataset import Sample, check_id, nearest, refuse_duplicates, write_dataset
from wsss_cli.data.images import read_image
from wsss_cli.data.sources.mask_checks import (
    MaskLook,
    disagreement_line,
    disagreements,
    look_at_mask,
    odd_lines,
    refuse_unmatched,
    refuse_useless,
)
from wsss_cli.data.sources.photographs import Photographs
from wsss_cli.data.sources.summary import Finding, Prepared, summarise, summary_lines
from wsss_cli.data.sources.table import Table, read_table, show_some
from wsss_cli.data.sources.tags import (
    Layout,
    check_label,
    in_order,
    joined_line,
    layout_of,
    refuse_twins,
    row_labels,
    without_suffix,
)
from wsss_cli.data.splits import Size
from wsss_cli.errors import DataError, UsageError
from wsss_cli.files import files_below
from wsss_cli.labels import voc_palette
from wsss_cli.processes import Check, check_stop, in_processes
from wsss_cli.talk import counted


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
    """One line of the CSV, with the files that belong to it; (height, width) is known once it was looked at."""

    line: int
    id: str
    image: Path
    labels: tuple[str, ...]
    split: str
    mask: Path | None = None
    size: Size | None = None


def prepare_folder(
    source: FolderSource,
    out: Path,
    *,
    name: str,
    check: Check,
    val_fraction: float = 0.1,
    seed: int = 0,
    workers: int = 1,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> Prepared:
    """Write a data set directory that refers to the images in place. Nothing is written before all was looked at.

    Images without a mask are for training. Of those with one, `val_fraction` (drawn by `seed`) make the val split,
    unless the CSV has a column `split` that says it. A photograph that does not decode is left out. A mask that cannot
    be used is left out alone, or with its photograph where the CSV puts that into val.

    Args:
        check: looks at a stop flag: called at least once a second; what it raises ends the work.
        tick: called with (done, total) after each image that was looked at.
    Raises:
        DataError, UsageError: the CSV cannot be taken; no photograph, or none of the masks, can be used.
    """
    table = source.table
    rows, notes = read_rows(source)
    names = tuple(source.classes) or in_order(label for row in rows for label in row.labels)
    _refuse_unknown(rows, names, table)
    findings, looks, sizes = _look_at_all(rows, len(names) + 1, workers, check, tick)
    lost = {finding["id"] for finding in findings if finding["lost"] == "photograph"}
    if len(lost) == len(rows):
        raise DataError(
            f"none of the images of {table} can be used, first: {findings[0]['problem']}",
            findings[0]["fix"],
        )
    refuse_useless(list(looks.values()))
    good = [
        replace(row, mask=None if _is_bad(looks, row) else row.mask, size=size)
        for row, size in zip(rows, sizes, strict=True)
        if row.id not in lost
    ]
    splits = _splits(good, names, table, val_fraction, seed)
    samples = [sample for members in splits.values() for sample in members]
    summary = summarise(samples, ("background", *names))
    lines = [*summary_lines(summary), *joined_line(names), *notes, *_mask_lines(good, looks, names)]
    if looks and not source.classes:
        order = ", ".join(f"{value} {name}" for value, name in enumerate(names[:6], 1))
        lines.append(f"without --classes mask values are taken as {order}{', ...' if len(names) > 6 else ''}")
    dataset = write_dataset(
        out,
        name=name,
        classes=("background", *names),
        colors=voc_palette(len(names) + 1),
        splits=splits,
        source=f"folder {source.images.name}, {table.name}",
        protocol=[f"tags from {table.name}"],
        findings=findings,
    )
    return Prepared(dataset, findings, {**summary, "masks": sum(row.mask is not None for row in good)}, lines)


# -- rows of the CSV ---------------------------------------------------------------------------------------------------


def read_rows(source: FolderSource) -> tuple[list[Row], list[str]]:
    """Rows of the CSV with the files that belong to them, and lines for the user on what does not match.

    Raises:
        DataError: the table cannot be read or has no rows; a tag without a photograph, or one that cannot be a class;
            duplicate ids; masks of which none belongs to a row.
        UsageError: `rename` names a tag that does not occur.
    """
    table, masks, rename = source.table, source.masks, source.rename
    photographs = Photographs(source.images)
    if masks is not None and not masks.is_dir():
        raise DataError(f"--masks: {masks} is no folder")
    listed = read_table(table)
    layout = layout_of(listed, "image")
    if not listed.rows:
        raise DataError(f"{table} has no rows", "a line for each image: name.jpg,cat|dog")
    there = _masks_by_name(masks) if masks is not None else {}
    rows, missing, other_names = [], [], []
    seen: dict[str, list[int]] = {}
    for record in listed.rows:
        check_stop()
        where, written = listed.where(record[0]), record[1][layout.key]
        labels = row_labels(listed, layout, record, spaces=False)
        for label in labels:
            seen.setdefault(label, []).append(record[0])
        file = photographs.find(written, where) if written else None
        if file is None:
            why = photographs.why_missing(written)
            missing.append(f"line {record[0]}: {written!r}{f' ({why})' if why else ''}")
            continue
        name = check_id(without_suffix(file), where)
        if written not in (file, name):
            other_names.append(f"line {record[0]}: {written!r} is {file}")
        taken = tuple(check_label(new, where) for label in labels if (new := rename.get(label, label)))
        mask = there.get(unicodedata.normalize("NFC", name))
        rows.append(Row(record[0], name, photographs.paths[file], taken, _split(listed, layout, record), mask))
    if missing:
        raise DataError(
            f"{table} tags {counted(len(missing), 'image')} not in {source.images}; {'; '.join(missing[:5])}",
            "correct the file or add the images",
        )
    _refuse_unused(rename, seen)
    refuse_twins({rename.get(label, label): lines for label, lines in seen.items()}, str(table), source.classes)
    refuse_duplicates((row.id for row in rows), str(table))
    if masks is not None and not any(row.mask for row in rows):
        refuse_unmatched([f"{row.id}.png" for row in rows], masks)
    return rows, _notes(rows, photographs, other_names, layout, table, masks, there)


def _masks_by_name(folder: Path) -> dict[str, Path]:
    """Files NAME.png of a folder and below by name without suffix, in composed letters."""
    files = sorted(path for path in files_below(folder) if path.suffix == ".png" and path.is_file())
    return {unicodedata.normalize("NFC", path.relative_to(folder).with_suffix("").as_posix()): path for path in files}


def _split(table: Table, layout: Layout, record: tuple[int, tuple[str, ...]]) -> str:
    split = record[1][layout.split].lower() if layout.split is not None else ""
    if split not in ("", "train", "val"):
        raise DataError(f"{table.where(record[0])}: split {record[1][layout.split or 0]!r}", "train, val, or nothing")
    return split


def _refuse_unused(rename: Mapping[str, str], seen: Mapping[str, list[int]]) -> None:
    for old in rename:
        if old not in seen:
            raise UsageError(f"--rename: no image has the tag {old!r}", f"{nearest(old, seen)}tags: {', '.join(seen)}")


def _refuse_unknown(rows: Sequence[Row], names: Sequence[str], table: Path) -> None:
    if not names:
        raise DataError(f"{table} names no class at all", "put tags into the column labels: cat|dog")
    for row in rows:
        for label in row.labels:
            if label not in names:
                raise DataError(
                    f"{table}, line {row.line}: unknown class {label!r}",
                    f"{nearest(label, names)}known: {', '.join(names)}; --rename {label}=NAME takes it as another",
                )


def _notes(
    rows: Sequence[Row],
    photographs: Photographs,
    other_names: Sequence[str],
    layout: Layout,
    table: Path,
    masks: Path | None,
    there: Mapping[str, Path],
) -> list[str]:
    """What of the folders and the table was not used, or not as it is written."""
    notes = []
    listed = {row.image for row in rows}
    bare = [name for name, path in photographs.paths.items() if path not in listed]
    if bare:
        notes.append(f"{counted(len(bare), 'photograph')} without a row in {table.name}: {show_some(bare)}")
    if other_names:
        notes.append(f"{counted(len(other_names), 'name')} taken in another form: {show_some(other_names, 2)}")
    if layout.unused:
        notes.append(f"{table.name}: not looked at: {', '.join(layout.unused)}")
    used = {row.mask for row in rows}
    stray = [path.name for path in there.values() if path not in used]
    if masks is not None and stray:
        notes.append(f"{counted(len(stray), 'mask')} of no image in {table.name}: {show_some(stray)}")
    below = files_below(masks) if masks else ()
    unread = sorted(path.name for path in below if path.suffix.lower() == ".png" != path.suffix)
    if unread:
        notes.append(
            f"{counted(len(unread), 'file')} not taken for masks, whose names end in .png: {show_some(unread)}"
        )
    return notes


# -- photographs and masks ---------------------------------------------------------------------------------------------


def _look_at_all(
    rows: Sequence[Row], count: int, workers: int, check: Check, tick: Callable[[int, int], None]
) -> tuple[list[Finding], dict[str, MaskLook], list[Size | None]]:
    """What is wrong with photographs and masks, a look at each mask whose photograph is fine, by id, and all sizes."""
    findings, looks, sizes = [], {}, []
    results = in_processes(partial(_look, count=count), rows, workers, check=check)
    for done, (row, (size, seen)) in enumerate(zip(rows, results, strict=True), 1):
        sizes.append(size)
        if isinstance(seen, MaskLook):
            looks[row.id] = seen
            if seen.code:
                lost = "photograph" if row.split == "val" else "mask"
                findings.append(_finding(row, row.mask or row.image, seen.code, seen.problem, seen.fix, lost))
        elif seen:
            findings.append(seen)
        tick(done, len(rows))
    return findings, looks, sizes


def _look(row: Row, count: int) -> tuple[Size | None, MaskLook | Finding | None]:
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


def _is_bad(looks: Mapping[str, MaskLook], row: Row) -> bool:
    return row.id in looks and bool(looks[row.id].code)


def _mask_lines(rows: Sequence[Row], looks: Mapping[str, MaskLook], names: Sequence[str]) -> list[str]:
    if not looks:
        return []
    masked = [row for row in rows if row.mask]
    indices = {label: index for index, label in enumerate(names, 1)}
    tags = {row.id: [indices[label] for label in row.labels] for row in masked}
    fine = {row.id: looks[row.id] for row in masked}
    bad = len(looks) - len(masked)
    left_out = f"; {counted(bad, 'mask')} left out" if bad else ""
    odd = disagreement_line(*disagreements(fine, tags, ("background", *names)))
    return [
        f"masks for {len(masked):,} of {counted(len(rows), 'image')}{left_out}",
        *odd_lines(list(fine.values())),
        *([odd] if odd else []),
    ]


# -- splits ------------------------------------------------------------------------------------------------------------


def _splits(
    rows: Sequence[Row], names: Sequence[str], table: Path, fraction: float, seed: int
) -> dict[str, list[Sample]]:
    """Samples by split.

    Raises:
        DataError: an image of val has no mask, or none is left for training.
    """
    val = _val_ids(rows, fraction, seed)
    bare = [row for row in rows if row.id in val and row.mask is None]
    if bare:
        raise DataError(
            f"{table}, line {bare[0].line}: {bare[0].id} is in the val split but has no mask",
            "networks are scored on val: give --masks with its mask, or take it out of val",
        )
    indices = {label: index for index, label in enumerate(names, 1)}
    splits: dict[str, list[Sample]] = {"train": [], "val": []} if val else {"train": []}
    for row in rows:
        labels = tuple(sorted(indices[label] for label in set(row.labels)))
        splits["val" if row.id in val else "train"].append(Sample(row.id, row.image, row.mask, labels, row.size))
    if not splits["train"]:
        raise DataError(
            f"{table} leaves no image for training", "mark some rows with split train, or lower --val-fraction"
        )
    return splits


def _val_ids(rows: Sequence[Row], fraction: float, seed: int) -> set[str]:
    if any(row.split for row in rows):
        return {row.id for row in rows if row.split == "val"}
    masked = sorted(row.id for row in rows if row.mask is not None)
    count = min(max(1, round(fraction * len(masked))), len(masked)) if masked and fraction > 0 else 0
    return set(np.random.default_rng(seed).permutation(masked)[:count].tolist())
