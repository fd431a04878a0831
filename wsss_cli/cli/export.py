"""`wsss export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from wsss_cli.cli import console, stage
from wsss_cli.cli.options import RUNS, BestOption, JsonOption, NetworkArgument, RunsOption, WeightsOption
from wsss_cli.errors import UsageError


def export(
    run: NetworkArgument = None,
    *,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The file to write.")],
    form: Annotated[
        Literal["onnx", "torchscript"] | None,
        typer.Option("--format", help="Kind of file; if left out, as its name says: .onnx, or .pt for TorchScript."),
    ] = None,
    output: Annotated[
        Literal["labels", "logits"], typer.Option(help="uint8 [1, H, W], or float32 [1, K, H, W].")
    ] = "labels",
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

    The file takes one RGB image in 0..255, uint8 [1, 3, H, W] of any size (TorchScript: float too), and gives labels or
    logits of that size: normalisation and upsampling are inside. FILE.json beside it says what it was made from; a file
    that is there is kept if that is the same, and never written over.

    ONNX needs: pip install onnx onnxscript onnxruntime
    """
    from wsss_cli.engine.context import make_context
    from wsss_cli.inference.network import Which, load_network
    from wsss_cli.interchange.export import require_onnx, run_export

    run = run or stage.newest_training(runs)
    form = form or _form_of(out)
    if form == "onnx":
        require_onnx()
    which = Which("best" if best else "latest", weights or "")
    network = load_network(run, make_context("cpu", run.parent), which)  # a stop ends it at once
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
