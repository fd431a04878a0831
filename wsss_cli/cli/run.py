"""`wsss run`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wsss_cli.cli import console, stage
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

if TYPE_CHECKING:
    from wsss_cli.config.schema import Preset
    from wsss_cli.stages.plan import Experiment, Plan, Step


def run(
    preset: PresetOption,
    overrides: SetOption = None,
    data: DataOption = "",
    iters: ItersOption = None,
    seed: SeedOption = None,
    limit: LimitOption = 0,
    runs: RunsOption = RUNS,
    device: DeviceOption = "auto",
    gpus: GpusOption = 1,
    loggers: LoggerOption = None,
    until: Annotated[
        str, typer.Option(metavar="STEP", help="Stop after this step: cam, pseudo, train, train-2 (of round 2), ...")
    ] = "",
    dry_run: DryRunOption = False,
    json_output: JsonOption = False,
) -> None:
    """Run the stages of a preset in order (classifier, cam, pseudo, train, eval), each skipped when it is done.

    \b
    wsss run --preset toy
    wsss run --preset voc-animals-lite0 --iters 2000
    wsss run --preset folder-lite0 --data data/mine --seed 1
    wsss run --preset toy --limit 8 --iters 4 --set classifier.iters=4
    wsss run --preset toy --until pseudo
    wsss run --preset toy --dry-run

    Stopped at any moment, the same command goes on where it stood.
    """
    resolved = preset_of(locals())
    plan = plan_of(until)
    if dry_run:
        return stage.dry_run(resolved, plan, runs, device, json_output, gpus, loggers)
    done = stage.perform(resolved, plan, runs, device, gpus, loggers)
    results = done.results
    last = str(done.last.run)
    if json_output:
        runs_by_stage = {name: str(outcome.run) for name, outcome in results.items() if name != "eval"}
        scores_by_stage = {name: outcome.scores for name, outcome in results.items() if outcome.scores}
        limited = {"limit": limit} if (limit := resolved.dataset.limit) else {}
        console.result_json({"runs": runs_by_stage, "scores": scores_by_stage, "lost": done.lost, **limited})
    elif "eval" in results:
        from wsss_cli.report.tables import class_table, value_table

        final = results["eval"].scores
        console.table(class_table({"single scale": final["single"], "ms+flip": final["ms_flip"]}, resolved.name))
        rows = [
            (title, results[name].scores.get(part, {}).get("miou"))
            for name, part, title in (
                ("cam", "best", "seed mIoU"),
                ("pseudo", "background", "pseudo mask mIoU, 255 as background"),
                ("relabel", "background", "the same, last round"),
            )
            if name in results
        ]
        rows += [("val mIoU, single scale", final["single"]["miou"]), ("val mIoU, ms+flip", final["ms_flip"]["miou"])]
        console.table(value_table(rows, "summary", final["protocol"]))
    else:
        console.result(last)
    skipped = all(outcome.skipped for outcome in results.values())
    after = following("run") if until else following("infer", done.last.run, "IMAGES", "--out", "DIR")
    return stage.finish(last, skipped, done.lost, after, json_output)


def preset_of(options: Mapping[str, Any]) -> Preset:
    """The preset that the options of `wsss run` mean, by the names of its parameters."""
    settings = {"seed": options["seed"], "train__iters": options["iters"], "dataset__limit": options["limit"] or None}
    return stage.resolve(options["preset"], options["overrides"], options["data"], **settings)


def plan_of(until: str) -> Plan:
    """The plan of `wsss run`; with a step's name what is to be made for that one."""
    from wsss_cli.stages.jobs import until as steps_until
    from wsss_cli.stages.plan import plan_run

    def plan(exp: Experiment) -> list[Step]:
        steps = plan_run(exp, console.say)
        return steps_until(steps, until) if until else steps

    return plan
