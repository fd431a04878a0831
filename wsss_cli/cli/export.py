"""`wsss export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from wsss_cli.cli import console, stage
from wsss_cli.cli.options import RUNS, BestOption, JsonOption, NetworkArgument, RunsOption, WeightsOption, written_file
from wsss_cli.errors import UsageError

if TYPE_CHECKING:
    from wsss_cli.inference.network import Which


def export(
    run: NetworkArgument = None,
    *,
    out: Annotated[Path, typer.Option(metavar="FILE", parser=written_file, help="The file to write.")],
    form: Annotated[
        Literal["onnx", "torchscript"] | None,
        typer.Option("--format", help="Kind of file; if left out, as its name says: .onnx, or .pt for TorchScript."),
    ] = None,
    output: Annotated[
        Literal["labels", "logits"], typer.Option(help="uint8 [1, H, W], or float32 [1, K, H, W].")
    ] = "labels",
    int8: Annotated[
        bool, typer.Option("--int8", help="Compute in whole numbers of 8 bits; needs --calibrate, and says the loss.")
    ] = False,
    calibrate: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A data set or a folder of photographs, by which --int8 chooses its scales."),
    ] = None,
    best: BestOption = False,
    weights: WeightsOption = None,
    runs: RunsOption = RUNS,
    json_output: JsonOption = False,
) -> None:
    """Write a trained network as one file for other programs, and check that the file agrees with the network.

    \b
    wsss export --out newest.pt
    wsss export runs/train-toy-1a2b3c4d --out toy.pt
    wsss export runs/train-toy-1a2b3c4d --format onnx --out toy.onnx
    wsss export zoo/r50 --format onnx --output logits --out r50.onnx
    wsss export runs/train-toy-1a2b3c4d --int8 --calibrate data/toy --out toy-int8.onnx
    wsss eval toy-int8.onnx --data data/toy

    The file takes one RGB image in 0..255, uint8 [1, 3, H, W] of any size (TorchScript: float too), and gives labels or
    logits of that size: normalisation and upsampling are inside. FILE.json beside it says what it was made from; a file
    that is there is kept if that is the same, and never written over.

    ONNX needs: pip install 'wsss[export]'
    """
    from wsss_cli.engine.context import make_context
    from wsss_cli.inference.network import Which
    from wsss_cli.interchange.export import require_onnx, run_export

    run = run or stage.newest_training(runs)
    form = form or _form_of(out)
    _check_int8(int8, calibrate, form)
    if form == "onnx":
        require_onnx()
    which = Which("best" if best else "latest", weights or "")
    if calibrate is not None:
        _in_8_bits(run, which, out, output, calibrate, json_output)
        return
    network = stage.network_of(run, make_context("cpu", run.parent), which)  # a stop ends it at once
    if not out.is_file():
        console.say(f"writing {form}, then comparing it with the network")
    exported = run_export(network, out, form, output, str(run))
    if json_output:
        console.result_json(exported)
    else:
        what = "largest difference of logits, over the largest logit" if output == "logits" else "pixels that differ"
        for check in exported["checked"]:
            console.result(f"{check['height']}x{check['width']}: {what}: {check['difference']:.2e}")
    base = network.preset.eval
    if base.base == "short":
        console.say(
            f"note: `wsss infer` resizes photographs to a short side of {base.short_side}; do so before this file"
        )
    console.say(f"{'already there' if exported['kept'] else 'done'}: {out}")


def _check_int8(int8: bool, calibrate: Path | None, form: str) -> None:
    """See that the options of int8 go together.

    Raises:
        UsageError: they do not.
    """
    if int8 and calibrate is None:
        raise UsageError("--int8 needs photographs to choose its scales by", "add --calibrate DATASET, or a folder")
    if calibrate is not None and not int8:
        raise UsageError("--calibrate goes with --int8", "add --int8, or leave --calibrate out")
    if int8 and form != "onnx":
        raise UsageError(f"--int8 writes ONNX, not {form}", "name a file that ends in .onnx, and leave --format out")


def _in_8_bits(
    run: Path, which: Which, out: Path, output: Literal["labels", "logits"], calibrate: Path, json_output: bool
) -> None:
    from wsss_cli.stages.int8 import run_int8

    with stage.working("cpu", run.parent) as ctx:
        exported = run_int8(stage.network_of(run, ctx, which), out, output, calibrate, ctx, str(run))
    if json_output:
        console.result_json(exported)
    else:
        figures = exported["int8"]
        console.result(f"compared on {figures['compared_on']}, both in onnxruntime, a single scale")
        if "loss" in figures:
            values = [figures[key] for key in ("float_miou", "int8_miou", "loss")]
            shown = ["-" if value is None else f"{value:.2f}" for value in values]
            console.result("mIoU in 32 bits {}, in 8 bits {}: {} lost".format(*shown))
        else:
            console.result(f"mIoU of the 8 bits with the 32 bits {figures['agreement']:.2f}")
            console.result(f"pixels of the same class: {figures['same_pixels']:.2f} %")
        console.result(f"{figures['bytes'] / 1e6:.1f} MB in place of {figures['float_bytes'] / 1e6:.1f} MB")
    console.say(f"{'already there' if exported['kept'] else 'done'}: {out}")


def _form_of(out: Path) -> Literal["onnx", "torchscript"]:
    """The kind of file that a name says.

    Raises:
        UsageError: it says none.
    """
    match out.suffix.lower():
        case ".onnx":
            return "onnx"
        case ".pt" | ".ts" | ".torchscript":
            return "torchscript"
    raise UsageError(f"--out {out}: its ending does not say what file is meant", "add --format onnx or torchscript")
