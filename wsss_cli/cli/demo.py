"""`wsss demo`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsss_cli.cli import console, stage
from wsss_cli.cli.options import DeviceOption, JsonOption, SetOption
from wsss_cli.errors import UsageError
from wsss_cli.talk import silent

if TYPE_CHECKING:
    from wsss_cli.config.schema import Preset
    from wsss_cli.errors import WsssError
    from wsss_cli.stages.plan import Experiment, Step

LABELS = {
    "seed_miou": "seed (CAM) mIoU, train",
    "pseudo_miou": "pseudo mask mIoU, train (255 as background)",
    "pseudo_miou_255_dropped": "pseudo mask mIoU, train (255 left out)",
    "weak_miou": "weak: val mIoU, single scale",
    "weak_miou_ms_flip": "weak: val mIoU, ms+flip",
    "full_miou": "full supervision: val mIoU, single scale",
    "full_miou_ms_flip": "full supervision: val mIoU, ms+flip",
}


def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where data, runs and pictures go.")] = Path("runs/demo"),
    images: Annotated[
        int, typer.Option(metavar="N", min=8, max=10**6, help="Training images of the generated data set.")
    ] = 240,
    seed: Annotated[int, typer.Option(metavar="N", min=0, max=2**62 - 1, help="Seed of data and training.")] = 0,
    overrides: SetOption = None,
    device: DeviceOption = "auto",
    json_output: JsonOption = False,
) -> None:
    """Run everything on generated data: prepare, cam, pseudo, train, eval, infer; weak beside full supervision.

    \b
    wsss demo
    wsss demo --json
    wsss demo --out /tmp/demo --images 40 --set classifier.iters=20 --set train.iters=20

    About four minutes on two CPU cores. Ends with one table and a picture sheet.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is no folder", "choose another --out")
    common = [*(overrides or ())]
    data = str(out / "data" / f"toy-{images}-{seed}")
    weak = stage.resolve("toy", common, data, seed=seed)
    full = stage.resolve("toy", common, data, seed=seed, train__supervision="full")
    _refuse_faults((weak, full), out / "runs", device)
    from wsss_cli.report.tables import value_table
    from wsss_cli.stages.demo import run_demo

    with stage.working(device, out / "runs") as ctx:
        summary = run_demo(weak, full, images, seed, out, ctx)
    if json_output:
        console.result_json(summary)
        return
    rows: list[tuple[str, float | str | None]] = [(label, summary[key]) for key, label in LABELS.items()]
    rows += [("ratio weak / full, ms+flip", summary["ratio"]), ("seconds", summary["seconds"])]
    console.table(value_table(rows, "from image tags to masks", summary["protocol"]))
    for name, path in (("picture sheet", summary["sheet"]), ("predicted masks over images", summary["infer"])):
        console.result(f"{name}: {path}")
    for name, path in summary["runs"].items():
        console.result(f"{name} run: {path}")
    console.result(f"report of the weak training: {summary['report']}")
    console.say("next: wsss prepare folder --help   (your own photographs and tags)")


def _refuse_faults(presets: tuple[Preset, ...], runs: Path, device: str) -> None:
    """Refuse what is known to fail of any stage; a data set that is not there is no fault, as it is drawn first.

    Raises:
        WsssError: all that is.
    """
    from wsss_cli.stages.plan import plan_run
    from wsss_cli.stages.preflight import planned, problems
    from wsss_cli.weights.sources import as_one

    def plan(exp: Experiment) -> list[Step]:
        return plan_run(exp, silent)

    faults: list[WsssError] = []
    for preset in presets:
        exp, steps, missing = planned(preset, plan, runs)
        drawn = (Path(preset.dataset.path) / "dataset.json").is_file()
        faults += [*missing[not drawn :], *problems(exp, steps, device)]
    if faults:
        raise as_one(list({fault.message: fault for fault in faults}.values()))
