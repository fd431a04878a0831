"""The eval stage for networks: mIoU on the val split, single scale and ms+flip in one pass."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from wsss_cli.config.base import CrfConfig
from wsss_cli.config.evaluation import EvalConfig
from wsss_cli.config.load import load_preset
from wsss_cli.config.schema import Preset
from wsss_cli.crf import dense_crf
from wsss_cli.crf.dense import Backend, backend_for
from wsss_cli.data.dataset import Dataset, Sample, open_dataset
from wsss_cli.data.images import read_image
from wsss_cli.data.masks import read_mask
from wsss_cli.engine.checkpoint import find_checkpoint
from wsss_cli.engine.context import Context
from wsss_cli.engine.records import find_runs, read_inputs
from wsss_cli.engine.sweep import Lost, prefetch
from wsss_cli.errors import DataError, UsageError
from wsss_cli.files import read_json, write_json
from wsss_cli.inference.network import load_network
from wsss_cli.inference.predict import by_size, predict_tensors, with_sizes
from wsss_cli.models.segmentor import Segmentor
from wsss_cli.processes import cores, in_processes
from wsss_cli.scoring.counting import counted
from wsss_cli.scoring.counts import Counts
from wsss_cli.scoring.partial import Kept

PIECE_SECONDS = 60.0  # of an evaluation, that a kill may lose
Read = tuple[Sample, np.ndarray | None, np.ndarray | None, str]
Batch = list[tuple[Sample, tuple[int, int]]]  # of one size
CrfJob = tuple[np.ndarray, np.ndarray, np.ndarray]  # image, probabilities, true mask


def score_network(
    model: Segmentor,
    samples: Sequence[Sample],
    dataset: Dataset,
    preset: Preset,
    ctx: Context,
    *,
    ms_flip: bool,
    crf: bool = False,
    boundary: bool = False,
    title: str,
    kept: Kept | None = None,
) -> tuple[dict[str, Any], Lost]:
    """Score a network on samples with masks.

    Args:
        crf: also refine the probabilities (of ms+flip where that is asked for) by `preset.eval.crf`, in processes.
        boundary: also Boundary IoU.
        kept: what an earlier call has counted, which is not counted again; about once a minute, and when this one is
            stopped, what is counted goes there.
    Returns:
        ({'single': scores, 'ms_flip', 'single_crf' or 'ms_flip_crf' as asked for}, lost images). Scores are
        `metrics.scores.summary`, `confusion`: lists of exact integers [K+1][K+1], rows truth, the last row and column
        what is outside the classes; `biou` and `mbiou`, per cent.
    """
    modes = ["single", "ms_flip"] if ms_flip else ["single"]
    modes += [f"{modes[-1]}_crf"] if crf else []

    def fresh() -> dict[str, Counts]:
        return {mode: Counts(dataset.num_classes, boundary) for mode in modes}

    counts, lost = fresh(), Lost()
    done = kept.read(counts, lost) if kept else 0
    sized, unread = with_sizes(samples)
    batches = list(by_size(sized, lambda pair: pair[1], ctx.device))
    with ctx.ui.progress(sum(len(batch) for batch in batches[done:]), title) as bar:
        while done < len(batches):
            piece = fresh()
            wanted = _wanted(batches[done:], ctx, PIECE_SECONDS if kept else math.inf)
            done += _score(model, wanted, preset, ctx, piece, lost, bar.advance, crf=crf)
            for mode, count in piece.items():
                counts[mode].merge(count)
            if kept and done < len(batches):
                kept.write(counts, lost, done)
            ctx.stop.check()
    return {mode: count.scores(dataset.classes) for mode, count in counts.items()}, unread + lost


def _wanted(batches: Sequence[Batch], ctx: Context, seconds: float) -> Iterator[Batch]:
    """Batches until the time is up or a stop is asked for; without a stop there is one at least."""
    until = time.monotonic() + seconds
    for number, batch in enumerate(batches):
        if ctx.stop.signal or (number and time.monotonic() > until):
            return
        yield batch


def _score(
    model: Segmentor,
    batches: Iterable[Batch],
    preset: Preset,
    ctx: Context,
    counts: dict[str, Counts],
    lost: Lost,
    advance: Callable[[int], object],
    *,
    crf: bool,
) -> int:
    """Add the scores of batches to `counts`, and what cannot be read to `lost`; how many batches there were."""
    scored: list[int] = []
    jobs = _count(model, batches, preset, ctx, counts, lost, scored, advance, crf=crf)
    if crf:
        backend = backend_for(ctx.device.type)
        refine = partial(_refined, crf=preset.eval.crf, backend=backend)
        (mode,) = (mode for mode in counts if mode.endswith("_crf"))
        for labels, mask in in_processes(refine, jobs, cores(), ahead=2, threads=backend == "triton"):
            counts[mode].add(labels, mask)
    else:
        for _ in jobs:  # nothing comes: all is counted on the way
            pass
    return len(scored)


def _count(
    model: Segmentor,
    batches: Iterable[Batch],
    preset: Preset,
    ctx: Context,
    counts: dict[str, Counts],
    lost: Lost,
    scored: list[int],
    advance: Callable[[int], object],
    *,
    crf: bool,
) -> Iterator[CrfJob]:
    """Predict, add to `counts`, `lost` and `scored`, and hand on what a CRF needs where one is asked for."""
    modes = [mode for mode in ("single", "ms_flip") if mode in counts]
    with counted({mode: counts[mode] for mode in modes}, ctx) as add:
        for read in prefetch(batches, lambda batch: [_read(sample) for sample, _ in batch], 2, 4):
            lost += [{"id": sample.id, "reason": why} for sample, _, _, why in read if why]
            good = [(image, mask) for _, image, mask, _ in read if image is not None and mask is not None]
            if good:
                found = predict_tensors(
                    model,
                    [image for image, _ in good],
                    preset.eval,
                    ctx,
                    preset.train.precision,
                    ms_flip="ms_flip" in counts,
                    probabilities=crf,
                )
                add(found, [mask for _, mask in good])
                if crf:
                    maps = found[f"{modes[-1]}_probabilities"].cpu().numpy()
                    yield from ((image, planes, mask) for planes, (image, mask) in zip(maps, good, strict=True))
            scored.append(len(read))
            advance(len(read))


def _refined(job: CrfJob, crf: CrfConfig, backend: Backend) -> tuple[np.ndarray, np.ndarray]:
    """(labels after the CRF, true mask), uint8 [H, W] each; in a worker process."""
    image, probabilities, mask = job
    unary = -np.log(np.clip(probabilities, 1e-5, 1.0))
    return dense_crf(image, unary, **crf.model_dump(), backend=backend).argmax(0).astype(np.uint8), mask


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
    checkpoint: str = "latest",
    views: dict[str, Any] | None = None,
    data: str = "",
) -> dict[str, Any]:
    """Score a training run on its val split; the result goes to the run's eval.json, in place of an earlier one.

    Scores on another split go to eval-SPLIT.json. Stopped or killed, the same call goes on where it stood.

    Args:
        run: also a checkpoint folder or an imported directory, see `load_network`.
        crf, boundary: see `score_network`.
        split: another split of the data set to score on.
        checkpoint: 'latest' or 'best'.
        views: fields of the preset's eval section to change.
        data: another data set directory with the same classes to score on.
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
        raise DataError(
            f"{dataset.root} has other classes than {run}: {_listed(dataset.classes)}, not {_listed(network.classes)}",
            f"name the data set that it was trained on with --data, or train on this one: wsss train --init {run}",
        )
    title = "eval, ms+flip" if ms_flip else "eval"
    config = EvalConfig.model_validate({**network.preset.eval.model_dump(), **(views or {})})
    preset = network.preset.model_copy(update={"eval": config})
    file = run / ("eval.json" if split == preset.dataset.val else f"eval-{split}.json")
    weights = run / "model.safetensors"  # of an imported network, which has no steps
    kept = Kept(
        file.with_suffix(".part.json"),
        {
            "dataset": dataset.fingerprint,
            "split": split,
            "origin": network.origin,
            "step": network.step,
            "weights_changed": weights.stat().st_mtime_ns if weights.is_file() else None,
            "eval": config.model_dump(mode="json"),
            "boundary": boundary,
            "device": ctx.device.type,  # batches are of its size
        },
    )
    scores, lost = score_network(
        network.model,
        samples,
        dataset,
        preset,
        ctx,
        ms_flip=ms_flip,
        crf=crf,
        boundary=boundary,
        title=title,
        kept=kept,
    )
    protocol = [
        f"{dataset.name}/{split} ({len(samples) - len(lost)} images), {network.origin}; {_views(config)}; 255 ignored",
        *_further(config, ms_flip=ms_flip, crf=backend_for(ctx.device.type) if crf else None, boundary=boundary),
        *dataset.protocol,
    ]
    result = {
        **scores,
        "run": str(run),
        "file": str(file),
        "dataset": data or network.dataset,
        "split": split,
        "eval": config.model_dump(mode="json"),
        "checkpoint": checkpoint,
        "step": network.step,
        "classes": list(dataset.classes),
        "protocol": protocol,
        "lost": lost,
        "device": ctx.device_name,
    }
    write_json(file, result)
    kept.remove()
    return result


