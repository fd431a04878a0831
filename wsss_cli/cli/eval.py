"""`wsss eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from wsss_cli.cli import completion, console, eval_sources, sharded, stage
from wsss_cli.cli.following import following, line, refuse_useless
from wsss_cli.cli.options import (
    RUNS,
    AddressOption,
    BestOption,
    DeviceOption,
    EngineOption,
    GpusOption,
    JsonOption,
    LimitOption,
    ModeOption,
    RunsOption,
    ShardOption,
    WeightsOption,
    written_file,
)
from wsss_cli.errors import DataError, GateError, UsageError
from wsss_cli.files import is_hidden, names_below

if TYPE_CHECKING:
    from wsss_cli.engine.shards import Shard

OF_NETWORKS = (
    *("--ms-flip", "--split", "--best", "--weights", "--crf", "--mode", "--base", "--data"),
    *("--device", "--gpus", "--engine", "--address"),
)
STORED = {"cam": "cams", "pseudo": "masks"}  # where a run has what it made
FOLDERS = "wsss eval --pred masks/ --truth SegmentationClass/ --num-classes 21"
BaseOption = Annotated[
    Literal["image", "short512"] | None,
    typer.Option(help="Scale 1: the original image (MMSegmentation 1.x) or short side 512 (0.x)."),
]

MetricsOption = Annotated[
    str,
    typer.Option(
        metavar="A,B,...", help="Columns: iou, acc, dice, fscore, precision, recall, biou (boundary IoU), fp, fn."
    ),
]

UndecidedOption = Annotated[
    Literal["background", "drop", "as-is"], typer.Option(help="What a predicted 255 counts as.")
]

RunArgument = Annotated[
    Path | None,
    typer.Argument(
        autocompletion=completion.runs("train", "pseudo", "cam"),
        help="Run to score, or an ONNX file of wsss export; if left out, the newest finished training.",
    ),
]

ClassesOption = Annotated[int | None, typer.Option(metavar="N", min=1, max=255, help="Classes, background included.")]

ConfusionOption = Annotated[
    Path | None, typer.Option(metavar="FILE", parser=written_file, help="Write the confusion matrix as CSV.")
]


def evaluate(
    run: RunArgument = None,
    ms_flip: Annotated[bool, typer.Option("--ms-flip", help="Also score over several scales, mirrored too.")] = False,
    split: Annotated[str, typer.Option(metavar="NAME", help="Split to score on, in place of the preset's.")] = "",
    best: BestOption = False,
    weights: WeightsOption = None,
    pred: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of masks, or of CAMs, to score.")] = None,
    truth: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of true masks, same names as PNG.")] = None,
    num_classes: ClassesOption = None,
    crf: Annotated[bool, typer.Option("--crf", help="Also refine the probabilities with a dense CRF.")] = False,
    mode: ModeOption = None,
    base: BaseOption = None,
    metrics: MetricsOption = "iou,acc",
    confusion: ConfusionOption = None,
    undecided: UndecidedOption = "as-is",
    min_miou: Annotated[
        float | None, typer.Option(metavar="N", help="Exit with 4 where mIoU (per cent) is below this.")
    ] = None,
    data: Annotated[str, typer.Option(metavar="DIR", help="Data set to score on, in place of the run's.")] = "",
    limit: LimitOption = 0,
    runs: RunsOption = RUNS,
    device: DeviceOption = "auto",
    gpus: GpusOption = 1,
    shard: ShardOption = "",
    engine: EngineOption = "local",
    address: AddressOption = "",
    json_output: JsonOption = False,
) -> None:
    """Score a run or a folder: per-class IoU, mIoU, and the protocol beside them.

    \b
    wsss eval --ms-flip
    wsss eval runs/train-toy-1a2b3c4d --ms-flip --min-miou 60
    wsss eval --ms-flip --base short512 --crf --metrics iou,dice,biou --confusion confusion.csv
    wsss eval runs/train-toy-1a2b3c4d --ms-flip --gpus 4
    wsss eval runs/train-toy-1a2b3c4d --ms-flip --shard 3/16
    wsss eval runs/train-toy-1a2b3c4d --limit 8
    wsss eval runs/cam-toy-1a2b3c4d
    wsss eval zoo/r50 --data data/voc-aug --ms-flip
    wsss eval toy.onnx --data data/toy
    wsss eval --pred masks/ --truth SegmentationClass/ --num-classes 21 --json
    wsss eval --pred runs/cam-toy-1a2b3c4d/cams --truth data/toy/SegmentationClass --num-classes 6

    A folder of .npz files is scored as CAMs, at every background threshold. 255 in the truth is ignored. Of shards the
    last one has the scores, and looks at --min-miou and --confusion.
    """
    columns = _columns(metrics)
    _check_files(run, pred, truth, num_classes, limit, confusion)
    part = _part(shard, gpus, run)
    run, kind = _run_and_kind(run, pred, runs)
    ray = stage.ray_address(engine, address, gpus, shard, device)
    if run is None:
        assert pred is not None and truth is not None and num_classes is not None
        scores, table = _folder(pred, truth, num_classes, undecided, columns)
    else:
        if limit:
            _check_limit(run, kind, part)
        if kind == "cam":
            scores, table = eval_sources.cam_run(run)
        elif kind == "pseudo":
            scores, table = eval_sources.pseudo_run(run, columns)
        else:
            on, views = {"split": split, "data": data, "limit": limit}, _views(mode, base)
            options: dict[str, Any] = {"on": on, "views": views, "ms_flip": ms_flip, "crf": crf, "best": best}
            options |= {"part": part, "weights": weights or ""}
            device = _check_onnx(run, device, gpus, engine, best or weights) if kind == "onnx" else device
            stage.on_ranks(gpus, device)
            working = stage.working(device, run.parent, ray=ray)
            scores, table = eval_sources.network(run, columns, working, as_json=json_output, **options)
    if confusion is not None:
        _write_confusion(confusion, scores)
    below = "" if min_miou is None else _below(_top(scores), min_miou)
    if json_output:
        console.result_json({**scores, "gate": min_miou, "passed": not below} if min_miou is not None else scores)
    else:
        console.table(table)
    _end_below(below)
    if kind in ("train", "onnx"):
        after = following("infer", run, "IMAGES", "--out", "DIR") if kind == "train" else ""
        stage.finish(scores["file"] or f"{run}, scores not stored", False, scores["lost"], after, json_output)


def _check_files(
    run: Path | None,
    pred: Path | None,
    truth: Path | None,
    num_classes: int | None,
    limit: int,
    confusion: Path | None,
) -> None:
    if confusion is not None:
        from wsss_cli.files import refuse_unwritable

        refuse_unwritable(confusion)
    if pred is not None and (run is not None or truth is None or num_classes is None or limit):
        raise UsageError("--pred goes with --truth and --num-classes, and without a run and --limit", FOLDERS)
    if pred is None and (truth is not None or num_classes is not None):
        raise UsageError("--truth and --num-classes go with --pred", FOLDERS)


def _run_and_kind(run: Path | None, pred: Path | None, runs: Path) -> tuple[Path | None, str]:
    """The run that is scored and its stage, or 'onnx'; None where --pred names a folder.

    Raises:
        UsageError: options that say nothing of what is scored.
    """
    if pred is not None:
        refuse_useless(OF_NETWORKS, "for a network only, and --pred names a folder")
        return None, ""
    run = run or stage.newest_training(runs)
    kind = _stage_of(run)
    if kind in ("cam", "pseudo"):
        of_masks = ("--undecided", *(("--metrics",) if kind == "cam" else ()))
        hint = f"leave it out; {line('eval', '--pred', run / STORED[kind])} ... scores against other masks"
        refuse_useless((*OF_NETWORKS, *of_masks), f"the scores of {run}, a {kind} run, are stored", hint)
    elif kind in ("train", "onnx"):
        refuse_useless(("--undecided",), "for a folder of masks only (--pred); a network predicts no 255")
    return run, kind


def _check_limit(run: Path, kind: str, part: Shard | None) -> None:
    if kind in ("cam", "pseudo"):
        raise UsageError(f"--limit is for networks; the scores of {run}, a {kind} run, are stored", "leave --limit out")
    if part is not None:
        raise UsageError(
            "--shard divides an evaluation whose scores are stored, and those of --limit are not",
            "leave one of them out",
        )


def _part(shard: str, gpus: int, run: Path | None) -> Shard | None:
    """The shard that --shard means; None: the option is left out.

    Raises:
        UsageError: there is nothing to divide.
    """
    part = sharded.chosen(shard, gpus)
    if part is not None and (run is None or _stage_of(run) in ("cam", "pseudo", "onnx")):
        raise UsageError(
            "--shard divides the images of a network that is scored, whose run is named",
            "wsss eval runs/train-... --shard 3/16; folders, ONNX files and runs with stored scores take one process",
        )
    return part


def _columns(metrics: str) -> list[str]:
    """The metrics of --metrics.

    Raises:
        UsageError: none, or an unknown one.
    """
    from wsss_cli.report.tables import METRICS

    asked = [name.strip().lower() for name in metrics.split(",") if name.strip()]
    unknown = [name for name in asked if name not in METRICS]
    if unknown or not asked:
        what = f"there is no {unknown[0]!r}" if unknown else "no name given"
        raise UsageError(f"--metrics: {what}", f"choose of {', '.join(METRICS)}")
    return asked


def _folder(pred: Path, truth: Path, num_classes: int, undecided: Any, columns: list[str]) -> eval_sources.Scored:
    if not pred.is_dir():
        raise DataError(f"{pred} is no folder", "--pred takes a folder of masks (.png) or of CAMs (.npz)")
    names = sorted(name for name in names_below(pred) if name.endswith((".npz", ".png")) and not is_hidden(name))
    cams = [pred / name for name in names if name.endswith(".npz")]
    if cams:
        twice = {str(Path(name).with_suffix("")) for name in names if name.endswith(".png")}
        if both := next((cam for cam in cams if str(cam.relative_to(pred).with_suffix("")) in twice), None):
            raise DataError(
                f"{pred} has both masks (.png) and CAMs (.npz), the first {both.name} and its .png",
                "one kind is scored: move the other elsewhere",
            )
        refuse_useless(("--metrics", "--undecided"), "for masks only; of CAMs a table by threshold is shown")
        return eval_sources.cam_folder(pred, cams, truth, num_classes)
    return eval_sources.mask_folder(pred, truth, num_classes, undecided, columns)


def _stage_of(run: Path) -> str:
    from wsss_cli.engine.records import is_run, read_record

    if run.suffix.lower() == ".onnx" and not run.is_dir():
        if not run.exists():
            raise UsageError(f"there is no file {run}", "wsss export RUN --format onnx writes one")
        return "onnx"
    return read_record(run).stage if is_run(run) else "train"


def _check_onnx(run: Path, device: str, gpus: int, engine: str, which: object) -> str:
    """The device of an exported file: it holds one network, and onnxruntime computes it in this process.

    Raises:
        UsageError: something else is asked for.
    """
    if device not in ("auto", "cpu") or gpus > 1 or engine != "local":
        raise UsageError(f"{run} is scored on the CPU by one process", "leave out --device, --gpus and --engine")
    if which:
        raise UsageError(f"{run} holds one network", "leave out --best and --weights, or name the run")
    return "cpu"


def _views(mode: str | None, base: str | None) -> dict[str, Any]:
    """Fields of the preset's eval section for --mode and --base."""
    views: dict[str, Any] = {"mode": mode} if mode else {}
    if base:
        views |= {"base": "image"} if base == "image" else {"base": "short", "short_side": 512}
    return views


