"""The eval stage for networks: mIoU on the val split, single scale and ms+flip in one pass."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from wsss_cli.config.evaluation import EvalConfig
from wsss_cli.config.schema import Preset
from wsss_cli.crf.dense import Backend, backend_for
from wsss_cli.data.batches import to_device
from wsss_cli.data.dataset import Dataset, Sample, open_dataset
from wsss_cli.data.images import read_image
from wsss_cli.data.masks import check_values, read_mask
from wsss_cli.engine.context import Context
from wsss_cli.engine.records import find_runs
from wsss_cli.engine.sweep import Lost, SweepOptions, sweep
from wsss_cli.errors import DataError, Interrupted, PeerError, Preempted, UsageError
from wsss_cli.files import write_json
from wsss_cli.inference.network import LATEST, Network, Which, load_network
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
        options: what to score.
        partial: what an earlier call has counted, which is not counted again; about once a minute, and when this one is
            stopped, what is counted goes there.
        images: a file for what each image adds to the scores at a single scale.
    Returns:
        ({'single': scores, 'ms_flip', 'single_crf' or 'ms_flip_crf' as asked for}, lost images). Scores are
        `metrics.scores.summary`, `confusion`: lists of exact integers [K+1][K+1], rows truth, the last row and column
        what is outside the classes; `biou` and `mbiou`, per cent; `unscored_share` of all pixels, those that are 255 in
        the truth.
    Raises:
        DataError: a true mask has a value that is no class; names its file.
    """
    modes = ["single", "ms_flip"] if options.ms_flip else ["single"]
    refined = f"{modes[-1]}_crf" if options.crf else ""
    backend = backend_for(ctx.device.type)
    counting = Counting(
        dataset.num_classes, options.boundary, refined, preset.eval.crf if options.crf else None, backend
    )

    def fresh() -> dict[str, Counts]:
        return {
            mode: Counts(dataset.num_classes, options.boundary) for mode in [*modes, *([refined] if refined else [])]
        }

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
    progress = Progress(batches, fresh, partial)
    done = only_first(lambda: progress.done)
    todo = Rows(batches, [number for number in range(len(batches)) if number not in done])
    how = SweepOptions(title, SMALLER, size_of=lambda loaded: loaded[0].shape[:2])
    if options.crf:
        how = replace(how, workers=cores_here(), processes=backend != "triton")
    try:
        for sample, counts in sweep(todo, _read, compute, counting, how, progress.lost, ctx):
            if images is not None and len(samples) <= MOST:
                counts["single"].name(sample.id)
            progress.add(sample, counts)  # on the first rank
    except (Preempted, Interrupted, PeerError):
        if here().rank == 0:
            progress.write()
        raise
    return only_first(lambda: (_scores(progress.total(), samples, dataset, images), unread + progress.lost))


