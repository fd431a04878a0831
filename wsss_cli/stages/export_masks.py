"""Masks of a run for annotators, those first whose wrong pixels are expected to cost most."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from wsss_cli.config.load import load_preset
from wsss_cli.data.dataset import Dataset, Sample, open_dataset
from wsss_cli.data.drawings import coco, cvat, label_studio
from wsss_cli.data.drawings.outgoing import Outgoing, Palette
from wsss_cli.data.drawings.shapes import UNDECIDED
from wsss_cli.data.images import image_size, read_plain_file
from wsss_cli.data.masks import check_values, read_mask, write_mask
from wsss_cli.data.remote import url_of
from wsss_cli.data.sources.results import composed, place_of, places_by_name
from wsss_cli.data.trusted import read_trusted
from wsss_cli.engine.context import Context
from wsss_cli.engine.records import is_run, read_inputs, read_run
from wsss_cli.errors import BusyError, DataError, UsageError
from wsss_cli.files import whole_file, write_bytes, write_text
from wsss_cli.inference.journal import refuse_other_classes
from wsss_cli.locks import locked
from wsss_cli.processes import cores, in_processes
from wsss_cli.rows import Each, Rows
from wsss_cli.scoring.calibration import (
    GROUPS,
    LEVELS,
    Calibration,
    Judged,
    as_given,
    calibrate,
    confidence_counts,
    expected_losses,
    right_counts,
)
from wsss_cli.stages.paths import Files, confidence_files, mask_files
from wsss_cli.stages.scored import score_samples
from wsss_cli.stages.trusted import whole_masks
from wsss_cli.talk import sides, silent

Format = Literal["png", "coco", "label-studio", "cvat"]
Item = TypeVar("Item")
Result = TypeVar("Result")
ORDER = "order.csv"
PHOTOGRAPHS = "photographs"


@dataclass(frozen=True)
class Source:
    """Masks of photographs of a list.

    Attributes:
        listed: all photographs of the list.
        samples: those that have a mask.
        mask_of: the mask of a photograph.
        confidence_of: of a photograph's mask; None: not all have one.
        score: photographs with a mask, its confidence and a true mask.
    """

    dataset: Dataset
    listed: Sequence[Sample]
    samples: Sequence[Sample]
    mask_of: Callable[[Sample], Path]
    confidence_of: Callable[[Sample], Path] | None = None
    score: Sequence[Sample] = ()


@dataclass(frozen=True)
class Ranked:
    """Photographs in the order in which they are to be looked at.

    Attributes:
        wrong: share of wrong pixels that is expected of each; None: nothing is known.
        loss: what these are expected to take from the mean IoU of the masks, points; None: nothing is known.
        corrected: photographs that were left out as they have a whole mask of the data set.
    """

    samples: tuple[Sample, ...]
    wrong: tuple[float | None, ...]
    loss: tuple[float | None, ...]
    calibration: Calibration | None
    corrected: int


def masks_of_run(run: Path, data: Path | None, split: str, say: Callable[[str], None]) -> Source:
    """The masks of a pseudo run, or of a folder that `wsss infer` wrote.

    Args:
        data: the data set; of a folder of predictions it must be given.
        split: the list of its photographs; empty: the one that the run was made of, or 'train'.
    Raises:
        UsageError: it is neither, or its masks are of other classes than the data set's.
        DataError: it has no mask of a photograph of the list, or two.
    """
    if is_run(run):
        source = _of_run(run, data, split, say)
    elif not (run / "masks").is_dir():
        raise UsageError(f"{run} has no masks", "name a pseudo run, or a folder that wsss infer wrote")
    elif data is None:
        raise UsageError(f"{run} is a folder of predictions: of which data set?", "--data DATASET")
    else:
        source = _of_predictions(run, open_dataset(data, say), split or "train")
    if not source.samples:
        where = f"split {split!r} of {source.dataset.root}" if split else f"the list of {source.dataset.root}"
        raise DataError(
            f"{run} has no mask of a photograph of {where}", "--split names another list, --data a data set"
        )
    return source


def _of_run(run: Path, data: Path | None, split: str, say: Callable[[str], None]) -> Source:
    read_run(run, "pseudo")
    preset = load_preset(str(run / "preset.lock.toml"), say=silent)
    place = read_inputs(run).dataset
    if data is None and not Path(place).exists():
        raise DataError(f"the data set of {run} is gone: {place}", "put it back, or say where it lies now: --data DIR")
    dataset = open_dataset(data or place, say, preset.dataset.limit)
    samples = dataset.split(split or preset.dataset.train)
    masks, sure, score = mask_files(run), confidence_files(run), score_samples(dataset, preset)
    masked = masks.with_file(samples)
    scored = Rows(score, np.flatnonzero(masks.there(score) & sure.there(score))) if score else ()
    confidence_of = (lambda sample: sure.of(sample.id)) if sure.there(masked).all() else None
    return Source(dataset, samples, masked, lambda sample: masks.of(sample.id), confidence_of, scored)


def _of_predictions(folder: Path, dataset: Dataset, split: str) -> Source:
    """Masks that are named after photographs, perhaps with folders before their names."""
    samples = dataset.split(split)
    places = places_by_name(samples)
    names: dict[int, str] = {}
    for name in sorted(Files(folder / "masks", ".png").names()):
        place = place_of(f"{name}.png", places, of_map=True)
        if place is not None and place in names:
            raise DataError(
                f"{names[place]}.png and {name}.png in {folder / 'masks'} are of one photograph", "leave one"
            )
        if place is not None:
            names[place] = name
    refuse_other_classes(folder, names.values(), dataset.classes, str(dataset.root))
    by_id = {samples[place].id: name for place, name in names.items()}
    complete = set(names.values()) <= set(Files(folder / "confidence", ".png").names())

    def in_folder(kind: str) -> Callable[[Sample], Path]:
        return lambda sample: folder / kind / f"{by_id[sample.id]}.png"

    predicted = Rows(samples, sorted(names))
    return Source(dataset, samples, predicted, in_folder("masks"), in_folder("confidence") if complete else None)


def rank(source: Source, ctx: Context) -> Ranked:
    """Photographs that have a mask and no whole mask of the data set, those first that cost the mean IoU most.

    That is by `calibration.expected_losses`, of the pixels that are expected to be wrong: 1 - confidence of each, or,
    where photographs of the score split have true masks, the share that is wrong among pixels of like confidence whose
    class covers about as much of its mask. Without confidence the order is that of the list.

    Raises:
        DataError: a file cannot be read, or all photographs have a whole mask.
    """
    corrected = whole_masks(read_trusted(source.dataset.root), source.samples)
    pending = Rows(source.samples, np.flatnonzero(~corrected))
    count = int(corrected.sum())
    if not pending:
        raise DataError(f"all {count:,} photographs have a whole mask in {source.dataset.root}/trusted")
    if source.confidence_of is None:
        return Ranked(tuple(pending), (None,) * len(pending), (None,) * len(pending), None, count)
    calibration = _calibration(source, source.confidence_of, ctx)
    share = as_given() if calibration is None else calibration.wrong
    sure = source.confidence_of
    pixels, wrong, shares = np.zeros(LEVELS, np.int64), [], []
    for one in _each(confidence_counts, Each(pending, lambda one: (source.mask_of(one), sure(one))), "confidence", ctx):
        expected = one.wrong(share)
        np.add.at(pixels, one.values, one.counts.sum(1))
        wrong.append({int(value): float(each) for value, each in zip(one.values, expected, strict=True)})
        shares.append(float(expected.sum() / one.counts.sum()))
    of_classes = pixels[: source.dataset.num_classes]
    losses = expected_losses(wrong, [one.labels for one in pending], of_classes, pixels.sum() / len(pending))
    order = sorted(range(len(pending)), key=lambda at: (-losses[at], pending[at].id))
    known = tuple(shares[at] for at in order), tuple(losses[at] for at in order)
    return Ranked(tuple(pending[at] for at in order), *known, calibration, count)


def _calibration(source: Source, confidence_of: Callable[[Sample], Path], ctx: Context) -> Calibration | None:
    if not source.score:
        return None

    def files(sample: Sample) -> Judged:
        assert sample.mask is not None
        return source.mask_of(sample), confidence_of(sample), sample.mask

    total = np.zeros((2, GROUPS, LEVELS), np.int64)
    for counts in _each(right_counts, Each(source.score, files), "calibration", ctx):
        total += counts
    return calibrate(total, len(source.score))


def _each(work: Callable[[Item], Result], items: Sequence[Item], title: str, ctx: Context) -> Iterator[Result]:
    with ctx.ui.progress(len(items), title) as bar:
        for result in in_processes(work, items, cores(), check=ctx.stop.check):
            yield result
            bar.advance()


def refuse_taken(out: Path) -> None:
    """Refuse a folder to export to that holds anything.

    Raises:
        UsageError: it does, or is a file.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is there already, and may hold corrections", "choose another --out")