def _listed(classes: Sequence[str]) -> str:
    return f"{len(classes)} ({', '.join(classes[:3])}{', ...' if len(classes) > 3 else ''})"


def _views(config: EvalConfig) -> str:
    base = "original image" if config.base == "image" else f"short side {config.short_side}"
    mode = "whole image" if config.mode == "whole" else f"windows of {config.window}, stride {config.stride}"
    return f"{mode}, scale 1 = {base}"


def _further(config: EvalConfig, *, ms_flip: bool, crf: Backend | None, boundary: bool) -> list[str]:
    """Protocol lines of what was asked for besides the single scale."""
    lines = []
    if ms_flip:
        lines.append(f"ms+flip: scales {', '.join(f'{scale:g}' for scale in config.scales)}, softmax averaged")
    if crf:
        p, kind = config.crf, "exact CRF" if crf == "triton" else "CRF"
        bilateral = f"{p.bilateral_sxy:g}/{p.bilateral_srgb:g}/{p.bilateral_compat:g}"
        lines.append(
            f"{kind} on the probabilities: {p.gauss_sxy:g}/{p.gauss_compat:g}, {bilateral}, {p.iterations} iterations"
        )
    else:
        lines.append("no CRF")
    if boundary:
        lines.append("boundary IoU: within 2 % of the diagonal of a contour; pixels whose truth is 255 are in no class")
    return lines


def finished_eval(run: Path, *, ms_flip: bool) -> dict[str, Any] | None:
    """The run's eval.json where it has what is asked for, on its val split, of the latest checkpoint."""
    checkpoint = find_checkpoint(run / "checkpoints")
    if checkpoint is None or not (run / "eval.json").is_file():
        return None
    preset = load_preset(str(run / "preset.lock.toml"))
    current = {
        "dataset": read_inputs(run).dataset,
        "checkpoint": "latest",
        "step": read_json(checkpoint / "meta.json").get("step"),
        "split": preset.dataset.val,
        "eval": preset.eval.model_dump(mode="json"),
        "lost": [],
    }
    stored = read_json(run / "eval.json")
    fits = ("ms_flip" if ms_flip else "single") in stored and current.items() <= stored.items()
    return stored if fits else None