def _scores(
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
        raise DataError(f"{sample.mask} and {sample.image} are of different sizes")
    return image, mask, sample.mask


def newest_run(runs: Path, stage: str = "train") -> Path:
    """The newest finished run of a stage.

    Raises:
        UsageError: there is none.
    """
    for path, record in find_runs(runs, stage):
        if record.state == "done":
            return path
    raise UsageError(f"no finished {stage} run in {runs}", f"run `wsss {stage} --preset NAME` first, or name a run")


def run_eval(
    run: Path,
    ctx: Context,
    *,
    ms_flip: bool,
    crf: bool = False,
    boundary: bool = False,
    split: str = "",
    which: Which = LATEST,
    views: dict[str, Any] | None = None,
    data: str = "",
) -> dict[str, Any]:
    """Score a training run on its val split; the result goes to the run's eval.json, in place of an earlier one.

    Scores on another split go to eval-SPLIT.json. Stopped or killed, the same call goes on where it stood.

    Args:
        run: also a checkpoint folder or an imported directory, see `load_network`.
        ms_flip, crf, boundary: see `ScoreOptions`.
        split, which: another split of the data set to score on; weights of the run.
        views: fields of the preset's eval section to change.
        data: another data set directory with the same classes to score on.
    Returns:
        {'single': summary, 'ms_flip': summary, 'classes', 'protocol', 'lost', ...}.
    Raises:
        DataError: the split has no masks, the data set other classes, or a true mask a value that is no class.
    """
    network = load_network(run, ctx, which)
    dataset = open_dataset(data or network.dataset)
    split = split or network.preset.dataset.val
    samples = [s for s in dataset.split(split) if s.mask is not None]
    if not samples:
        raise DataError(f"split {split!r} of {dataset.root} has no masks to score against")
    _check_classes(dataset, network.classes, run)
    changed = [] if data else _changed_list(network, dataset, split, ctx)
    config = EvalConfig.model_validate({**network.preset.eval.model_dump(), **(views or {})})
    preset = network.preset.model_copy(update={"eval": config})
    options = ScoreOptions(ms_flip, crf, boundary)
    file = run / ("eval.json" if split == preset.dataset.val else f"eval-{split}.json")
    partial = PartialCounts(
        file.with_suffix(".part.json"),
        _key(network, dataset, split, config, run, boundary, ctx),
    )
    title, model = "eval, ms+flip" if ms_flip else "eval", network.model
    images = file.with_suffix(".images.npz")
    scores, lost = score_network(
        model, samples, dataset, preset, ctx, options=options, title=title, partial=partial, images=images
    )
    result = {
        **scores,
        "run": str(run),
        "file": str(file),
        "dataset": data or network.dataset,
        "split": split,
        "split_sha256": dataset.split_sha256[split],
        "eval": config.model_dump(mode="json"),
        "checkpoint": which.checkpoint,
        **({"weights": network.weights} if network.weights else {}),
        "step": network.step,
        "classes": list(dataset.classes),
        "protocol": [
            f"{dataset.name}/{split} ({_counted(len(samples), len(lost))}), {network.origin}; {_views(config)}; "
            "255 ignored",
            *_further(config, options, backend_for(ctx.device.type)),
            *changed,
            *dataset.protocol,
        ],
        "lost": lost,
        "device": ctx.device_name,
    }
    only_first(lambda: write_json(file, result))
    partial.remove()
    return result


def _key(
    network: Network, dataset: Dataset, split: str, config: EvalConfig, run: Path, boundary: bool, ctx: Context
) -> dict[str, Any]:
    """All that the counts of an evaluation depend on."""
    weights = run / "model.safetensors"  # of an imported network, which has no steps
    return {
        "dataset": dataset.fingerprint,
        "split": split,
        "origin": network.origin,
        "step": network.step,
        "weights_changed": weights.stat().st_mtime_ns if weights.is_file() else None,
        "eval": config.model_dump(mode="json"),
        "boundary": boundary,
        "device": ctx.device.type,
    }


def _changed_list(network: Network, dataset: Dataset, split: str, ctx: Context) -> list[str]:
    """The protocol line of a list that is another one than at the training's time; it is said, too."""
    now = dataset.split_sha256[split]
    if network.split_sha256.get(split, now) == now:
        return []
    changed = "changed after the training (another SHA-256)"
    ctx.ui.say(f"split {split!r} of {dataset.root} {changed}: scored as it is now, and the protocol says so")
    return [f"split {split} {changed}"]


def _check_classes(dataset: Dataset, classes: Sequence[str], run: Path) -> None:
    if dataset.classes != classes:
        raise DataError(
            f"{dataset.root} has other classes than {run}: {_listed(dataset.classes)}, not {_listed(classes)}",
            "name the data set that it was trained on with --data, or train on this one: "
            f"wsss train --init {shlex.quote(str(run))}",
        )


def _counted(masks: int, lost: int) -> str:
    return f"{masks - lost} of {masks} images; {lost} lost" if lost else f"{masks} images"


def _listed(classes: Sequence[str]) -> str:
    return f"{len(classes)} ({', '.join(classes[:3])}{', ...' if len(classes) > 3 else ''})"


def _views(config: EvalConfig) -> str:
    base = "original image" if config.base == "image" else f"short side {config.short_side}"
    mode = "whole image" if config.mode == "whole" else f"windows of {config.window}, stride {config.stride}"
    return f"{mode}, scale 1 = {base}"


def _further(config: EvalConfig, options: ScoreOptions, backend: Backend) -> list[str]:
    """Protocol lines of what was asked for besides the single scale."""
    lines = []
    if options.ms_flip:
        lines.append(f"ms+flip: scales {', '.join(f'{scale:g}' for scale in config.scales)}, softmax averaged")
    if options.crf:
        p, kind = config.crf, "exact CRF" if backend == "triton" else "CRF"
        bilateral = f"{p.bilateral_sxy:g}/{p.bilateral_srgb:g}/{p.bilateral_compat:g}"
        lines.append(
            f"{kind} on the probabilities: {p.gauss_sxy:g}/{p.gauss_compat:g}, {bilateral}, {p.iterations} iterations"
        )
    else:
        lines.append("no CRF")
    if options.boundary:
        lines.append("boundary IoU: within 2 % of the diagonal of a contour; pixels whose truth is 255 are in no class")
    return lines