def write_export(
    source: Source,
    ranked: Ranked,
    count: int,
    form: Format,
    out: Path,
    ctx: Context,
    prefix: str = label_studio.PREFIX,
    *,
    photographs: bool = False,
) -> list[Path]:
    """Write the first photographs' masks in a format, and `order.csv`; the folder appears whole or not at all.

    Args:
        count: how many photographs, the first ones.
        prefix: of photographs in Label Studio's tasks.
        photographs: copy them to `photographs/`, under the names that the export has for them.
    Returns:
        What was written, without order.csv.
    Raises:
        BusyError: another process writes there.
        UsageError: the folder is there and not empty, or a class has the name that stands for 255.
        DataError: a mask or photograph cannot be read, or a mask has a value that is no class.
    """
    refuse_taken(out)
    place = out.resolve()
    if form != "png" and UNDECIDED in source.dataset.classes:
        raise UsageError(f"a class is called {UNDECIDED!r}, which is what 255 is called in {form}", "--format png")
    aside = place.parent / f".{place.name}.part"
    aside.mkdir(parents=True, exist_ok=True)
    try:
        with locked(aside / ".lock", f"{out} is being written"):
            for stale in [path for path in aside.iterdir() if not path.name.startswith(".lock")]:  # of a killed export
                shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
            copies = aside / PHOTOGRAPHS if photographs else None
            files = _write(_outgoing(source, ranked.samples[:count], ctx, copies), source.dataset, form, aside, prefix)
            files += [copies] if copies else []
            write_text(aside / ORDER, _order(ranked, count))
    except BusyError:
        raise
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    for lock in aside.glob(".lock*"):
        lock.unlink()
    if place.is_dir():
        place.rmdir()
    aside.rename(place)
    return [out / file.relative_to(aside) for file in files]


