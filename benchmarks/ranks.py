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

import cv2
import numpy as np

FOLDERS = (("cam", "cams"), ("pseudo", "masks"))
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
    if arguments[1:2] == ["--one"]:
        print(json.dumps(measured(work, int(arguments[2]))))
        return
    if not (work / "data").is_dir():
        wsss(work, "prepare", "toy", "--images", "96", "--val", "48", "--out", "data")
    for ranks in (1, 2):
        file = work / f"{ranks}.json"
        if not file.is_file():  # in a process of its own, whose children's memory is that of this measurement
            command = [sys.executable, __file__, str(work), "--one", str(ranks)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            file.write_text(done.stdout.splitlines()[-1])
    one, two = (json.loads((work / f"{ranks}.json").read_text()) for ranks in (1, 2))
    print(f"{'':12}  one process  two processes")
    for key in one:
        print(f"{key:12}  {one[key]:11.2f}  {two[key]:13.2f}")
    for line in agreement(work):
        print(line)


def measured(work: Path, ranks: int) -> dict[str, float]:
    """Seconds by step and of both commands, and the memory of the largest process, MiB."""
    common = ["--preset", "toy", "--data", "data", "--runs", f"runs-{ranks}", "--gpus", str(ranks), "--device", "cpu"]
    common += [part for setting in SETTINGS for part in ("--set", setting)]
    begin = time.perf_counter()
    wsss(work, "pseudo", *common)
    wsss(work, "train", *common, "--set", "train.supervision=full")
    row = {step: seconds(run_of(work, ranks, step)) for step in STEPS}
    row["all"] = time.perf_counter() - begin
    row["MiB"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return row


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
    cams, masks = ([run_of(work, ranks, step) / folder for ranks in (1, 2)] for step, folder in FOLDERS)
    names = sorted(file.relative_to(cams[0]) for file in cams[0].rglob("*.npz"))
    gaps = [np.abs(cam_of(cams[0] / name) - cam_of(cams[1] / name)) for name in names]
    lines = [
        f"CAMs: {np.mean([gap.mean() for gap in gaps]):.4f} apart on average, "
        f"{max(gap.max() for gap in gaps):.4f} at most"
    ]
    names = sorted(file.relative_to(masks[0]) for file in masks[0].rglob("*.png"))
    same = [np.mean(cv2.imread(str(masks[0] / name), -1) == cv2.imread(str(masks[1] / name), -1)) for name in names]
    lines.append(f"pseudo masks: {100 * np.mean(same):.2f} % of the pixels are the same")
    for step in ("classifier", "train"):
        one, two = (losses(run_of(work, ranks, step)) for ranks in (1, 2))
        gap = max(abs(b - a) / a for a, b in zip(one, two, strict=True))
        lines.append(f"{step}: losses in the log {one} and {two}, {100 * gap:.2f} % apart at most")
    return lines


def cam_of(file: Path) -> np.ndarray:
    with np.load(file) as stored:
        return stored["cam"] / np.float32(255)


def losses(run: Path) -> list[float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if row["kind"] == "train"]


if __name__ == "__main__":
    main(sys.argv[1:])
