"""`wsss run`."""

from __future__ import annotations

from wsss_cli.cli import console, stage
from wsss_cli.cli.options import (
    RUNS,
    DataOption,
    DeviceOption,
    DryRunOption,
    GpusOption,
    JsonOption,
    PresetOption,
    RunsOption,
    SetOption,
)


def run(
    preset: PresetOption,
    overrides: SetOption = None,
    data: DataOption = "",
    runs: RunsOption = RUNS,
    device: DeviceOption = "auto",
    gpus: GpusOption = 1,
    dry_run: DryRunOption = False,
    json_output: JsonOption = False,
) -> None:
    """Run the stages of a preset in order (classifier, cam, pseudo, train, eval), each skipped when it is done.

    \b
    wsss run --preset toy
    wsss run --preset voc-animals-lite0 --set train.iters=2000
    wsss run --preset toy --dry-run

    Stopped at any moment, the same command goes on where it stood.
    """
    resolved = stage.resolve(preset, overrides, data)
    from wsss_cli.stages.plan import Experiment, Step, plan_run

    def plan(exp: Experiment) -> list[Step]:
        return plan_run(exp, console.say)

    if dry_run:
        return stage.dry_run(resolved, plan, runs, device, json_output)
    done = stage.perform(resolved, plan, runs, device, gpus)
    results = done.results
    trained = str(results["train"].run)
    if json_output:
        runs_by_stage = {name: str(outcome.run) for name, outcome in results.items() if name != "eval"}
        scores_by_stage = {name: outcome.scores for name, outcome in results.items() if outcome.scores}
        console.result_json({"runs": runs_by_stage, "scores": scores_by_stage, "lost": done.lost})
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
        console.result(trained)
    skipped = all(outcome.skipped for outcome in results.values())
    return stage.finish(trained, skipped, done.lost, f"wsss infer {trained} IMAGES --out DIR", json_output)
