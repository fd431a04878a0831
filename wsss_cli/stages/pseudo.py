"""The pseudo stage: CAMs to pseudo masks, in worker processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wsss_cli.config.schema import Preset
from wsss_cli.data.dataset import Dataset, Sample, open_dataset
from wsss_cli.engine.context import Context, cores
from wsss_cli.engine.rundir import RunDir, open_run, run_path
from wsss_cli.engine.sweep import sweep_processes
from wsss_cli.errors import DataError
from wsss_cli.files import read_json, write_json
from wsss_cli.pseudo.crf import Job, make_pseudo_mask
from wsss_cli.stages.cam import cam_path, run_cam
from wsss_cli.stages.score import score_masks
from wsss_cli.stages.upstream import Result, cam_identity, dataset_inputs, find_upstream, pseudo_identity


def mask_path(run: Path, sample: str) -> Path:
    """Where a pseudo run keeps the mask of an image."""
    return run / "masks" / f"{sample}.png"


def confidence_path(run: Path, sample: str) -> Path:
    """Where a pseudo run keeps the confidence of an image's mask: 8-bit grey, 255 = certain, 0 = undecided."""
    return run / "confidence" / f"{sample}.png"


def run_pseudo(preset: Preset, ctx: Context, cams: Path | None = None) -> Result:
    """Make the pseudo masks of the train split and score them where the score split has masks.

    Args:
        cams: the cam run to read; by default the one of this preset, which is made first where it is missing.
    """
    dataset = open_dataset(preset.dataset.path)
    samples = dataset.split(preset.dataset.train)
    cam_own = cam_identity(preset, dataset)
    found = find_upstream("cam", preset, dataset, cam_own, ctx.runs, cams, ctx.ui.say)
    lost_before = []
    if found is None:
        ctx.ui.say("no finished cam run fits: making the CAMs first")
        made = run_cam(preset, ctx)
        found, lost_before = (made.run, cam_own), made.lost
    cam_run, cam_id = found
    own = pseudo_identity(preset, dataset, cam_id)
    path = run_path(ctx.runs, "pseudo", preset.name, own)
    inputs = {**dataset_inputs(dataset), "cam_run": str(cam_run), "cam_identity": cam_id}
    with open_run(path, "pseudo", preset, own, inputs) as run:
        if run.done and not run.lost:
            return Result(path, read_json(path / "eval.json"), skipped=True)
        fg, bg = thresholds(preset, cam_run)
        workers = preset.pseudo.workers or cores()
        jobs = [
            _job(sample, dataset, preset, cam_run, path, fg, bg)
            for sample in samples
            if not mask_path(path, sample.id).is_file() and cam_path(cam_run, sample.id).is_file()
        ]
        lost = sweep_processes(jobs, make_pseudo_mask, lambda job: job.id, workers, run, ctx, "pseudo masks")
        scores = score_pseudo(
            dataset, preset, run, ctx, _protocol(preset, fg, bg), {"fg_threshold": fg, "bg_threshold": bg}
        )
        without_cam = [s.id for s in samples if not cam_path(cam_run, s.id).is_file()]
        lost += [{"id": name, "reason": f"{cam_run} has no CAM of it"} for name in without_cam]
        run.finish(lost=lost, fg_threshold=fg, bg_threshold=bg)
        return Result(path, scores, lost or lost_before)


def thresholds(preset: Preset, cam_run: Path) -> tuple[float, float]:
    """Background scores of the confident-foreground and confident-background runs.

    Raises:
        DataError: they are to be taken from the train curve, and the cam run has none.
    """
    config = preset.pseudo
    if config.threshold == "fixed":
        return config.fg_threshold, config.bg_threshold
    if not (cam_run / "eval.json").is_file():
        raise DataError(
            f"{cam_run} has no threshold curve, as split {preset.dataset.score!r} has no masks to score seeds on",
            "give thresholds: --set pseudo.threshold=fixed --set pseudo.fg_threshold=0.4 --set pseudo.bg_threshold=0.2",
        )
    best = read_json(cam_run / "eval.json")["best_threshold"]
    return round(min(best + config.fg_threshold, 0.99), 4), round(max(best + config.bg_threshold, 0.01), 4)


def _job(sample: Sample, dataset: Dataset, preset: Preset, cams: Path, run: Path, fg: float, bg: float) -> Job:
    return Job(
        sample.id,
        sample.image,
        cam_path(cams, sample.id),
        mask_path(run, sample.id),
        confidence_path(run, sample.id),
        fg,
        bg,
        preset.pseudo.gt_prob,
        preset.pseudo.crf,
        dataset.colors,
    )


def _protocol(preset: Preset, fg: float, bg: float) -> str:
    crf = preset.pseudo.crf
    return (
        f"thresholds {fg:g} and {bg:g} ({preset.pseudo.threshold}), label CRF {crf.gauss_sxy:g}/{crf.gauss_compat:g}, "
        f"{crf.bilateral_sxy:g}/{crf.bilateral_srgb:g}/{crf.bilateral_compat:g}, {crf.iterations} iterations"
    )


def score_pseudo(
    dataset: Dataset, preset: Preset, run: RunDir, ctx: Context, how: str, settings: dict[str, Any]
) -> dict[str, Any]:
    """Score a pseudo run's masks on the score split, where it has masks; written to the run's eval.json.

    Args:
        how: how the masks were made, for the protocol.
        settings: what else goes into the result.
    Returns:
        `settings`, `protocol`, and the scores with 255 as 'background' and with 255 left out as 'drop'.
    """
    samples = dataset.split(preset.dataset.score) if preset.dataset.score in dataset.split_sha256 else []
    scored = [s for s in samples if s.mask is not None and mask_path(run.path, s.id).is_file()]
    protocol = [
        f"pseudo masks on {dataset.name}/{preset.dataset.score} ({len(scored)} images), {how}; "
        "255 in the truth ignored",
        *dataset.protocol,
    ]
    scores: dict[str, Any] = {**settings, "protocol": protocol}
    if scored:
        with ctx.ui.progress(2 * len(scored), "scoring masks") as bar:
            for undecided in ("background", "drop"):
                scores[undecided] = score_masks(
                    run.path / "masks",
                    scored,
                    dataset.num_classes,
                    undecided=undecided,
                    workers=cores(),
                    names=dataset.classes,
                    progress=bar.advance,
                )
    write_json(run.path / "eval.json", scores)
    return scores
