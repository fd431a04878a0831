"""`wsss weights`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from wsss_cli.cli import completion, console, stage
from wsss_cli.cli.commands import App
from wsss_cli.cli.following import following, line
from wsss_cli.cli.options import RUNS, BestOption, JsonOption, NetworkArgument, RunsOption, WeightsOption
from wsss_cli.errors import DataError

if TYPE_CHECKING:
    from wsss_cli.config.schema import Preset

BACKGROUNDS = ("background", "bg", "unlabeled", "unlabelled", "void", "other", "others")

app = App(help="Say what a weight file is; take over MMSegmentation's checkpoints; give a network away.")


@app.command()
def inspect(
    file: Annotated[
        Path,
        typer.Argument(
            autocompletion=completion.runs("classifier", "train"),
            help="A weight file, a run, a checkpoint folder or an imported directory.",
        ),
    ],
    json_output: JsonOption = False,
) -> None:
    """Say what a weight file is, and which backbone or command takes it. Nothing in the file is run.

    \b
    wsss weights inspect resnet50_v1c-2cccc1ad.pth
    wsss weights inspect runs/train-toy-1a2b3c4d
    wsss weights inspect both.pth:model_ema
    wsss weights inspect unknown.pth --json
    """
    from wsss_cli.interchange.import_mmseg import run_inspect

    summary = run_inspect(file)
    if json_output:
        console.result_json(summary)
        return
    from wsss_cli.report.tables import Table

    rows = [("what", summary["title"])]
    if "run" in summary:
        rows.append(("from", summary["run"]))
    if summary["where"]:
        rows.append(("taken from", f"{summary['where']!r} in the file"))
    if summary["prefix"]:
        rows.append(("passed over", f"{summary['prefix']!r} before all keys"))
    rows.append(("backbone", summary["backbone"] or "-"))
    if summary["num_classes"] is not None:
        rows.append(("classes", f"{summary['num_classes']}"))
    if summary["classes"]:
        rows.append(("class names", ", ".join(summary["classes"])))
    if summary["kind"] in ("mmseg-segmentor", "wsss-segmentor"):
        rows.append(("auxiliary head", "yes" if summary["auxiliary_head"] else "no"))
    dtypes = ", ".join(f"{count} {name}" for name, count in summary["dtypes"].items())
    rows.append(("tensors", f"{summary['tensors']} ({dtypes}), {summary['parameters']:,} numbers"))
    if wrong := summary["not_finite"]:
        shown = f"{', '.join(wrong[:3])}{', ...' if len(wrong) > 3 else ''}"
        rows.append(("NOT FINITE", f"{len(wrong)} tensors: {shown}; no command takes them"))
    rows.append(("keys", f"{', '.join(summary['keys'][:-1])} ... {summary['keys'][-1]}"))
    if summary["objects"]:
        rows.append(("left untouched", ", ".join(summary["objects"])))
    rows.append(("SHA-256", summary["sha256"]))
    notes = (summary["advice"],) if summary["advice"] else ()
    console.table(Table(summary["file"], ("", ""), tuple(rows), notes=notes, left=frozenset({0, 1})))


@app.command("import-mmseg")
def import_mmseg(
    file: Annotated[Path, typer.Argument(help="A .pth of MMSegmentation 0.x or 1.x: DeepLabV3+, or a v1c backbone.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where model.safetensors and meta.json go.")],
    classes: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=255, help="Classes expected, background included.")
    ] = None,
    reset_head: Annotated[
        bool, typer.Option("--reset-head", help="Keep all but the classifiers; draw those anew.")
    ] = False,
    output_stride: Annotated[
        Literal["8", "16"], typer.Option(help="Of the trained network (r50-d8: 8); else say 16.")
    ] = "8",
    keys: Annotated[bool, typer.Option("--keys", help="List every key and its name here.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Turn a checkpoint of MMSegmentation into a directory that eval, infer and export take. Needs no mmcv.

    \b
    wsss weights import-mmseg deeplabv3plus_r50-d8_512x512_20k_voc12aug.pth --out zoo/r50
    wsss weights import-mmseg r101.pth --out zoo/r101-5 --classes 5 --reset-head
    wsss weights import-mmseg resnet50_v1c-2cccc1ad.pth --out zoo/v1c

    Every key is accounted for: used, missing, or left over. Nothing in the file is run.
    """
    from wsss_cli.interchange.import_mmseg import run_import

    meta = run_import(file, out, num_classes=classes, reset_head=reset_head, output_stride=int(output_stride))
    if json_output:
        console.result_json(meta)
    else:
        _show(meta, keys)
    if other := meta.get("otherwise"):
        console.say(f"masks will differ from MMSegmentation's: its config says what is not so here, {'; '.join(other)}")
    if meta.get("classes_from") == "the file" and meta["classes"][0].strip("_").casefold() not in BACKGROUNDS:
        console.say(f"its class 0 is {meta['classes'][0]!r}: no background is predicted, and 0 in masks is that class")
    console.say(f"done: {out}")
    if meta["kind"] == "backbone":
        name, weights = f"train.backbone.name={meta['backbone']}", f"train.backbone.weights={out}/model.safetensors"
        console.say(f"next: {line('train', '--preset', 'NAME', '--set', name, '--set', weights)}")
    elif meta["fresh"]:
        console.say(f"next: {line('train', '--preset', 'NAME', '--init', out)}")
    else:
        console.say(f"next: {line('infer', out, 'IMAGES', '--out', 'DIR')}")


