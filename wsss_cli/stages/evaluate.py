"""The eval stage for networks: mIoU on the val split, single scale and ms+flip in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wsss_cli.config.load import load_preset
from wsss_cli.config.schema import Preset
from wsss_cli.data.dataset import Dataset, Sample, open_dataset
from wsss_cli.data.images import read_image
from wsss_cli.data.masks import image_size, read_mask
from wsss_cli.engine.checkpoint import find_checkpoint
from wsss_cli.engine.context import Context
from wsss_cli.engine.rundir import find_runs
from wsss_cli.engine.sweep import Lost, prefetch
from wsss_cli.errors import DataError, UsageError
from wsss_cli.files import read_json, write_json
from wsss_cli.metrics.confusion import Confusion
from wsss_cli.metrics.scores import summary
from wsss_cli.models.deeplab import DeepLabV3Plus
from wsss_cli.stages.predict import by_size, load_network, predict

Read = tuple[Sample, np.ndarray | None, np.ndarray | None, str]


def score_network(
    model: DeepLabV3Plus,
    samples: Sequence[Sample],
    dataset: Dataset,
    preset: Preset,
    ctx: Context,
    *,
    ms_flip: bool,
    title: str,
) -> tuple[dict[str, Any], Lost]:
    """Score a network on samples with masks.

    Returns:
        ({'single': summary, 'ms_flip': summary if asked for}, lost images). See `metrics.scores.summary`.
    """
    modes = ["single", "ms_flip"] if ms_flip else ["single"]
    confusions = {mode: Confusion(dataset.num_classes) for mode in modes}
    lost: Lost = []
    sized: list[tuple[Sample, tuple[int, int]]] = []
    for sample in samples:
        try:
            sized.append((sample, image_size(sample.image)))
        except DataError as error:
            lost.append({"id": sample.id, "reason": error.message})
    batches = by_size(sized, lambda pair: pair[1], ctx.device)
    with ctx.ui.progress(len(samples), title) as bar:
        bar.advance(len(lost))
        for read in prefetch(batches, lambda batch: [_read(sample) for sample, _ in batch], 2, 4):
            ctx.stop.check()
            lost += [{"id": sample.id, "reason": why} for sample, _, _, why in read if why]
            good = [(image, mask) for _, image, mask, _ in read if image is not None and mask is not None]
            if good:
                found = predict(
                    model,
                    [image for image, _ in good],
                    preset.eval,
                    ctx,
                    preset.train.precision,
                    ms_flip=ms_flip,
                )
                for mode in modes:
                    for prediction, (_, mask) in zip(found[mode], good, strict=True):
                        confusions[mode].add(prediction, mask)
            bar.advance(len(read))
    return {mode: summary(confusion.areas(), dataset.classes) for mode, confusion in confusions.items()}, lost


def _read(sample: Sample) -> Read:
    try:
        assert sample.mask is not None
        image, mask = read_image(sample.image), read_mask(sample.mask)
        if image.shape[:2] != mask.shape:
            return sample, None, None, f"{sample.mask} and {sample.image} are of different sizes"
        return sample, image, mask, ""
    except DataError as error:
        return sample, None, None, error.message


def newest_run(runs: Path, stage: str = "train") -> Path:
    """The newest finished run of a stage.

    Raises:
        UsageError: there is none.
    """
    for path, record in find_runs(runs, stage):
        if record.get("state") == "done":
            return path
    raise UsageError(f"no finished {stage} run in {runs}", f"run `wsss {stage} --preset NAME` first, or name a run")


def run_eval(
    run: Path, ctx: Context, *, ms_flip: bool, split: str = "", checkpoint: str = "latest", data: str = ""
) -> dict[str, Any]:
    """Score a training run on its val split; the result goes to the run's eval.json, in place of an earlier one.

    Args:
        run: also a checkpoint folder or an imported directory, see `load_network`.
        data: another data set directory with the same classes to score on.
        split: another split of the data set to score on.
        checkpoint: 'latest' or 'best'.
    Returns:
        {'single': summary, 'ms_flip': summary, 'classes', 'protocol', 'lost', ...}.
    """
    network = load_network(run, ctx, checkpoint)
    dataset = open_dataset(data or network.dataset)
    split = split or network.preset.dataset.val
    samples = [s for s in dataset.split(split) if s.mask is not None]
    if not samples:
        raise DataError(f"split {split!r} of {dataset.root} has no masks to score against")
    if dataset.classes != network.classes:
        raise DataError(f"{dataset.root} has other classes than {run} was trained on")
    title = "eval, ms+flip" if ms_flip else "eval"
    scores, lost = score_network(network.model, samples, dataset, network.preset, ctx, ms_flip=ms_flip, title=title)
    config = network.preset.eval
    base = "original image" if config.base == "image" else f"short side {config.short_side}"
    scales = ", ".join(f"{scale:g}" for scale in config.scales)
    protocol = [
        f"{dataset.name}/{split} ({len(samples) - len(lost)} images), {network.origin}; "
        f"whole image, scale 1 = {base}; no CRF; 255 ignored",
        *([f"ms+flip: scales {scales}, softmax averaged"] if ms_flip else []),
        *dataset.protocol,
    ]
    result = {
        **scores,
        "run": str(run),
        "dataset": data or network.dataset,
        "split": split,
        "checkpoint": checkpoint,
        "step": network.step,
        "classes": list(dataset.classes),
        "protocol": protocol,
        "lost": lost,
        "device": ctx.device_name,
    }
    write_json(run / "eval.json", result)
    return result


def finished_eval(run: Path, *, ms_flip: bool) -> dict[str, Any] | None:
    """The run's eval.json where it has what is asked for, on its val split, of the latest checkpoint."""
    checkpoint = find_checkpoint(run / "checkpoints")
    if checkpoint is None or not (run / "eval.json").is_file():
        return None
    current = {
        "dataset": read_json(run / "inputs.json")["dataset"],
        "checkpoint": "latest",
        "step": read_json(checkpoint / "meta.json").get("step"),
        "split": load_preset(str(run / "preset.lock.toml")).dataset.val,
        "lost": [],
    }
    stored = {"dataset": current["dataset"], **read_json(run / "eval.json")}
    fits = ("ms_flip" if ms_flip else "single") in stored and current.items() <= stored.items()
    return stored if fits else None
