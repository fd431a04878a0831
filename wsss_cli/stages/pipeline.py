"""The stages of a preset in order, each skipped when it is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wsss_cli.config.schema import Preset
from wsss_cli.data.dataset import open_dataset
from wsss_cli.engine.context import Context
from wsss_cli.engine.records import read_inputs
from wsss_cli.files import read_json
from wsss_cli.stages.cam import run_cam
from wsss_cli.stages.evaluate import finished_eval, run_eval
from wsss_cli.stages.pseudo import run_pseudo
from wsss_cli.stages.rounds import run_rounds


def run_pipeline(preset: Preset, ctx: Context) -> dict[str, Any]:
    """Run every stage that is not done yet.

    Returns:
        'runs' by stage ('relabel' is the last one of several rounds), the 'scores' of each (no 'eval' where the val
        split has no masks), and all 'lost' items.
    """
    runs: dict[str, str] = {}
    scores: dict[str, Any] = {}
    lost: list[dict[str, str]] = []
    masks = None
    if preset.train.supervision == "weak":
        for stage, work in (("cam", run_cam), ("pseudo", run_pseudo)):
            ctx.ui.say(f"== {stage}")
            made = work(preset, ctx)
            runs[stage], scores[stage] = str(made.run), made.scores
            lost += made.lost
            masks = made.run
    ctx.ui.say("== train")
    trained = run_rounds(preset, ctx, masks)
    runs["train"] = str(trained.run)
    lost += trained.lost
    if preset.train.supervision == "weak" and preset.rounds > 1:
        runs["relabel"] = str(read_inputs(trained.run).pseudo_run)
        scores["relabel"] = read_json(Path(runs["relabel"]) / "eval.json")
    if not _has_masks(preset):
        ctx.ui.say(f"split {preset.dataset.val!r} has no masks to score against: eval is left out")
        return {"runs": runs, "scores": scores, "lost": _once(lost)}
    ctx.ui.say("== eval")
    scores["eval"] = finished_eval(trained.run, ms_flip=True) or run_eval(trained.run, ctx, ms_flip=True)
    return {"runs": runs, "scores": scores, "lost": _once(lost + scores["eval"]["lost"])}


def _once(lost: list[dict[str, str]]) -> list[dict[str, str]]:
    """Each item with the first reason for which it was lost: an image without a CAM has no pseudo mask either."""
    return list({entry["id"]: entry for entry in reversed(lost)}.values())[::-1]


def _has_masks(preset: Preset) -> bool:
    dataset = open_dataset(preset.dataset.path)
    return preset.dataset.val in dataset.split_sha256 and any(s.mask for s in dataset.split(preset.dataset.val))