def _outgoing(source: Source, samples: Sequence[Sample], ctx: Context, copies: Path | None) -> Iterator[Outgoing]:
    places = places_by_name(source.listed)
    with ctx.ui.progress(len(samples), "masks") as bar:
        for sample in samples:
            ctx.stop.check()
            file = source.mask_of(sample)
            mask = read_mask(file)
            check_values(mask, source.dataset.num_classes, file)
            if mask.shape != (size := image_size(sample.image)):
                raise DataError(f"{file} is {sides(mask.shape)}, its photograph {sides(size)}")
            at = places[composed(sample.image.name)]
            same = at >= 0 and source.listed[at].id == sample.id
            name = sample.image.name if same else f"{sample.id}{sample.image.suffix}"
            if copies:
                write_bytes(copies / name, read_plain_file(sample.image))
            yield Outgoing(sample.id, name, sample.image, mask)
            bar.advance()


def _write(masks: Iterator[Outgoing], dataset: Dataset, form: Format, out: Path, prefix: str) -> list[Path]:
    palette = Palette(dataset.classes, dataset.colors)
    if form == "png":
        for one in masks:
            write_mask(out / "masks" / f"{one.id}.png", one.mask, dataset.colors)
        return [out / "masks"]
    if form == "coco":
        with whole_file(out / "instances.json") as file:
            coco.write_coco(file, masks, palette)
        return [out / "instances.json"]
    if form == "cvat":
        with whole_file(out / "annotations.xml") as file:
            cvat.write_cvat(file, masks, palette)
        write_text(out / "labels.json", cvat.task_labels(palette))
        return [out / "annotations.xml", out / "labels.json"]
    with whole_file(out / "tasks.json") as file:
        label_studio.write_label_studio(file, masks, palette, prefix)
    write_text(out / "labels.xml", label_studio.labelling_interface(palette))
    return [out / "tasks.json", out / "labels.xml"]


def _order(ranked: Ranked, count: int) -> str:
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["rank", "id", "wrong", "loss", "image"])
    known = zip(ranked.samples[:count], ranked.wrong[:count], ranked.loss[:count], strict=True)
    for number, (sample, *values) in enumerate(known, 1):
        told = ["" if value is None else f"{value:.6f}" for value in values]
        rows.writerow([number, sample.id, *told, url_of(sample.image) or sample.image])
    return text.getvalue()
