"""The demo: every stage on the generated data set, weak beside full supervision, one table and one picture sheet."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wsss_cli.config.schema import Preset
from wsss_cli.data.dataset import Dataset, Sample, open_dataset
from wsss_cli.data.sources.toy import prepare_toy
from wsss_cli.engine.context import Context
from wsss_cli.inference.network import Network, load_network
from wsss_cli.inference.predict import predict_each
from wsss_cli.locks import locked
from wsss_cli.report.pictures import write_picture
from wsss_cli.stages.examples import Sources, example, examples_sheet
from wsss_cli.stages.infer import run_infer
from wsss_cli.stages.outcome import Outcome, outcome
from wsss_cli.stages.pipeline import check_networks, run_step
from wsss_cli.stages.plan import open_experiment, plan_run
from wsss_cli.stages.train import check_training
from wsss_cli.talk import silent

ROWS = 6


def run_demo(weak: Preset, full: Preset, images: int, seed: int, out: Path, ctx: Context) -> dict[str, Any]:
    """prepare -> cam -> pseudo -> train -> eval -> infer, and the same network on true masks.

    Args:
        weak, full: presets of the two trainings; they differ in supervision only.
        images: training images of the generated data set.
        out: where pictures and predicted masks go.
    Returns:
        The object that `wsss demo --json` prints: scores in per cent, seconds, run directories, pictures.
    """
    begin = time.perf_counter()
    seconds: dict[str, float] = {}

    def timed(name: str, work: Any, *args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        ctx.ui.say(f"== {name}")
        result = work(*args, **kwargs)
        seconds[name] = round(time.perf_counter() - start, 1)
        return result

    def stages(preset: Preset, kind: str) -> Outcome:
        exp = open_experiment(preset, ctx.runs)
        steps = plan_run(exp, ctx.ui.say)
        for step in steps:
            if not step.done:
                name = f"{step.stage} ({kind})" if step.stage in ("train", "eval") else step.stage
                timed(name, run_step, step, exp, ctx)
        return outcome(steps)

    data = Path(weak.dataset.path)
    if not (data / "dataset.json").is_file():
        data.mkdir(parents=True, exist_ok=True)
        with locked(data / ".prepare.lock", f"{data} is being prepared"):
            timed("prepare", prepare_toy, data, images=images, seed=seed)
    dataset = open_dataset(data)
    for preset in (weak, full):
        exp = open_experiment(preset, ctx.runs)
        check_training(preset.train, dataset, ctx.device)
        check_networks([step for step in plan_run(exp, silent) if not step.done], exp)
    results = stages(weak, "weak").results
    cam, pseudo, trained, weak_eval = (results[name] for name in ("cam", "pseudo", "train", "eval"))
    upper = stages(full, "full").results
    network = load_network(trained.run, ctx)
    shown = dataset.split(weak.dataset.val)[:ROWS]
    inferred = timed("infer", run_infer, network, [s.image for s in shown], out / "infer", ctx, ms_flip=True)
    rows, sources = _examples(dataset.split(weak.dataset.train)), Sources(cam.run, pseudo.run)
    picture = timed("pictures", _draw, rows, dataset, sources, network, out / "sheet.png", ctx)
    (single, ms), (full_single, full_ms) = (
        (each["eval"].scores["single"]["miou"], each["eval"].scores["ms_flip"]["miou"]) for each in (results, upper)
    )
    return {
        "seed_miou": cam.scores["best"]["miou"],
        "seed_threshold": cam.scores["best_threshold"],
        "pseudo_miou": pseudo.scores["background"]["miou"],
        "pseudo_miou_255_dropped": pseudo.scores["drop"]["miou"],
        "weak_miou": single,
        "weak_miou_ms_flip": ms,
        "full_miou": full_single,
        "full_miou_ms_flip": full_ms,
        "ratio": round(ms / full_ms, 4) if ms is not None and full_ms else None,
        "seconds": round(time.perf_counter() - begin, 1),
        "stage_seconds": seconds,
        "runs": {
            "cam": str(cam.run),
            "pseudo": str(pseudo.run),
            "train_weak": str(trained.run),
            "train_full": str(upper["train"].run),
        },
        "data": str(data),
        "sheet": str(picture),
        "report": str(trained.run / "report.html"),
        "infer": inferred["overlays"],
        "protocol": [*cam.scores["protocol"][:1], *pseudo.scores["protocol"][:1], *weak_eval.scores["protocol"]],
        "device": ctx.device_name,
    }


def _examples(samples: Sequence[Sample]) -> list[Sample]:
    """The first images with two classes and with one, in turn, so that both kinds are shown."""
    several = [s for s in samples if len(s.labels) > 1][: ROWS // 2]
    single = [s for s in samples if len(s.labels) == 1][: ROWS - len(several)]
    return [*several, *single]


def _draw(
    samples: Sequence[Sample], dataset: Dataset, sources: Sources, network: Network, out: Path, ctx: Context
) -> Path:
    """Write a PNG with a row per training image; predictions are ms+flip."""
    labels = {name: mask for name, mask, _ in predict_each(network, samples, ctx, ms_flip=True)}
    examples = [example(sample, dataset, sources, labels.get(sample.id)) for sample in samples]
    write_picture(out, examples_sheet(examples, dataset))
    return out
