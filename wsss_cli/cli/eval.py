"""`wsss eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from wsss_cli.cli import console, stage
from wsss_cli.cli.options import RUNS, DeviceOption, JsonOption, RunsOption
from wsss_cli.errors import GateError, UsageError


def evaluate(
    run: Annotated[Path | None, typer.Argument(help="Run to score; if left out, the newest finished training.")] = None,
    ms_flip: Annotated[bool, typer.Option("--ms-flip", help="Also score over several scales, mirrored too.")] = False,
    split: Annotated[str, typer.Option(help="Split to score on, in place of the preset's.")] = "",
    best: Annotated[bool, typer.Option("--best", help="The checkpoint that validated best, not the last.")] = False,
    pred: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of masks, or of CAMs, to score.")] = None,
    truth: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of true masks, same names as PNG.")] = None,
    num_classes: Annotated[int | None, typer.Option(min=1, help="Classes, background included.")] = None,
    undecided: Annotated[
        Literal["background", "drop", "as-is"], typer.Option(help="What a predicted 255 counts as.")
    ] = "as-is",
    min_miou: Annotated[float | None, typer.Option(help="Exit with 4 where mIoU (per cent) is below this.")] = None,
    data: Annotated[str, typer.Option(metavar="DIR", help="Data set to score on, in place of the run's.")] = "",
    runs: RunsOption = RUNS,
    device: DeviceOption = "auto",
    json_output: JsonOption = False,
) -> None:
    """Score a run or a folder: per-class IoU, mIoU, and the protocol beside them.

    \b
    wsss eval --ms-flip
    wsss eval runs/train-toy-1a2b3c4d --ms-flip --min-miou 60
    wsss eval runs/cam-toy-1a2b3c4d
    wsss eval zoo/r50 --data data/voc-aug --ms-flip
    wsss eval --pred masks/ --truth SegmentationClass/ --num-classes 21 --json
    wsss eval --pred runs/cam-toy-1a2b3c4d/cams --truth data/toy/SegmentationClass --num-classes 6

    A folder of .npz files is scored as CAMs, at every background threshold. 255 in the truth is ignored.
    """
    if pred is not None:
        if run is not None or truth is None or num_classes is None:
            raise UsageError("--pred goes with --truth and --num-classes, and without a run")
        _directory(pred, truth, num_classes, undecided, min_miou, json_output)
        return
    if truth is not None or num_classes is not None:
        raise UsageError("--truth and --num-classes go with --pred")
    if run is None:
        from wsss_cli.stages.evaluate import newest_run

        run = newest_run(runs)
        console.say(f"newest finished training run: {run}")
    _run(run, ms_flip, split, best, data, min_miou, device, json_output)


def _run(
    run: Path, ms_flip: bool, split: str, best: bool, data: str, min_miou: float | None, device: str, json_output: bool
) -> None:
    from wsss_cli.files import read_json
    from wsss_cli.report.tables import class_table, curve_table

    kind = read_json(run / "run.json").get("stage") if (run / "run.json").is_file() else None
    if kind in ("cam", "pseudo"):
        if not (run / "eval.json").is_file():
            raise UsageError(f"{run} has no scores", "its score split has no masks, or the run is not finished")
        stored = read_json(run / "eval.json")
        if kind == "cam":
            shown = curve_table(stored, "seeds by background threshold")
            _out(shown, stored, stored["best"]["miou"], min_miou, json_output)
            return
        if "background" not in stored:
            raise UsageError(f"{run} has no scores: its score split has no masks")
        results = {"255 as background": stored["background"], "255 left out": stored["drop"]}
        shown = class_table(results, "pseudo masks", stored["protocol"])
        _out(shown, stored, stored["background"]["miou"], min_miou, json_output)
        return
    from wsss_cli.stages.evaluate import run_eval

    with stage.working(device, run.parent) as ctx:
        scores = run_eval(run, ctx, ms_flip=ms_flip, split=split, checkpoint="best" if best else "latest", data=data)
    results = {"single scale": scores["single"]} | ({"ms+flip": scores["ms_flip"]} if ms_flip else {})
    top = scores["ms_flip" if ms_flip else "single"]["miou"]
    _out(class_table(results, str(run), scores["protocol"]), scores, top, min_miou, json_output)
    stage.finish(f"{run}/eval.json", False, scores["lost"], f"wsss infer {run} IMAGES --out DIR", json_output)


def _directory(
    pred: Path, truth: Path, num_classes: int, undecided: Any, min_miou: float | None, json_output: bool
) -> None:
    from wsss_cli.errors import DataError
    from wsss_cli.report.tables import class_table, curve_table
    from wsss_cli.stages.score import cam_curve, score_masks

    if not pred.is_dir():
        raise DataError(f"{pred} is no folder")
    workers = _cores()
    cams = sorted(pred.rglob("*.npz"))
    if cams:
        pairs = [(cam, truth / cam.relative_to(pred).with_suffix(".png")) for cam in cams]
        there = [(cam, mask) for cam, mask in pairs if mask.is_file()]
        if not there:
            raise DataError(f"no CAM in {pred} has a true mask of its name in {truth}")
        with console.progress(len(there), "seed curve") as bar:
            curve = cam_curve(there, num_classes, workers=workers, progress=bar.advance)
        _out(curve_table(curve, "seeds by background threshold"), curve, curve["best"]["miou"], min_miou, json_output)
        return
    with console.progress(sum(1 for _ in truth.rglob("*.png")), "eval") as bar:
        scores = score_masks(pred, truth, num_classes, undecided=undecided, workers=workers, progress=bar.advance)
    _out(class_table({"IoU": scores}, str(pred)), scores, scores["miou"], min_miou, json_output)


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _out(table: Any, scores: dict[str, Any], miou: float | None, gate: float | None, json_output: bool) -> None:
    below = gate is not None and (miou is None or miou < gate)
    if json_output:
        console.result_json({**scores, "gate": gate, "passed": not below} if gate is not None else scores)
    else:
        console.table(table)
    if below:
        console.say(f"error: mIoU {miou} is below --min-miou {gate}")
        raise typer.Exit(GateError.exit_code)
