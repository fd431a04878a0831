"""`wsss train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsss_cli.cli import completion, console, stage
from wsss_cli.cli.following import following
from wsss_cli.cli.options import (
    RUNS,
    DataOption,
    DeviceOption,
    DryRunOption,
    GpusOption,
    ItersOption,
    JsonOption,
    LimitOption,
    LoggerOption,
    PresetOption,
    RunsOption,
    SeedOption,
    SetOption,
)


def train(
    preset: PresetOption,
    iters: ItersOption = None,
    overrides: SetOption = None,
    data: DataOption = "",
    masks: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN", autocompletion=completion.runs("pseudo"), help="The pseudo run whose masks to train on."
        ),
    ] = None,
    init: Annotated[
        str,
        typer.Option(
            "--init",
            metavar="DIR",
            autocompletion=completion.runs("train"),
            help="Start from the network of a run, or of an imported directory.",
        ),
    ] = "",
    reset_head: Annotated[
        bool, typer.Option("--reset-head", help="With --init: keep all but the classifiers; draw those anew.")
    ] = False,
    seed: SeedOption = None,
    limit: LimitOption = 0,
    runs: RunsOption = RUNS,
    device: DeviceOption = "auto",
    gpus: GpusOption = 1,
    loggers: LoggerOption = None,
    dry_run: DryRunOption = False,
    json_output: JsonOption = False,
) -> None:
    """Train a segmentation network on pseudo masks (weak presets) or on the data set's own masks (full presets).

    \b
    wsss train --preset deeplabv3p-r50-voc-weak --iters 20000
    wsss train --preset toy --set train.supervision=full
    wsss train --preset toy --masks runs/pseudo-toy-1a2b3c4d --set train.optim.lr=1e-4
    wsss train --preset toy --set rounds=2
    wsss train --preset toy --limit 8 --iters 4
    wsss train --preset deeplabv3p-r50-voc-weak --data data/mine --set dataset.train=train --init zoo/r50 --reset-head

    Checkpoints as it goes: the same command resumes. A weak preset takes the pseudo masks of its own earlier stages,
    else of the newest pseudo run on the same data set, and makes them first where there is none. With `rounds = 2` the
    trained network labels the training images anew, within their tags, and a second training follows.
    """
    resolved = stage.resolve(
        preset,
        overrides,
        data,
        seed=seed,
        dataset__limit=limit or None,
        train__iters=iters,
        train__init=init,
        train__reset_head=reset_head or None,
    )
    from wsss_cli.stages.plan import Experiment, Step, plan_train

    def plan(exp: Experiment) -> list[Step]:
        return plan_train(exp, masks, console.say)

    if dry_run:
        return stage.dry_run(resolved, plan, runs, device, json_output, gpus, loggers)
    done = stage.perform(resolved, plan, runs, device, gpus, loggers)
    trained = str(done.last.run)
    if json_output:
        console.result_json(done.as_json())
    else:
        console.result(trained)
    if stage.has_truth(resolved):
        after = following("eval", done.last.run, "--ms-flip", leave_out=("--data", "--runs"))
    else:
        after = following("infer", done.last.run, "IMAGES", "--out", "DIR")
    return stage.finish(trained, done.last.skipped, done.lost, after, json_output)
