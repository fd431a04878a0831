"""The pseudo stage: random walks, thresholds, refining steps; CAMs in, pseudo masks out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from wsss_cli.config.affinity import needs
from wsss_cli.config.refine import AgreeStep, CrfStep, ParStep, PseudoConfig
from wsss_cli.config.refine import Step as RefineStep
from wsss_cli.config.schema import Preset
from wsss_cli.config.thresholds import ComplementThreshold, FixedThreshold
from wsss_cli.crf.dense import Backend, backend_for
from wsss_cli.data.columns import names_of
from wsss_cli.data.dataset import Dataset, Sample
from wsss_cli.data.trusted import TrustedLabels
from wsss_cli.engine.context import Context
from wsss_cli.engine.records import read_inputs
from wsss_cli.engine.rundir import RunDir
from wsss_cli.engine.sweep import Lost, SweepOptions, sweep_items
from wsss_cli.files import write_json
from wsss_cli.processes import cores
from wsss_cli.pseudo.refine import Costs, MaskJob, RefineSettings, make_pseudo_mask
from wsss_cli.ranks.group import only_first
from wsss_cli.ranks.who import cores_here
from wsss_cli.rows import Each, Rows
from wsss_cli.scoring.by_image import AREAS_FILE, MOST, ClassAreas, image_areas, write_areas
from wsss_cli.scoring.masks import score_pairs
from wsss_cli.scoring.renumbered import renumbered
from wsss_cli.stages.agree import agreement, run_agree
from wsss_cli.stages.opening import agreed, open_step
from wsss_cli.stages.paths import Files, cam_files, confidence_files, mask_files, walk_files
from wsss_cli.stages.plan import Experiment, Step
from wsss_cli.stages.scored import score_samples, with_masks
from wsss_cli.stages.thresholds import Thresholds, choose_thresholds
from wsss_cli.stages.trusted import trusted_labels, whole_masks
from wsss_cli.stages.walk import run_walk


def run_pseudo(step: Step, exp: Experiment, ctx: Context) -> None:
    """Make the pseudo masks of the train split and score them where the score split has masks.

    Args:
        step: reads a cam run, and the affinity networks that random walks among the steps need.
    """
    preset, dataset = exp.preset, exp.dataset
    samples = dataset.split(preset.dataset.train)
    cam_run = step.reads[0].path
    networks = {network.stage: network.path for network in step.reads[1:]}
    with open_step(step, exp) as run:
        walked, walk_seconds = _walked(samples, preset, cam_run, networks, run, ctx)
        chosen = only_first(lambda: choose_thresholds(preset, dataset, walked, cam_run, ctx))
        lost, cost = _refine(samples, dataset, preset, walked, chosen, run, ctx)
        settings = {**threshold_settings(dataset, chosen), **cost}
        if counts := agreement(run.path, dataset.classes):
            settings["agreement"] = counts
            only_first(lambda: _say_where_cams_stand_in(counts, ctx))
        if walk_seconds:
            settings["walk_seconds_per_image"] = walk_seconds
        how = _protocol(preset.pseudo, chosen, backend_for(ctx.device.type))
        only_first(lambda: score_pseudo(dataset, preset, run, ctx, how, settings))
        lost += _without_scores(samples, cam_run, walked, trusted_labels(preset, exp.dataset, "pseudo"))
        run.finish(lost=lost, fg_threshold=chosen.fg, bg_threshold=chosen.bg)


def _say_where_cams_stand_in(counts: Mapping[str, Mapping[str, int]], ctx: Context) -> None:
    for name, one in counts.items():
        if one["by_cam"] > one["images"] / 2:
            share = 100 * one["with_region"] / one["images"]
            ctx.ui.say(f"{name}: the teacher finds it in {share:.0f} % of its images; CAMs stand in for the others")


def masks_of(samples: Sequence[Sample], step: Step, exp: Experiment, run: RunDir, ctx: Context) -> Lost:
    """Make the pseudo masks of some images of the train split that are not there yet; the lost ones.

    Thresholds that follow from the walked scores of all images cannot be known to one who makes some of these: then
    only the walks are done.
    """
    preset, cam_run = exp.preset, step.reads[0].path
    networks = {network.stage: network.path for network in step.reads[1:]}
    walked, _ = _walked(samples, preset, cam_run, networks, run, ctx)
    lost: Lost = []
    if preset.pseudo.score_steps and not isinstance(preset.pseudo.threshold, (FixedThreshold, ComplementThreshold)):
        ctx.ui.say("thresholds are those of all walked scores: the last shard makes the masks, of all images")
    else:
        chosen = choose_thresholds(preset, exp.dataset, walked, cam_run, ctx)
        lost, _ = _refine(samples, exp.dataset, preset, walked, chosen, run, ctx)
    return lost + _without_scores(samples, cam_run, walked, trusted_labels(preset, exp.dataset, "pseudo"))


def _without_scores(samples: Sequence[Sample], cam_run: Path, scores: Files, trusted: TrustedLabels | None) -> Lost:
    """Images that have no scores to make a mask from, and no whole mask of the data set."""
    samples = Rows(samples, np.flatnonzero(~whole_masks(trusted, samples))) if trusted else samples
    with_cam = cam_files(cam_run).there(samples)
    without = Rows(samples, np.flatnonzero(~with_cam))
    lost = [{"id": name, "reason": f"{cam_run} has no CAM of it"} for name in names_of(without)]
    unwalked = Rows(samples, np.flatnonzero(with_cam & ~scores.there(samples)))
    return lost + [{"id": name, "reason": "its random walk failed, see log.txt"} for name in names_of(unwalked)]


def _walked(
    samples: Sequence[Sample], preset: Preset, cam_run: Path, networks: Mapping[str, Path], run: RunDir, ctx: Context
) -> tuple[Files, dict[str, float]]:
    """Do the random walks that are not done yet.

    Returns:
        (the scores that are to be thresholded: those of the last walk, without one those of the cam run; seconds an
        image of each walk, where enough was left to do to tell).
    """
    scores, seconds = cam_files(cam_run), {}
    for number, step in enumerate(preset.pseudo.score_steps, 1):
        out = walk_files(run.path, f"{number}-{step.kind}")
        before, begin = np.count_nonzero(out.there(samples)), time.perf_counter()
        if isinstance(step, AgreeStep):
            run_agree(step, samples, scores, networks["judge"], run, out, ctx)
        else:
            run_walk(step, preset, ctx, samples, scores, networks[needs(step)], run, out)
        count = int(np.count_nonzero(out.there(samples)) - before)
        if count:
            seconds[f"{number} {step.kind}"] = round((time.perf_counter() - begin) / count, 4)
        scores = out
    return scores, seconds


def _refine(
    samples: Sequence[Sample],
    dataset: Dataset,
    preset: Preset,
    scores: Files,
    chosen: Thresholds,
    run: RunDir,
    ctx: Context,
) -> tuple[Lost, dict[str, Any]]:
    """Make the masks that are not there yet; the lost images, and what an image cost."""
    config = preset.pseudo
    on_gpu = ctx.device.type == "cuda"
    has_par = any(isinstance(step, ParStep) for step in config.label_steps)
    crf = backend_for(ctx.device.type)
    settings = RefineSettings(
        chosen.fg,
        chosen.bg,
        config.label_steps,
        config.min_confidence,
        chosen.factors,
        str(ctx.device) if on_gpu and has_par else "cpu",
        crf,
        chosen.complement,
    )
    masks, confidence = mask_files(run.path), confidence_files(run.path)
    trusted = trusted_labels(preset, dataset, "pseudo")

    def job(sample: Sample) -> MaskJob:
        name = sample.id
        files = (scores.of(name), masks.of(name), confidence.of(name))
        return MaskJob(name, sample.image, *files, settings, dataset.colors, trusted.of(name) if trusted else None)

    def pending() -> np.ndarray:
        can = scores.there(samples) | whole_masks(trusted, samples)
        return np.flatnonzero(can & ~masks.there(samples))

    jobs = Each(agreed(samples, pending), job)
    # what shares the GPU does so in threads of this process; where a CRF needs none, processes are faster
    threads = on_gpu and (has_par or crf == "triton")
    lost: Lost = []
    options = SweepOptions("pseudo masks", workers=config.workers or cores_here(), processes=not threads)
    costs = Costs()
    for _, cost in sweep_items(jobs, make_pseudo_mask, options, lost, ctx, run.log):
        costs.add(cost)
    if not costs.images:
        return lost, {}
    if 2 * costs.blank >= costs.images:
        ctx.ui.say(
            f"warning: {costs.blank:,} of {costs.images:,} masks have no pixel of a class, though scores are of some: "
            "are the thresholds too high, or the classifier not trained?"
        )
    seconds, peak = costs.mean(), costs.peak_mib
    rounded = {name: round(value, 4) for name, value in seconds.items()}
    return lost, {
        "crf_backend": crf,
        "seconds_per_image": rounded,
        "timed_images": costs.images,
        "peak_memory_mib": round(peak),
    }


def score_pseudo(
    dataset: Dataset, preset: Preset, run: RunDir, ctx: Context, how: str, settings: dict[str, Any]
) -> None:
    """Score a pseudo run's masks on the score split, where it has masks; written to the run's eval.json.

    Args:
        how: how the masks were made, for the protocol.
        settings: what else goes into the result.
    Returns:
        `settings`, `protocol`, and the scores with 255 as 'background' and with 255 left out as 'drop'.
    """
    masks, masked = mask_files(run.path), score_samples(dataset, preset)
    scored = with_masks(masks, masked)
    without = len(masked) - len(scored)
    inputs = read_inputs(run.path)
    teacher, trusted = inputs.teacher, inputs.trusted_words
    protocol = [
        f"pseudo masks on {dataset.name}/{preset.dataset.score} ({len(scored)} images), {how}; "
        "255 in the truth ignored",
        *([f"{trusted} stand in them and count in these figures"] if trusted else []),
        *([f"made from scores of {teacher}: not of image tags alone"] if teacher else []),
        *([f"{without} of {len(masked)} true masks have no pseudo mask"] if without else []),
        *dataset.protocol,
    ]
    scores: dict[str, Any] = {**settings, "protocol": protocol}
    if scored:
        extra = sum(1 for _ in masks.names()) - len(scored)
        each: list[ClassAreas] = []
        count = partial(score_pairs, scored, dataset.num_classes, boundary=True)
        with ctx.ui.progress(2 * len(scored), "scoring masks") as bar:
            for undecided in ("background", "drop"):
                counted = count(
                    check=ctx.stop.check,
                    undecided=undecided,
                    workers=cores(),
                    names=dataset.classes,
                    progress=bar.advance,
                    each=each if undecided == "background" and len(scored) <= MOST else None,
                )
                scores[undecided] = {**counted, "extra": extra}
        if warning := renumbered(scores["background"]):
            ctx.ui.say(warning)
        if each:
            shown = masks.with_file(masked)
            write_areas(run.path / AREAS_FILE, image_areas(zip(names_of(shown), each, strict=True)))
    write_json(run.path / "eval.json", scores)


def threshold_settings(dataset: Dataset, chosen: Thresholds) -> dict[str, Any]:
    """The thresholds as they are stored with the scores."""
    settings: dict[str, Any] = {"fg_threshold": chosen.fg, "bg_threshold": chosen.bg}
    if chosen.best is not None:
        settings["threshold"] = chosen.best
    if chosen.by_class:
        settings["class_thresholds"] = dict(zip(dataset.classes[1:], chosen.by_class, strict=True))
    return settings


def _protocol(config: PseudoConfig, chosen: Thresholds, crf: Backend) -> str:
    if chosen.complement:
        return f"background 1 less the highest score, {steps_in_words(config.steps, config.min_confidence, crf)}"
    how = config.threshold.kind + (", a threshold for each class" if config.per_class else "")
    steps = steps_in_words(config.steps, config.min_confidence, crf)
    return f"thresholds {chosen.fg:g} and {chosen.bg:g} ({how}), {steps}"


def steps_in_words(steps: Sequence[RefineStep], min_confidence: float, backend: Backend) -> str:
    """Refining steps in the words of a protocol line."""
    exact = "" if backend == "lattice" else "exact "
    lines = []
    for step in steps:
        if isinstance(step, CrfStep):
            crf = step.values
            kind = "label CRF" if step.on == "labels" else "CRF on scores"
            lines.append(
                f"{exact}{kind} {crf.gauss_sxy:g}/{crf.gauss_compat:g}, "
                f"{crf.bilateral_sxy:g}/{crf.bilateral_srgb:g}/{crf.bilateral_compat:g}, {crf.iterations} iterations"
            )
        elif isinstance(step, AgreeStep):
            lines.append(f"held against CAMs of the tags (support {step.support:g}, doubt {step.doubt:g})")
        elif isinstance(step, ParStep):
            lines.append(f"PAR, {step.iterations} iterations, scale {step.scale:g}")
        else:
            name = {"irn": "IRN", "psa": "PSA"}[needs(step)]
            lines.append(f"{name} walk, radius {step.radius}, beta {step.beta:g}, {step.iterations} steps")
    if min_confidence > 0:
        lines.append(f"255 where the posterior is below {min_confidence:g}")
    return ", ".join(lines) or "no refinement"
