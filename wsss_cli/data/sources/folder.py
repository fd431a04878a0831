"""A user's own photographs with tags in a CSV, masks optional."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from wsss_cli.data.dataset import Dataset, Sample, check_id, nearest, refuse_duplicates, write_dataset
from wsss_cli.data.images import IMAGE_ENDINGS, read_image
from wsss_cli.data.masks import read_mask, voc_palette
from wsss_cli.data.sources.tags import read_text, split_labels, without_suffix
from wsss_cli.errors import DataError
from wsss_cli.processes import in_processes

Finding = dict[str, str]


@dataclass(frozen=True)
class Row:
    """One line of the CSV."""

    line: int
    id: str
    image: Path
    labels: tuple[str, ...]
    split: str
    mask: Path | None = None


@dataclass
class Prepared:
    """The data set written, and what was found wrong on the way (those images are left out)."""

    dataset: Dataset
    findings: list[Finding] = field(default_factory=list)


def prepare_folder(
    images: Path,
    table: Path,
    out: Path,
    *,
    name: str,
    masks: Path | None = None,
    classes: Sequence[str] = (),
    val_fraction: float = 0.1,
    seed: int = 0,
    workers: int = 1,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> Prepared:
    """Write a data set directory that refers to the images in place.

    Images without a mask are for training. Of those with one, `val_fraction` (drawn by `seed`) make the val split,
    unless the CSV has a column `split` that says it.

    Args:
        table: CSV with a header: image, labels and optionally split (train or val).
        masks: folder of palette or grey PNGs named after the images, pixels 0 .. number of classes and 255.
        classes: names in the order of the mask values 1, 2, ...; the sorted names of the CSV if empty.
        tick: called with (done, total) after each image that was checked.
    Raises:
        DataError: the CSV cannot be taken; an image that does not decode is no error but a finding.
    """
    rows = read_table(images, table, masks)
    names = tuple(classes) or tuple(sorted({label for row in rows for label in row.labels}))
    _refuse_unknown(rows, names, table)
    work = partial(_check, count=len(names) + 1)
    found = []
    for done, finding in enumerate(in_processes(work, rows, workers), 1):
        if finding:
            found.append(finding)
        tick(done, len(rows))
    bad = {finding["id"] for finding in found}
    good = [row for row in rows if row.id not in bad]
    if not good:
        raise DataError(
            f"none of the {len(rows)} images of {table} can be used, first: {found[0]['problem']}", found[0]["fix"]
        )
    val = _val_ids(good, val_fraction, seed)
    bare = [row for row in good if row.id in val and row.mask is None]
    if bare:
        raise DataError(
            f"{table}, line {bare[0].line}: {bare[0].id} is in the val split but has no mask",
            "networks are scored on val: give --masks with its mask, or take it out of val",
        )
    indices = {label: index for index, label in enumerate(names, 1)}
    splits: dict[str, list[Sample]] = {"train": [], "val": []} if val else {"train": []}
    for row in good:
        labels = tuple(sorted(indices[label] for label in set(row.labels)))
        splits["val" if row.id in val else "train"].append(Sample(row.id, row.image, row.mask, labels))
    if not splits["train"]:
        raise DataError(
            f"{table} leaves no image for training", "mark some rows with split train, or lower --val-fraction"
        )
    dataset = write_dataset(
        out,
        name=name,
        classes=("background", *names),
        colors=voc_palette(len(names) + 1),
        splits=splits,
        source=f"folder {images.name}, {table.name}",
        protocol=[f"tags from {table.name}"],
        findings=found,
    )
    return Prepared(dataset, found)


def read_table(images: Path, table: Path, masks: Path | None) -> list[Row]:
    """Rows of the CSV with the files that belong to them.

    Raises:
        DataError: no header as expected, an image or mask folder that is not there, a tag without an image, duplicate
            ids, or no rows.
    """
    for folder in (images, *([masks] if masks else [])):
        if not folder.is_dir():
            raise DataError(f"{folder} is no folder")
    reader = csv.DictReader(io.StringIO(read_text(table)))
    fields = {(name or "").strip().lower(): name for name in reader.fieldnames or ()}
    if "image" not in fields or "labels" not in fields:
        raise DataError(f"{table}: the header needs the columns image and labels, it has {reader.fieldnames}")
    there = {path.relative_to(images).as_posix(): path for path in sorted(images.rglob("*")) if _is_image(path)}
    by_stem = {without_suffix(name): path for name, path in there.items()}
    rows, missing = [], []
    for record in reader:
        written = (record[fields["image"]] or "").strip()
        path = there.get(written) or by_stem.get(written)
        if path is None:
            missing.append(f"line {reader.line_num}: {written!r}")
            continue
        name = check_id(without_suffix(path.relative_to(images).as_posix()), f"{table}, line {reader.line_num}")
        mask = masks / f"{name}.png" if masks and (masks / f"{name}.png").is_file() else None
        split = (record[fields["split"]] or "").strip() if "split" in fields else ""
        if split not in ("", "train", "val"):
            raise DataError(f"{table}, line {reader.line_num}: split {split!r}", "train, val, or nothing")
        rows.append(
            Row(reader.line_num, name, path, tuple(split_labels(record[fields["labels"]], spaces=False)), split, mask)
        )
    if missing:
        raise DataError(
            f"{table} tags {len(missing)} images that are not in {images}; {missing[0]}",
            "correct the file or add the images",
        )
    if not rows:
        raise DataError(f"{table} has no rows", "a line for each image: name.jpg,cat|dog")
    refuse_duplicates((row.id for row in rows), str(table))
    return rows


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_ENDINGS and path.is_file()


def _refuse_unknown(rows: Sequence[Row], names: Sequence[str], table: Path) -> None:
    if not names:
        raise DataError(f"{table} names no class at all", "put tags into the column labels: cat|dog")
    for row in rows:
        for label in row.labels:
            if label not in names:
                raise DataError(
                    f"{table}, line {row.line}: unknown class {label!r}",
                    f"{nearest(label, names)}known: {', '.join(names)}",
                )


def _check(row: Row, count: int) -> Finding | None:
    """What is wrong with an image or its mask; None if nothing is."""
    try:
        image = read_image(row.image)
        if row.mask is None:
            return None
        mask = read_mask(row.mask)
    except DataError as error:
        return _finding(row, "unreadable", error.message, error.hint or "repair or remove the file")
    if mask.shape != image.shape[:2]:
        sizes = f"{mask.shape[1]}x{mask.shape[0]}, its image {image.shape[1]}x{image.shape[0]}"
        return _finding(row, "mask-size", f"{row.mask} is {sizes}", "make the mask anew at the size of the image")
    wrong = mask[(mask >= count) & (mask != 255)]
    if wrong.size:
        fix = f"pixels are 0 (background), 1..{count - 1} (classes) or 255"
        return _finding(row, "mask-value", f"{row.mask} holds the value {int(wrong[0])}", fix)
    return None


def _finding(row: Row, code: str, problem: str, fix: str) -> Finding:
    return {"id": row.id, "file": str(row.image), "code": code, "problem": problem, "fix": fix}


def _val_ids(rows: Sequence[Row], fraction: float, seed: int) -> set[str]:
    if any(row.split for row in rows):
        return {row.id for row in rows if row.split == "val"}
    masked = sorted(row.id for row in rows if row.mask is not None)
    count = min(max(1, round(fraction * len(masked))), len(masked)) if masked and fraction > 0 else 0
    return set(np.random.default_rng(seed).permutation(masked)[:count].tolist())
