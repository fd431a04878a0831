"""One process and two on the same cores: time, memory and agreement of a whole run. See docs/benchmarks/ranks.md.

python benchmarks/ranks.py WORK

Generated images; a step's seconds are those of its run's attempts, so without the start of Python. Each run has its own
folder below WORK and is not made again.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

STEPS = ("classifier", "cam", "pseudo", "train")
SETTINGS = (
    "classifier.iters=40",
    "train.iters=40",
    "train.val_interval=40",
    "classifier.precision=fp32",
    "train.precision=fp32",
)


def main(arguments: list[str]) -> None:
    work = Path(arguments[0]).absolute()
    work.mkdir(parents=True, exist_ok=True)
    wsss(work, "prepare", "toy", "--images", "96", "--val", "48", "--out", "data")
    one, two = (measured(work, ranks) for ranks in (1, 2))
    print(f"{'':12}  one process  two processes")
    for key in one:
        print(f"{key:12}  {one[key]:11.2f}  {two[key]:13.2f}")
    for line in agreement(work):
        print(line)


def measured(work: Path, ranks: int) -> dict[str, float]:
    """Seconds by step and in all, and the memory of the largest process, MiB; of a run that is made once."""
    file = work / f"{ranks}.json"
    if not file.is_file():
        begin = time.perf_counter()
        settings = [part for setting in SETTINGS for part in ("--set", setting)]
        wsss(
            work,
            "run",
            "--preset",
            "toy",
            "--data",
            "data",
            "--runs",
            f"runs-{ranks}",
            "--gpus",
            str(ranks),
            "--device",
            "cpu",
            *settings,
        )
        row: dict[str, Any] = {step: seconds(run_of(work, ranks, step)) for step in STEPS}
        row["all"] = time.perf_counter() - begin
        row["MiB"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        file.write_text(json.dumps(row))
    stored: dict[str, float] = json.loads(file.read_text())
    return stored


def wsss(work: Path, *arguments: str) -> None:
    environment = {**os.environ, "WSSS_RANK_TIMEOUT": "600"}
    subprocess.run([sys.executable, "-m", "wsss_cli", *arguments], cwd=work, env=environment, check=True)


def run_of(work: Path, ranks: int, step: str) -> Path:
    return next((work / f"runs-{ranks}").glob(f"{step}-*"))


def seconds(run: Path) -> float:
    attempts = json.loads((run / "run.json").read_text())["attempts"]
    return sum(attempt["end"] - attempt["start"] for attempt in attempts)


def agreement(work: Path) -> list[str]:
    """How far what two processes made is from what one has made."""
    lines = []
    for step, folder in (("cam", "cams"), ("pseudo", "masks")):
        one, two = (run_of(work, ranks, step) / folder for ranks in (1, 2))
        names = sorted(file.relative_to(one) for file in one.rglob("*") if file.is_file())
        same = sum((one / name).read_bytes() == (two / name).read_bytes() for name in names)
        lines.append(f"{folder}: {same} of {len(names)} files are the same bytes")
    for step in ("classifier", "train"):
        files = [sorted(run_of(work, ranks, step).glob("checkpoints/step-*/model.safetensors"))[-1] for ranks in (1, 2)]
        one, two = (load_file(file) for file in files)
        gap = max(float(np.abs(one[key].astype(np.float64) - two[key]).max()) for key in one)
        size = max(float(np.abs(value.astype(np.float64)).max()) for value in one.values())
        lines.append(f"{step}: weights differ by {gap:.1e} at most; the largest is {size:.1f}")
    scores = [json.loads((run_of(work, ranks, "train") / "eval.json").read_text()) for ranks in (1, 2)]
    lines.append(f"mIoU, single scale: {scores[0]['single']['miou']:.4f} and {scores[1]['single']['miou']:.4f}")
    return lines


if __name__ == "__main__":
    main(sys.argv[1:])