def _top(scores: dict[str, Any]) -> dict[str, Any]:
    """The scores that the gate looks at."""
    shown: dict[str, Any] = next(
        (scores[key] for key in (*eval_sources.NETWORK_MODES, "background", "best") if key in scores), scores
    )
    return shown


def _below(scores: dict[str, Any], gate: float) -> str:
    """Why scores do not pass --min-miou; empty where they do. One class of several says nothing of a segmentation."""
    miou, label = scores["miou"], scores.get("label") or []
    seen = sum(1 for count in label if count)
    if miou is None:
        return f"--min-miou {gate}: there is no mIoU, as no pixel of the truth has a label"
    if miou < gate:
        return f"mIoU {miou} is below --min-miou {gate}"
    return f"--min-miou: the truth holds {seen} of {len(label)} classes" if len(label) > 1 and seen < 2 else ""


def _end_below(below: str) -> None:
    """End with exit code 4 where scores do not pass; `below` says why."""
    if below:
        console.complain(f"error: {below}")
        raise typer.Exit(GateError.exit_code)


def _write_confusion(file: Path, scores: dict[str, Any]) -> None:
    """CSV: a row for each true class, a column for each predicted one, pixels."""
    import csv
    import io

    from wsss_cli.escapes import csv_cell
    from wsss_cli.files import write_text

    shown = next((scores[key] for key in (*eval_sources.NETWORK_MODES, "background") if key in scores), scores)
    if "confusion" not in shown:
        raise UsageError(
            "--confusion: these scores have no confusion matrix", "it is for networks and folders of masks"
        )
    names = [*shown["classes"], "outside"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    heads = [csv_cell(name) for name in names]
    writer.writerow(["truth \\ prediction", *heads])
    writer.writerows([head, *row] for head, row in zip(heads, shown["confusion"], strict=True))
    write_text(file, text.getvalue())
    console.say(f"confusion matrix: {file}")
