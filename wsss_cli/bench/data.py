"""The training loader alone: batches a second by worker count, and where the time of a sample goes."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from wsss_cli.bench.inputs import stored_samples
from wsss_cli.bench.measure import Case, Row, Work, five_digits, make_rows, measure, report
from wsss_cli.config.schema import Preset
from wsss_cli.data.images import read_image
from wsss_cli.data.loader import AHEAD, Batches, training_batches
from wsss_cli.data.masks import read_mask
from wsss_cli.data.transforms import train_sample
from wsss_cli.engine.context import Context
from wsss_cli.errors import DataError
from wsss_cli.processes import cores
from wsss_cli.stages.training_data import training_item


def bench_data(
    preset: Preset,
    ctx: Context,
    *,
    images: int = 32,
    size: tuple[int, int] = (375, 500),
    workers: Sequence[int] = (),
    batches: int = 4,
    repeats: int = 3,
    seed: int = 0,
    data: str = "",
) -> dict[str, Any]:
    """Time the training loader of a preset on JPEG photographs and PNG masks, with nobody who uses the batches.

    Args:
        images: files that are read again and again, so from the system's cache.
        size: height and width of the drawn photographs.
        workers: worker counts; none: 0, 1, 2, 4, ... up to the cores.
        batches: in a turn.
        data: data set directory whose first images are taken as they are; they must have masks.
    Returns:
        See `bench_measure.report`; 'feeds_it_s': the iterations a second of a training that the best worker count
        could feed.
    Raises:
        DataError: an image of `data` has no mask.
    """
    height, width = size
    batch, crop = preset.train.batch, preset.train.crop
    train = preset.train.model_copy(update={"supervision": "full"})
    train = train.model_copy(update={"noise": type(train.noise)()})  # other files and fields, no other work
    with tempfile.TemporaryDirectory(prefix="wsss-bench-") as name:
        samples, num_classes = stored_samples(Path(name), images, height, width, seed=seed, data=data)
        if missing := [sample.id for sample in samples if sample.mask is None]:
            raise DataError(f"{missing[0]} of {data} has no mask, which training needs", "leave --data out")
        make = partial(training_item, config=train, num_classes=num_classes, confidence=None)
        rows = _parts(samples, train, make, ctx, repeats, seed)
        for count in workers or _counts():
            case = Case(f"{count} workers", partial(_loader, samples, make, batch, seed, count, batches, ctx))
            timings = measure([case], ctx, repeats=repeats, title=case.name)
            rows += make_rows(timings, units=batches, unit="batches_s", base=case.name)
    loaders = [row for row in rows if "batches_s" in row]
    for row in loaders:
        row |= {"images_s": five_digits(batch * row["batches_s"]), "memory_mib": None}  # workers' own is not in it
        row["ratio"] = five_digits(row["batches_s"] / loaders[0]["batches_s"])
    best = max((row["batches_s"] for row in loaders), default=None)
    return {
        **report(
            "data",
            ctx,
            rows,
            settings={
                "preset": preset.name,
                "images": len(samples),
                "height": height,
                "width": width,
                "batch": batch,
                "crop": crop,
                "batches": batches,
                "cores": cores(),
                "repeats": repeats,
                "seed": seed,
                "data": data,
            },
            ceilings={},
            ratio_to=loaders[0]["name"] if loaders else "",
            notes=[
                "reading, augmenting: all images once, one after another in this process",
                f"workers: {batches} batches a turn, when those made ahead are used up; files in the system's cache",
                f"feeds a training of up to {best} iterations a second at batch {batch}" if best else "no loader ran",
            ],
        ),
        "feeds_it_s": best,
    }


def _counts() -> list[int]:
    """0, 1, 2, 4, ... and the number of cores."""
    most = cores()
    return sorted({0, *(2**power for power in range(most.bit_length()) if 2**power <= most), most})


def _parts(samples: Sequence[Any], train: Any, make: Any, ctx: Context, repeats: int, seed: int) -> list[Row]:
    """Rows of the parts of a sample: reading, augmenting, both."""
    held = [(read_image(sample.image), read_mask(sample.mask)) for sample in samples]

    def read() -> None:
        for sample in samples:
            read_image(sample.image), read_mask(sample.mask)

    def augment() -> None:
        for index, (image, mask) in enumerate(held):
            train_sample(image, mask, np.random.default_rng((seed, index)), train.augment, train.crop)

    def both() -> None:
        for index, sample in enumerate(samples):
            make(sample, np.random.default_rng((seed, index)))

    cases = [Case("both", lambda: both), Case("reading", lambda: read), Case("augmenting", lambda: augment)]
    timings = measure(cases, ctx, repeats=repeats, title="parts of a sample")
    rows = make_rows(timings, units=len(samples), unit="images_s", base="both")
    whole = rows[0].get("ms")
    for row in rows:
        row["ratio"] = None
        if whole and "ms" in row:
            row["part"] = five_digits(row["ms"] / whole)
    return rows


def _loader(samples: Sequence[Any], make: Any, batch: int, seed: int, workers: int, batches: int, ctx: Context) -> Work:
    source = training_batches(
        Batches(samples, make, batch, seed),
        workers=workers,
        start=0,
        pin=ctx.device.type == "cuda",
        check=ctx.stop.check,
        say=ctx.ui.say,
    )
    for _ in range(max(AHEAD * workers, 1)):  # what was made ahead would count as made at once
        next(source)

    def run() -> None:
        for _ in range(batches):
            ctx.stop.check()
            next(source)

    return run
