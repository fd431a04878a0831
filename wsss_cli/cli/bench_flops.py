"""`wsss bench flops`, and whose network `wsss bench` measures: a run's or a preset's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsss_cli.cli import completion, console, stage
from wsss_cli.cli.options import JsonOption, SetOption
from wsss_cli.errors import UsageError

MeasuredRun = Annotated[
    Path | None, typer.Argument(autocompletion=completion.runs("train"), help="Training run whose network to measure.")
]
MeasuredPreset = Annotated[
    str,
    typer.Option(
        "--preset", "-p", metavar="NAME", autocompletion=completion.presets, help="Preset, in place of a run."
    ),
]
MeasuredClasses = Annotated[
    int | None,
    typer.Option(metavar="N", min=2, max=255, help="Classes, background included, with --preset; 21 if left out."),
]


def preset_and_classes(run: Path | None, preset: str, num_classes: int | None, command: str) -> tuple[str, int]:
    """The preset, or the lock file of the run, and how many classes.

    Raises:
        UsageError: neither or both of them, classes for a run, or no training run.
    """
    if (run is None) == (not preset):
        raise UsageError("give a run, or --preset", f"wsss bench {command} --preset NAME")
    if run is None:
        return preset, num_classes or 21
    if num_classes:
        raise UsageError("a run has its own classes: --num-classes goes with --preset", "leave it out")
    from wsss_cli.engine.records import read_inputs, read_run

    read_run(run, "train")
    return str(run / "preset.lock.toml"), len(read_inputs(run).classes)


def flops(
    run: MeasuredRun = None,
    preset: MeasuredPreset = "",
    overrides: SetOption = None,
    num_classes: MeasuredClasses = None,
    height: Annotated[int, typer.Option(metavar="N", min=32, max=16384, help="Of the image, pixels.")] = 512,
    width: Annotated[int, typer.Option(metavar="N", min=32, max=16384, help="Of the image, pixels.")] = 512,
    depth: Annotated[
        int, typer.Option(metavar="N", min=1, max=16, help="Levels of modules; 1: backbone and heads.")
    ] = 3,
    json_output: JsonOption = False,
) -> None:
    """Parameters and multiply-adds of a network, module by module, for one image.

    \b
    wsss bench flops --preset deeplabv3p-r50-voc-full
    wsss bench flops --preset toy --height 128 --width 128 --num-classes 6 --depth 1
    wsss bench flops runs/train-deeplabv3p-r50-voc-full-1a2b3c4d --json

    Counted without computing: no memory, no GPU, a few seconds. One multiply-add (MAC) is two FLOPs. Convolutions,
    matrix products and attention count; norms, activations, pooling and resizing do not. A module's row holds those in
    it, too.
    """
    preset, num_classes = preset_and_classes(run, preset, num_classes, "flops")
    resolved = stage.resolve(preset, overrides)
    from wsss_cli.bench.flops import bench_flops
    from wsss_cli.report.benchmarks import flops_table

    measured = bench_flops(resolved, num_classes, size=(height, width), depth=depth)
    if json_output:
        console.result_json(measured)
    else:
        console.table(flops_table(measured))
