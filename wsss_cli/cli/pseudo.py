"""`wsss pseudo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsss_cli.cli import console, stage
from wsss_cli.cli.options import (
    RUNS,
    DataOption,
    DeviceOption,
    DryRunOption,
    JsonOption,
    PresetOption,
    RunsOption,
    SetOption,
)
from wsss_cli.errors import UsageError


def pseudo(
    preset: PresetOption,
    overrides: SetOption = None,
    data: DataOption = "",
    cams: Annotated[Path | None, typer.Option(metavar="RUN", help="The cam run to read.")] = None,
    network: Annotated[
        Path | None, typer.Option(metavar="RUN", help="A training run whose network makes the masks, in place of CAMs.")
    ] = None,
    runs: RunsOption = RUNS,
    device: DeviceOption = "auto",
    dry_run: DryRunOption = False,
    json_output: JsonOption = False,
) -> None:
    """Turn CAMs into pseudo masks: two thresholds, refining steps at each, 255 where they disagree.

    \b
    wsss pseudo --preset toy
    wsss pseudo --preset toy --set 'pseudo.threshold={ kind="fixed", fg=0.4, bg=0.2 }'
    wsss pseudo --preset toy --set 'pseudo.steps=[{kind="par"}, {kind="crf"}]' --set pseudo.threshold.kind=self
    wsss pseudo --preset toy --cams runs/cam-toy-1a2b3c4d
    wsss pseudo --preset toy --network runs/train-toy-1a2b3c4d

    Writes palette PNGs and a confidence map beside each. Makes the CAMs first where no cam run fits.
    """
    if cams is not None and network is not None:
        raise UsageError("--cams and --network are two sources of masks", "give one of them")
    resolved = stage.resolve(preset, overrides, data)
    if dry_run:
        return stage.dry_run(resolved, ["pseudo"], runs, json_output)
    from wsss_cli.report.tables import class_table
    from wsss_cli.stages.pseudo import run_pseudo
    from wsss_cli.stages.relabel import run_relabel

    with stage.working(device, runs) as ctx:
        made = run_pseudo(resolved, ctx, cams) if network is None else run_relabel(resolved, ctx, network)
    if json_output:
        console.result_json({"run": str(made.run), "skipped": made.skipped, "lost": made.lost, "scores": made.scores})
    elif "background" in made.scores:
        results = {"255 as background": made.scores["background"], "255 left out": made.scores["drop"]}
        console.table(class_table(results, "pseudo masks", made.scores["protocol"], ("iou", "fp", "fn")))
    return stage.finish(
        str(made.run),
        made.skipped,
        made.lost,
        f"wsss train --preset {preset} --masks {made.run}" if network else f"wsss train --preset {preset}",
        json_output,
    )
