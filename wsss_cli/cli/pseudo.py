"""`wsss pseudo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsss_cli.cli import completion, console, sharded, stage
from wsss_cli.cli.following import following
from wsss_cli.cli.options import (
    RUNS,
    AddressOption,
    DataOption,
    DeviceOption,
    DryRunOption,
    EngineOption,
    GpusOption,
    JsonOption,
    LimitOption,
    LoggerOption,
    PresetOption,
    RunsOption,
    SeedOption,
    SetOption,
    ShardOption,
)


def pseudo(
    preset: PresetOption,
    overrides: SetOption = None,
    data: DataOption = "",
    cams: Annotated[
        Path | None, typer.Option(metavar="RUN", autocompletion=completion.runs("cam"), help="The cam run to read.")
    ] = None,
    network: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            autocompletion=completion.runs("train"),
            help="A training run whose network makes the masks, in place of CAMs, or with --cams beside them.",
        ),
    ] = None,
    seed: SeedOption = None,
    limit: LimitOption = 0,
    runs: RunsOption = RUNS,
    device: DeviceOption = "auto",
    gpus: GpusOption = 1,
    loggers: LoggerOption = None,
    shard: ShardOption = "",
    engine: EngineOption = "local",
    address: AddressOption = "",
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
    wsss pseudo --preset toy --network runs/train-toy-1a2b3c4d --cams runs/cam-toy-1a2b3c4d --set relabel.cam_weight=0.7
    wsss pseudo --preset toy --shard 3/16
    wsss pseudo --preset toy --limit 8 --set classifier.iters=4
    wsss pseudo --preset toy --engine ray

    Writes palette PNGs and a confidence map beside each. Makes the CAMs first where no cam run fits.
    """
    part = sharded.chosen(shard, gpus)
    ray = stage.ray_address(engine, address, gpus, shard, device)
    resolved = stage.resolve(preset, overrides, data, seed=seed, dataset__limit=limit or None)
    from wsss_cli.stages.plan import Experiment, Step, plan_pseudo, plan_relabel

    def plan(exp: Experiment) -> list[Step]:
        return plan_pseudo(exp, cams, console.say) if network is None else plan_relabel(exp, network, cams)

    if dry_run:
        return stage.dry_run(resolved, plan, runs, device, json_output, gpus, loggers)
    if part is None:
        done = stage.perform(resolved, plan, runs, device, gpus, loggers, ray)
    else:
        done = sharded.perform(resolved, plan, runs, device, part, json_output)
    masks = done.last
    if json_output:
        console.result_json(done.as_json())
    elif "background" in masks.scores:
        from wsss_cli.report.tables import class_table

        results = {"255 as background": masks.scores["background"], "255 left out": masks.scores["drop"]}
        console.table(class_table(results, "pseudo masks", masks.scores["protocol"], ("iou", "fp", "fn")))
    after = following("train", *(("--masks", masks.run) if cams or network else ()))
    return stage.finish(str(masks.run), masks.skipped, done.lost, after, json_output)
