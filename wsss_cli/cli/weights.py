"""`wsss weights`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from wsss_cli.cli import console
from wsss_cli.cli.options import JsonOption

app = typer.Typer(no_args_is_help=True, help="Say what a weight file is; take over MMSegmentation's checkpoints.")


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="A weight file, a run, a checkpoint folder or an imported directory.")],
    json_output: JsonOption = False,
) -> None:
    """Say what a weight file is, and which backbone or command takes it. Nothing in the file is run.

    \b
    wsss weights inspect resnet50_v1c-2cccc1ad.pth
    wsss weights inspect runs/train-toy-1a2b3c4d
    wsss weights inspect unknown.pth --json
    """
    from wsss_cli.interchange.import_mmseg import run_inspect

    found = run_inspect(file)
    if json_output:
        console.result_json(found)
        return
    from wsss_cli.report.tables import Table

    rows = [("what", found["title"])]
    if "run" in found:
        rows.append(("from", found["run"]))
    rows.append(("backbone", found["backbone"] or "-"))
    if found["num_classes"] is not None:
        rows.append(("classes", f"{found['num_classes']}"))
    if found["classes"]:
        rows.append(("class names", ", ".join(found["classes"])))
    if found["kind"] in ("mmseg-segmentor", "wsss-segmentor"):
        rows.append(("auxiliary head", "yes" if found["auxiliary_head"] else "no"))
    dtypes = ", ".join(f"{count} {name}" for name, count in found["dtypes"].items())
    rows.append(("tensors", f"{found['tensors']} ({dtypes}), {found['parameters']:,} numbers"))
    rows.append(("keys", f"{', '.join(found['keys'][:-1])} ... {found['keys'][-1]}"))
    if found["objects"]:
        rows.append(("left untouched", ", ".join(found["objects"])))
    rows.append(("SHA-256", found["sha256"]))
    notes = (found["advice"],) if found["advice"] else ()
    console.table(Table(found["file"], ("", ""), tuple(rows), notes=notes, left=frozenset({0, 1})))


@app.command("import-mmseg")
def import_mmseg(
    file: Annotated[Path, typer.Argument(help="A .pth of MMSegmentation 0.x or 1.x: DeepLabV3+, or a v1c backbone.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where model.safetensors and meta.json go.")],
    classes: Annotated[int | None, typer.Option(min=1, help="Classes expected, background included.")] = None,
    reset_head: Annotated[
        bool, typer.Option("--reset-head", help="Keep all but the classifiers; draw those anew.")
    ] = False,
    output_stride: Annotated[
        Literal["8", "16"], typer.Option(help="Of the trained network (r50-d8: 8); not in a checkpoint.")
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

    made = run_import(file, out, num_classes=classes, reset_head=reset_head, output_stride=int(output_stride))
    if json_output:
        console.result_json(made)
    else:
        _show(made, keys)
    console.say(f"done: {out}")
    if made["kind"] == "backbone":
        console.say(
            f"next: --set train.backbone.name={made['backbone']} --set train.backbone.weights={out}/model.safetensors"
        )
    elif made["fresh"]:
        console.say(f"next: wsss train --preset NAME --init {out}")
    else:
        console.say(f"next: wsss infer {out} IMAGES --out DIR")


def _show(made: dict[str, Any], every: bool) -> None:
    from wsss_cli.report.tables import Table

    report = made["keys"]
    counts = {what: Counter(_part(key) for key in report[what]) for what in ("used", "missing", "left_over")}
    parts = dict.fromkeys(part for count in counts.values() for part in count)
    rows = tuple((part, *(f"{counts[what][part]}" for what in counts)) for part in parts)
    footer = ("all", *(f"{counts[what].total()}" for what in counts))
    what = f"{made['backbone']}"
    if made["kind"] == "segmentor":
        aux = "with" if made["auxiliary_head"] else "without"
        what = f"DeepLabV3+ on {what}, {made['num_classes']} classes ({made['classes_from']}), {aux} auxiliary head"
    notes = [f"source SHA-256 {made['source']['sha256']}"]
    notes += [f"prefix {made['prefix']!r} taken off"] if made["prefix"] else []
    notes += [f"missing: {key}" for key in report["missing"]]
    notes += [f"left over: {key}" for key in report["left_over"]]
    notes += [f"drawn anew: {key}" for key in made.get("fresh", [])]
    notes += [f"left untouched in the file: {', '.join(made['objects'])}"] if made["objects"] else []
    console.table(Table(what, ("keys", "used", "missing", "left over"), rows, footer, tuple(notes)))
    if every:
        pairs = tuple(report["used"].items())
        console.table(Table("", ("MMSegmentation", "here"), pairs, left=frozenset({0, 1})))


def _part(key: str) -> str:
    """The part of a network that a key belongs to, for counting: 'backbone.layer3', 'decode_head.aspp_modules'."""
    names = key.split(".")
    return ".".join(names[:2]) if names[0] in ("backbone", "decode_head", "auxiliary_head") else names[0]
