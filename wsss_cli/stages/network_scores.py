"""Scores of a network on images with true masks, single scale and ms+flip in one pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from wsss_cli.config.schema import Preset
from wsss_cli.crf.dense import backend_for
from wsss_cli.data.batches import to_device
from wsss_cli.data.dataset import Dataset, Sample
from wsss_cli.data.images import read_image
from wsss_cli.data.masks import check_values, read_mask
from wsss_cli.engine.context import Context
from wsss_cli.engine.sweep import Lost, SweepOptions, sweep
from wsss_cli.errors import DataError, Interrupted, PeerError, Preempted
from wsss_cli.inference.predict import SMALLER, image_batches, predict_tensors
from wsss_cli.labels import IGNORE
from wsss_cli.metrics.on_device import DeviceConfusion
from wsss_cli.models.segmentor import Segmentor
from wsss_cli.ranks.group import only_first
from wsss_cli.ranks.who import cores_here, here
from wsss_cli.rows import Rows
from wsss_cli.scoring.by_image import MOST, image_areas, write_areas
from wsss_cli.scoring.counting import Counting, Prediction
from wsss_cli.scoring.counts import Counts
from wsss_cli.scoring.partial import PartialCounts, Progress
from wsss_cli.talk import sides

COUNT_THERE = ("cuda",)  # devices on which pixels are counted, so that label maps need not leave them
ImageAndMask = tuple[np.ndarray, np.ndarray, Path]  # image, true mask and its file


@dataclass(frozen=True)
class ScoreOptions:
    """What to score of a network besides the single scale.

    Attributes:
        ms_flip: the average over the scales of the preset, mirrored too.
        crf: the probabilities (of ms+flip where that is asked for) refined by `preset.eval.crf`, in processes.
        boundary: Boundary IoU.
    """

    ms_flip: bool = False
    crf: bool = False
    boundary: bool = False

    @property
    def modes(self) -> list[str]:
        """Keys of the scores; that of the CRF, where it is asked for, is the last."""
        plain = ["single", "ms_flip"] if self.ms_flip else ["single"]
        return [*plain, f"{plain[-1]}_crf"] if self.crf else plain

    def fresh(self, num_classes: int) -> dict[str, Counts]:
        """Counts of nothing yet, of each mode."""
        return {mode: Counts(num_classes, self.boundary) for mode in self.modes}


def score_network(
    model: Segmentor,
    samples: Sequence[Sample],
    dataset: Dataset,
    preset: Preset,
    ctx: Context,
    *,
    options: ScoreOptions,
    title: str,
    partial: PartialCounts | None = None,
    images: Path | None = None,
) -> tuple[dict[str, Any], Lost]:
    """Score a network on samples with masks, on all ranks; each is told the scores.

    Args:
        options, partial: as for `count_network`.
        images: a file for what each image adds to the scores at a single scale.
    Returns:
        ({'single': scores, 'ms_flip', 'single_crf' or 'ms_flip_crf' as asked for}, lost images). Scores are
        `metrics.scores.summary`, `confusion`: lists of exact integers [K+1][K+1], rows truth, the last row and column
        what is outside the classes; `biou` and `mbiou`, per cent; `unscored_share` of all pixels, those that are 255 in
        the truth.
    Raises:
        DataError: a true mask has a value that is no class; names its file.
    """
    total, lost = count_network(
        model,
        samples,
        dataset,
        preset,
        ctx,
        options=options,
        title=title,
        partial=partial,
        by_image=images is not None and len(samples) <= MOST,
    )
    return only_first(lambda: (scores_of(total, samples, dataset, images), lost))


def count_network(
    model: Segmentor,
    samples: Sequence[Sample],
    dataset: Dataset,
    preset: Preset,
    ctx: Context,
    *,
    options: ScoreOptions,
    title: str,
    partial: PartialCounts | None = None,
    by_image: bool = False,
) -> tuple[dict[str, Counts], Lost]:
    """Count what a network says of samples with masks, on all ranks; the first one has the counts.

    Args:
        options: what to score.
        partial: what an earlier call has counted, which is not counted again; about once a minute, and when this one is
            stopped, what is counted goes there.
        by_image: also what each image adds at a single scale.
    Returns:
        (counts of each mode, lost images in the order of the samples).
    Raises:
        DataError: a true mask has a value that is no class; names its file.
    """
    modes = options.modes
    refined = modes.pop() if options.crf else ""
    backend = backend_for(ctx.device.type)
    counting = Counting(
        dataset.num_classes, options.boundary, refined, preset.eval.crf if options.crf else None, backend
    )

    def compute(batch: list[ImageAndMask]) -> Iterator[Prediction]:
        for _, mask, file in batch:
            check_values(mask, dataset.num_classes, file)
        images, masks = [image for image, _, _ in batch], [mask for _, mask, _ in batch]
        predicted = predict_tensors(
            model,
            images,
            preset.eval,
            ctx,
            preset.train.precision,
            ms_flip=options.ms_flip,
            probabilities=options.crf,
        )
        return _to_count(predicted, modes, images, masks, counting, ctx)

    unread: Lost = []
    batches = image_batches(samples, preset.eval, unread, ctx, ms_flip=options.ms_flip)
    progress = Progress(batches, lambda: options.fresh(dataset.num_classes), partial)
    done = only_first(lambda: progress.done)
    todo = Rows(batches, [number for number in range(len(batches)) if number not in done])
    how = SweepOptions(title, SMALLER, size_of=lambda loaded: loaded[0].shape[:2])
    if options.crf:
        how = replace(how, workers=cores_here(), processes=backend != "triton")
    try:
        for sample, counts in sweep(todo, _read, compute, counting, how, progress.lost, ctx):
            if by_image:
                counts["single"].name(sample.id)
            progress.add(sample, counts)  # on the first rank
    except (Preempted, Interrupted, PeerError):
        if here().rank == 0:
            progress.write()
        raise
    total = progress.total()
    if partial is not None and partial.whole and here().rank == 0:
        progress.write()
    return total, in_order_of(samples, unread + progress.lost)


def in_order_of(samples: Sequence[Sample], lost: Sequence[dict[str, str]]) -> Lost:
    """Lost samples in the order of all samples."""
    names = {entry["id"] for entry in lost}
    places = {sample.id: place for place, sample in enumerate(samples) if sample.id in names} if names else {}
    return sorted(lost, key=lambda entry: places[entry["id"]])


def scores_of(
    total: dict[str, Counts], samples: Sequence[Sample], dataset: Dataset, images: Path | None
) -> dict[str, dict[str, Any]]:
    """The scores of each mode; what single images add is written where that is asked for."""
    if images is not None:
        each = total["single"].images
        write_areas(images, image_areas((one.id, each[one.id]) for one in samples if one.id in each))
    return {mode: count.scores(dataset.classes) for mode, count in total.items()}


def _to_count(
    predicted: dict[str, Tensor],
    modes: Sequence[str],
    images: list[np.ndarray],
    masks: list[np.ndarray],
    counting: Counting,
    ctx: Context,
) -> Iterator[Prediction]:
    """Predictions of a batch, ready to be counted; they stay on a device that can count them.

    Boundary IoU is counted on the CPU, and the confusion with it; so is all in worker processes.
    """
    planes = predicted[f"{modes[-1]}_probabilities"].cpu().numpy() if counting.crf else [None] * len(images)
    counted: list[dict[str, DeviceConfusion]] = [{}] * len(images)
    labels: dict[str, np.ndarray] = {}
    if ctx.device.type in COUNT_THERE and not counting.boundary and (not counting.crf or counting.backend == "triton"):
        truth = to_device(np.stack(masks), ctx.device)
        counted = [_on_device(predicted, modes, truth, number, counting.num_classes) for number in range(len(images))]
    else:
        labels = {mode: predicted[mode].cpu().numpy() for mode in modes}
    for number, (image, mask, probabilities) in enumerate(zip(images, masks, planes, strict=True)):
        here = {mode: maps[number] for mode, maps in labels.items()}
        yield Prediction(mask, here, counted[number], image if counting.crf else None, probabilities)


def _on_device(
    predicted: dict[str, Tensor], modes: Sequence[str], truth: Tensor, number: int, num_classes: int
) -> dict[str, DeviceConfusion]:
    """The counts of an image of a batch, on the device that holds the batch."""
    counts = {mode: DeviceConfusion(num_classes, truth.device) for mode in modes}
    for mode, count in counts.items():
        count.add(predicted[mode][number], truth[number], IGNORE)
    return counts


def _read(sample: Sample) -> ImageAndMask:
    assert sample.mask is not None
    image, mask = read_image(sample.image), read_mask(sample.mask)
    if image.shape[:2] != mask.shape:
        raise DataError(
            f"{sample.mask} is {sides(mask.shape)}, {sample.image} is {sides(image.shape[:2])}",
            "masks have the size of their photographs as shown (EXIF applied)",
        )
    return image, mask, sample.mask
