"""Rows of the results table from finished training runs. Nothing here loads torch."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

from wsss_cli.config.evaluation import EvalConfig
from wsss_cli.config.load import load_preset
from wsss_cli.config.schema import Preset
from wsss_cli.data.dataset import not_a_result, open_dataset
from wsss_cli.engine.pointers import find_checkpoint
from wsss_cli.engine.records import Inputs, find_runs, limit_of, read_inputs, read_run
from wsss_cli.engine.rundir import read_metrics
from wsss_cli.errors import DataError, UsageError
from wsss_cli.files import read_json
from wsss_cli.scoring.stored import read_measured, read_scores
from wsss_cli.talk import shell_word, silent


def run_row(run: Path) -> dict[str, Any]:
    """What the table says of a finished training run; None where it was not measured.

    Returns:
        `run, method, backbone, crop, iters, supervision, teacher, data, memory_gib, fps, device, miou, miou_ms_flip`
        and, with the same number of iterations, `reference` (the figures of the preset); `protocol`, lines.
    Raises:
        UsageError: no finished training run.
    """
    record = read_run(run, "train")
    preset = load_preset(str(run / "preset.lock.toml"), say=silent)  # a table of many old runs
    scores = read_scores(run)
    bench = read_measured(run / "bench.json", "fps", "train_memory_gib")
    inputs = read_inputs(run)
    memory = [row["memory_gib"] for row in read_metrics(run) if "memory_gib" in row]
    return {
        "run": str(run),
        "method": preset.train.head.title,
        "backbone": backbone_name(preset),
        "crop": preset.train.crop,
        "iters": record.ended_early or preset.train.iters,
        "supervision": preset.train.supervision,
        "teacher": inputs.teacher,
        "data": Path(scores.get("dataset") or inputs.dataset).name,
        "memory_gib": max(memory) if memory else bench.get("train_memory_gib"),
        "fps": bench.get("fps"),
        "device": bench.get("device") or record.device,
        "miou": scores.get("single", {}).get("miou"),
        "miou_ms_flip": scores.get("ms_flip", {}).get("miou"),
        "reference": _reference(preset),
        "protocol": [
            *([not_a_result(inputs.limit)] if inputs.limit and not scores.get("protocol") else []),
            *(scores.get("protocol") or [_not_scored(run, preset, inputs)]),
            *([] if bench else [f"fps not measured yet: wsss bench model {shell_word(run)}"]),
        ],
    }


def _not_scored(run: Path, preset: Preset, inputs: Inputs) -> str:
    """Why a training has no scores."""
    with contextlib.suppress(DataError):  # wsss eval says what is wrong with the data set
        if not open_dataset(inputs.dataset, silent).has_masks(preset.dataset.val):
            return f"not scored: the data set has no masks in a split {preset.dataset.val}; see {run / 'report.html'}"
    return f"not scored yet: wsss eval {shell_word(run)} --ms-flip"


def finished_eval(
    run: Path, *, ms_flip: bool, config: EvalConfig | None = None, moved: str = ""
) -> dict[str, Any] | None:
    """The run's eval.json where it has what is asked for, on its val split, of the latest checkpoint.

    Args:
        config: how it is to be scored; None: as the preset says that the run was made with.
        moved: where its data set lies now; empty: where its record says.
    """
    checkpoint = find_checkpoint(run / "checkpoints")
    if checkpoint is None or not (run / "eval.json").is_file():
        return None
    preset = load_preset(str(run / "preset.lock.toml"), say=silent)
    inputs = read_inputs(run)
    current = {
        "checkpoint": "latest",
        "step": read_json(checkpoint / "meta.json").get("step"),
        "split": preset.dataset.val,
        "eval": (config or preset.eval).model_dump(mode="json"),
        "lost": [],
    }
    stored = read_scores(run)
    if preset.train.ema:
        current["weights"] = "ema"
    if (trained_with := inputs.split_sha256.get(preset.dataset.val)) and "split_sha256" in stored:
        current["split_sha256"] = trained_with  # scores on a list that was changed, and is as before again, are none
    fits = (
        stored.get("dataset") in (inputs.dataset, moved)
        and ("ms_flip" if ms_flip else "single") in stored
        and current.items() <= stored.items()
    )
    return stored if fits else None


def backbone_name(preset: Preset) -> str:
    """'R-50-D8' for a ResNet-50 with output stride 8; another backbone by its own name."""
    backbone = preset.train.backbone
    resnet = re.fullmatch(r"resnet(\d+)[a-d]?", backbone.name)
    return f"{f'R-{resnet[1]}' if resnet else backbone.name}-D{backbone.output_stride}"


def _reference(preset: Preset) -> dict[str, Any] | None:
    """Published figures of the recipe at this preset's number of iterations."""
    rows = [row for row in preset.reference if row.iters == preset.train.iters]
    return rows[0].model_dump() if rows else None


def newest_run(runs: Path, stage: str = "train") -> Path:
    """The newest finished run of a stage that was made without a limit.

    Raises:
        UsageError: there is none.
    """
    for path, record in find_runs(runs, stage):
        if record.state == "done" and not limit_of(path):
            return path
    raise UsageError(
        f"no finished {stage} run in {runs} (those with a limit do not count)",
        f"run `wsss {stage} --preset NAME` first, or name a run",
    )


def find_rows(runs: list[Path], folder: Path) -> list[dict[str, Any]]:
    """Rows of the runs given, or of every finished training run in `folder`, oldest first.

    Raises:
        UsageError: there is none, or a run that is given is not a finished training.
    """
    if runs:
        return [run_row(run) for run in runs]
    done = [path for path, record in find_runs(folder, "train") if record.state == "done" and not limit_of(path)]
    if not done:
        raise UsageError(
            f"no finished train run in {folder} (those with a limit do not count)",
            "run `wsss train --preset NAME` first, or name runs",
        )
    return [run_row(path) for path in reversed(done)]
