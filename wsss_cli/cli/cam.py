"""`wsss cam`."""

from __future__ import annotations

from typing import Annotated

import typer

from wsss_cli.cli import completion, console, sharded, stage
from wsss_cli.cli.following import following, refuse_useless
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


def cam(
    preset: PresetOption,
    overrides: SetOption = None,
    data: DataOption = "",
    weights: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            autocompletion=completion.runs("classifier", "cam"),
            help="A trained classifier, or its run; none is trained then.",
        ),
    ] = "",
    iters: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=10**9, help="Training iterations of the classifier.")
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
    """Train a classifier on image tags, then store class activation maps (CAMs) of the tagged classes.

    \b
    wsss cam --preset toy
    wsss cam --preset voc-animals-lite0 --set cam.scales=[1.0,0.5,1.5]
    wsss cam --preset toy --data data/mine --weights classifier.safetensors
    wsss cam --preset toy --weights runs/classifier-toy-1a2b3c4d --set cam.method.kind=lpcam
    wsss cam --preset toy --set cam.method.kind=gradcam --set cam.method.layer=blocks.4
    wsss cam --preset toy --set cam.method.kind=recam --set cam.method.iters=60
    wsss cam --preset toy --set classifier.consistency.kind=puzzle
    wsss cam --preset toy --shard 3/16
    wsss cam --preset toy --limit 8 --iters 4
    wsss cam --preset toy --engine ray

    The classifier is a run of its own: other scales or another method train none again. Runs again where it stopped.
    Where the data set has masks, the seeds are scored at every background threshold. Shards work in one run at the same
    time; the last of them finishes it.
    """
    part = sharded.chosen(shard, gpus)
    ray = stage.ray_address(engine, address, gpus, shard, device)
    settings = {"classifier__weights": weights, "classifier__iters": iters}
    resolved = stage.resolve(preset, overrides, data, seed=seed, dataset__limit=limit or None, **settings)
    if resolved.classifier.weights:
        refuse_useless(("--iters",), "no classifier is trained, as one is given", "leave --iters out")
    from wsss_cli.stages.plan import plan_cam

    if dry_run:
        return stage.dry_run(resolved, plan_cam, runs, device, json_output, gpus, loggers)
    if part is None:
        done = stage.perform(resolved, plan_cam, runs, device, gpus, loggers, ray)
    else:
        done = sharded.perform(resolved, plan_cam, runs, device, part, json_output)
    cams = done.last
    if json_output:
        console.result_json(done.as_json())
    elif cams.scores:
        from wsss_cli.report.tables import curve_table

        console.table(curve_table(cams.scores, "seeds by background threshold"))
    after = following("pseudo", settings=stage.as_toml(settings))
    return stage.finish(str(cams.run), cams.skipped, done.lost, after, json_output)
