"""`wsss run`."""

from __future__ import annotations

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


def run(
    preset: PresetOption,
    overrides: SetOption = None,
    data: DataOption = "",
    runs: RunsOption = RUNS,
    device: DeviceOption = "auto",
    dry_run: DryRunOption = False,
    json_output: JsonOption = False,
) -> None:
    """Run the stages of a preset in order (cam, pseudo, train, eval), each skipped when it is done.

    \b
    wsss run --preset toy
    wsss run --preset voc-animals-lite0 --set train.iters=2000
    wsss run --preset toy --dry-run

    Stopped at any moment, the same command goes on where it stood.
    """
    resolved = stage.resolve(preset, overrides, data)
    weak = resolved.train.supervision == "weak"
    if dry_run:
        again = ["pseudo masks by the network", "train"] * (resolved.rounds - 1)
        stages = ["cam", "pseudo", "train", *again, "eval"] if weak else ["train", "eval"]
        return stage.dry_run(resolved, stages, runs, json_output)
    from wsss_cli.report.tables import class_table, value_table
    from wsss_cli.stages.pipeline import run_pipeline

    with stage.working(device, runs) as ctx:
        made = run_pipeline(resolved, ctx)
    if json_output:
        console.result_json(made)
    elif final := made["scores"].get("eval"):
        console.table(class_table({"single scale": final["single"], "ms+flip": final["ms_flip"]}, resolved.name))
        seed = made["scores"].get("cam", {}).get("best", {}).get("miou")
        masks = made["scores"].get("pseudo", {}).get("background", {}).get("miou")
        rows = [("seed mIoU", seed), ("pseudo mask mIoU, 255 as background", masks)] if weak else []
        if last := made["scores"].get("relabel"):
            rows.append(("the same, last round", last.get("background", {}).get("miou")))
        rows += [("val mIoU, single scale", final["single"]["miou"]), ("val mIoU, ms+flip", final["ms_flip"]["miou"])]
        console.table(value_table(rows, "summary", final["protocol"]))
    else:
        console.result(made["runs"]["train"])
    trained = made["runs"]["train"]
    return stage.finish(trained, False, made["lost"], f"wsss infer {trained} IMAGES --out DIR", json_output)