@app.command()
def publish(
    run: NetworkArgument = None,
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to write.")],
    best: BestOption = False,
    weights: WeightsOption = None,
    runs: RunsOption = RUNS,
    json_output: JsonOption = False,
) -> None:
    """Write a trained network as a folder to give away: weights alone, what they are, and a card to read.

    \b
    wsss weights publish --out zoo/mine
    wsss weights publish runs/train-toy-1a2b3c4d --best --out zoo/toy
    wsss infer zoo/toy photos/ --out predicted

    The folder is taken wherever a run is: by infer, eval, export, serve, train --init and from Python. The weights have
    no optimiser state; their name ends in the first eight digits of their SHA-256, as torch.hub checks it. README.md
    says classes, data, supervision, scores and their protocol; the line of the license is yours to write. meta.json
    holds the preset, with paths as you gave them.
    """
    from wsss_cli.engine.context import make_context
    from wsss_cli.inference.network import Which
    from wsss_cli.interchange.publish import run_publish

    run = run or stage.newest_training(runs)
    which = Which("best" if best else "latest", weights or "")
    network = stage.network_of(run, make_context("cpu", run.parent), which)
    published = run_publish(network, run, out)
    if json_output:
        console.result_json(published)
    else:
        console.result(str(out / published["file"]))
    if not published["scores"]:
        console.say(f"no scores of these weights are recorded: {_how_to_score(run, network.preset)}")
    if published["card_edited"]:
        console.say(f"{out / 'README.md'} was edited: left as it is")
    console.say(
        f"{'already there' if published['kept'] else 'done'}: {out}; the license is yours to write into README.md"
    )
    console.say(f"next: {line('infer', out, 'IMAGES', '--out', 'DIR')}")


def _how_to_score(run: Path, preset: Preset) -> str:
    """What has to be done for scores of a run, which depends on where true masks are."""
    again = "then the same command again"
    try:
        if stage.has_truth(preset):
            return f"{following('eval', run)}, {again}"
    except DataError:  # moved, or of another machine
        return f"{following('eval', run, '--data', 'DATASET')}, {again}"
    return (
        f"the val split of {preset.dataset.path} has no true masks; with some (`prepare folder --masks`),"
        f" {following('eval', run, '--data', 'DATASET')}, {again}"
    )


def _show(meta: dict[str, Any], every: bool) -> None:
    from wsss_cli.report.tables import Table

    report = meta["keys"]
    counts = {what: Counter(_part(key) for key in report[what]) for what in ("used", "missing", "left_over")}
    parts = dict.fromkeys(part for count in counts.values() for part in count)
    rows = tuple((part, *(f"{counts[what][part]}" for what in counts)) for part in parts)
    footer = ("all", *(f"{counts[what].total()}" for what in counts))
    what = f"{meta['backbone']}"
    if meta["kind"] == "segmentor":
        aux = "with" if meta["auxiliary_head"] else "without"
        what = f"DeepLabV3+ on {what}, {meta['num_classes']} classes ({meta['classes_from']}), {aux} auxiliary head"
    notes = [f"source SHA-256 {meta['source']['sha256']}"]
    notes += [f"prefix {meta['prefix']!r} taken off"] if meta["prefix"] else []
    notes += [f"missing: {key}" for key in report["missing"]]
    notes += [f"left over: {key}" for key in report["left_over"]]
    notes += [f"drawn anew: {key}" for key in meta.get("fresh", [])]
    notes += [f"left untouched in the file: {', '.join(meta['objects'])}"] if meta["objects"] else []
    console.table(Table(what, ("keys", "used", "missing", "left over"), rows, footer, tuple(notes)))
    if every:
        pairs = tuple(report["used"].items())
        console.table(Table("", ("MMSegmentation", "here"), pairs, left=frozenset({0, 1})))


def _part(key: str) -> str:
    """The part of a network that a key belongs to, for counting: 'backbone.layer3', 'decode_head.aspp_modules'."""
    names = key.split(".")
    return ".".join(names[:2]) if names[0] in ("backbone", "decode_head", "auxiliary_head") else names[0]
