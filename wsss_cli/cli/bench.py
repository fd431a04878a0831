"""`wsss bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsss_cli.cli import console, stage
from wsss_cli.cli.options import RUNS, DeviceOption, JsonOption, SetOption
from wsss_cli.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="Measure speed and memory on this machine.")


@app.callback()
def _group() -> None:
    pass


@app.command()
def model(
    run: Annotated[
        Path | None, typer.Argument(help="Training run whose network to measure; the result is kept in its bench.json.")
    ] = None,
    preset: Annotated[str, typer.Option("--preset", "-p", metavar="NAME", help="Preset, in place of a run.")] = "",
    overrides: SetOption = None,
    num_classes: Annotated[int, typer.Option(min=2, help="Classes, background included, with --preset.")] = 21,
    crop: Annotated[int, typer.Option(min=32, help="Side of the square input, pixels.")] = 512,
    steps: Annotated[int, typer.Option(min=1, help="Timed calls of each kind.")] = 50,
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
    if (run is None) == (not preset):
        raise UsageError("give a run, or --preset", "wsss bench model --preset NAME")
    if run is not None:
        from wsss_cli.files import read_json
        from wsss_cli.stages.upstream import read_run

        read_run(run, "train")
        preset, num_classes = str(run / "preset.lock.toml"), len(read_json(run / "inputs.json")["classes"])
    resolved = stage.resolve(preset, overrides)
    from wsss_cli.files import write_json
    from wsss_cli.report.tables import value_table
    from wsss_cli.stages.bench import bench_network

    with stage.working(device, run.parent if run else RUNS) as ctx:
        found = bench_network(resolved, num_classes, ctx, crop=crop, steps=steps, train=train)
    if run is not None:
        write_json(run / "bench.json", found)
    if json_output:
        console.result_json(found)
        return
    shown = ((key, str(value) if isinstance(value, bool) else value) for key, value in found.items())
    console.table(value_table(shown, f"{resolved.name}, {found['device']}"))
