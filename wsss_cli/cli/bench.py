"""`wsss bench`: networks and data here, methods in bench_methods.py, what is counted in bench_flops.py."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsss_cli.cli import bench_flops, bench_methods, completion, console, stage
from wsss_cli.cli.bench_flops import MeasuredClasses, MeasuredPreset, preset_and_classes
from wsss_cli.cli.bench_methods import (
    AS_THEY_ARE,
    BenchPreset,
    DataDir,
    Height,
    Images,
    Repeats,
    Seed,
    Width,
    default_preset,
    show,
)
from wsss_cli.cli.commands import App
from wsss_cli.cli.following import refuse_useless
from wsss_cli.cli.options import RUNS, DeviceOption, JsonOption, SetOption
from wsss_cli.errors import UsageError

Classes = Annotated[int, typer.Option(metavar="N", min=2, max=255, help="Classes, background included.")]

app = App(help="Measure speed and memory on this machine.")
app.command("crf")(bench_methods.crf)
app.command("cam")(bench_methods.cam)
app.command("walk")(bench_methods.walk)
app.command("flops")(bench_flops.flops)


@app.callback()
def _group() -> None:
    pass


@app.command()
def model(
    run: Annotated[
        Path | None,
        typer.Argument(
            autocompletion=completion.runs("train"),
            help="Training run whose network to measure; the result is kept in its bench.json.",
        ),
    ] = None,
    preset: MeasuredPreset = "",
    overrides: SetOption = None,
    num_classes: MeasuredClasses = None,
    crop: Annotated[int, typer.Option(metavar="N", min=32, max=16384, help="Side of the square input, pixels.")] = 512,
    steps: Annotated[int, typer.Option(metavar="N", min=1, max=10**6, help="Timed calls of each kind.")] = 50,
    train: Annotated[bool, typer.Option(help="Also time training steps, at the preset's batch.")] = True,
    device: DeviceOption = "auto",
    json_output: JsonOption = False,
) -> None:
    """Frames a second (batch 1), training iterations a second and memory of a network.

    \b
    wsss bench model --preset deeplabv3p-r50-voc-full
    wsss bench model --preset toy --crop 128 --steps 10 --num-classes 6
    wsss bench model runs/train-deeplabv3p-r50-voc-full-1a2b3c4d --no-train

    Random weights and images; data loading is not included.
    """
    preset, num_classes = preset_and_classes(run, preset, num_classes, "model")
    resolved = stage.resolve(preset, overrides)
    from wsss_cli.bench.model import bench_network
    from wsss_cli.files import write_json
    from wsss_cli.report.tables import value_table

    with stage.working(device, run.parent if run else RUNS) as ctx:
        measured = bench_network(resolved, num_classes, ctx, crop=crop, steps=steps, train=train)
    if run is not None:
        write_json(run / "bench.json", measured)
    if json_output:
        console.result_json(measured)
        return
    shown = ((key, str(value) if isinstance(value, bool) else value) for key, value in measured.items())
    console.table(value_table(shown, f"{resolved.name}, {measured['device']}"))


@app.command()
def train(
    preset: BenchPreset = "",
    overrides: SetOption = None,
    num_classes: Classes = 21,
    crop: Annotated[
        int,
        typer.Option(metavar="N", min=0, max=16384, help="Side of the input; 0: the preset's on a GPU, 64 on a CPU."),
    ] = 0,
    batch: Annotated[
        int,
        typer.Option(metavar="N", min=0, max=65536, help="Images in a batch; 0: the preset's on a GPU, 2 on a CPU."),
    ] = 0,
    variants: Annotated[
        str,
        typer.Option(metavar="A,B,...", help="Rows, separated by commas; by default all, on a CPU without compile."),
    ] = "",
    steps: Annotated[
        int, typer.Option(metavar="N", min=0, max=10**6, help="Iterations in a turn; 0: 20 on a GPU, 2 on a CPU.")
    ] = 0,
    repeats: Repeats = 3,
    data: DataDir = "",
    device: DeviceOption = "auto",
    json_output: JsonOption = False,
) -> None:
    """Training iterations a second: fp32, bf16, channels-last, compile, fused; memory, and the losses side by side.

    \b
    wsss bench train
    wsss bench train --preset deeplabv3p-r101-voc-weak --steps 50
    wsss bench train --preset toy --variants fp32,channels-last --crop 64 --batch 2 --json

    Forward, backward and optimiser on one batch that stays on the device; random weights, the same in each row.
    `wsss bench data` measures the loader.
    """
    from wsss_cli.bench.train import bench_train

    names = [name.strip() for name in variants.split(",") if name.strip()]
    with stage.working(device, RUNS) as ctx:
        measured = bench_train(
            stage.resolve(preset or default_preset(ctx), overrides),
            ctx,
            num_classes=num_classes,
            crop=crop,
            batch=batch,
            variants=names,
            steps=steps,
            repeats=repeats,
            data=data,
        )
    show(measured, json_output)


@app.command("eval")
def evaluate(
    preset: BenchPreset = "",
    overrides: SetOption = None,
    num_classes: Classes = 21,
    images: Images = 0,
    height: Height = 0,
    width: Width = 0,
    repeats: Repeats = 3,
    seed: Seed = 0,
    data: DataDir = "",
    device: DeviceOption = "auto",
    json_output: JsonOption = False,
) -> None:
    """ms+flip prediction: images a second, batched and one view at a time, with and without the metric.

    \b
    wsss bench eval
    wsss bench eval --preset deeplabv3p-r101-voc-full --images 64
    wsss bench eval --preset toy --set eval.scales=[1.0,1.5] --images 4 --json

    Random weights, images in memory; labels end in main memory.
    """
    from wsss_cli.bench.evaluation import bench_eval

    with stage.working(device, RUNS) as ctx:
        measured = bench_eval(
            stage.resolve(preset or default_preset(ctx), overrides),
            ctx,
            num_classes=num_classes,
            images=images,
            height=height,
            width=width,
            repeats=repeats,
            seed=seed,
            data=data,
        )
    show(measured, json_output)


@app.command()
def data(
    preset: Annotated[
        str,
        typer.Option(
            "--preset",
            "-p",
            metavar="NAME",
            autocompletion=completion.presets,
            help="Preset whose augmentation, crop and batch to take.",
        ),
    ] = "deeplabv3p-r50-voc-full",
    overrides: SetOption = None,
    images: Annotated[int, typer.Option(metavar="N", min=1, max=10**6, help="Files, read again and again.")] = 32,
    height: Annotated[
        int, typer.Option(metavar="N", min=32, max=16384, help="Of the drawn photographs, pixels.")
    ] = 375,
    width: Annotated[int, typer.Option(metavar="N", min=32, max=16384, help="Of the drawn photographs, pixels.")] = 500,
    batch: Annotated[int, typer.Option(metavar="N", min=0, max=65536, help="Images in a batch; 0: the preset's.")] = 0,
    workers: Annotated[
        str, typer.Option(metavar="N,N,...", help="Worker counts, separated by commas; by default 0, 1, 2, 4, ...")
    ] = "",
    batches: Annotated[int, typer.Option(metavar="N", min=1, max=10**6, help="Batches in a turn.")] = 4,
    repeats: Repeats = 3,
    seed: Seed = 0,
    data: DataDir = "",
    json_output: JsonOption = False,
) -> None:
    """The training loader alone: batches a second by worker count, and the parts of a sample.

    \b
    wsss bench data
    wsss bench data --data data/voc-aug --images 256 --workers 1,4,8
    wsss bench data --preset toy --height 128 --width 128 --workers 0,2 --json

    The best row is what a training on this machine can be fed with, in iterations a second; `wsss bench train`
    measures what it could use.
    """
    if data:
        refuse_useless(*AS_THEY_ARE)
    counts = [part.strip() for part in workers.split(",") if part.strip()]
    if wrong := [part for part in counts if not part.isdecimal() or len(part) > 4 or int(part) > 1024]:
        raise UsageError(
            f"--workers: {wrong[0]!r} is no worker count", "give whole numbers up to 1024, e.g. --workers 0,2,4"
        )
    from wsss_cli.bench.data import bench_data

    with stage.working("cpu", RUNS) as ctx:
        measured = bench_data(
            stage.resolve(preset, [*(overrides or []), *([f"train.batch={batch}"] if batch else [])]),
            ctx,
            images=images,
            size=(height, width),
            workers=[int(part) for part in counts],
            batches=batches,
            repeats=repeats,
            seed=seed,
            data=data,
        )
    show(measured, json_output)
