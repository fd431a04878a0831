"""Shards of an evaluation that start at the same moment, as tasks of an array, one of which is killed at work."""

import json
import os
import signal
import time

import pytest
from command import GRACE_S, PATIENCE, start, wsss

from wsss_cli.data.sources.toy import prepare_toy

SMALL = ("iters=1", "batch=2", "crop=32", "data_workers=0", "precision='fp32'", "val_interval=0")
SMALL += (
    "backbone={name='resnet10t',weights='none',output_stride=32}",
    "head={kind='fcn',channels=8}",
    "aux.weight=0.0",
)
TRAIN = ("train", "--preset=toy", "--data=toy", "--device=cpu", "--set=train.supervision=full")
TRAIN += tuple(f"--set=train.{setting}" for setting in SMALL)


def array_task(number, of):
    values = {"ID": number, "COUNT": of, "MIN": 1, "MAX": of}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


def scores_in(run):
    scores = json.loads((run / "eval.json").read_text())
    return {key: value for key, value in scores.items() if key not in ("run", "file")}


@pytest.fixture
def run(tmp_path):
    prepare_toy(tmp_path / "toy", images=4, val=160, seed=0, size=64)
    assert wsss(tmp_path, *TRAIN, OMP_NUM_THREADS="1").returncode == 0
    return next((tmp_path / "runs").glob("train-*"))


def test_a_killed_shard_beside_another_one(tmp_path, run):
    score = ("eval", run, "--device=cpu")
    assert wsss(tmp_path, *score, OMP_NUM_THREADS="1").returncode == 0
    whole, areas = scores_in(run), (run / "eval.images.npz").read_bytes()
    (run / "eval.json").unlink()
    (run / "eval.images.npz").unlink()
    first, second = (start(tmp_path, *score, "--shard=array", **array_task(number, 2)) for number in (1, 2))
    with first, second:
        until = time.monotonic() + GRACE_S + PATIENCE
        while not list(run.glob("eval/*/shards/2-of-2.json")):  # it works
            assert time.monotonic() < until
            time.sleep(0.005)
        os.killpg(second.pid, signal.SIGKILL)
        said = first.communicate(timeout=PATIENCE)[1]
        second.communicate(timeout=PATIENCE)
    assert first.returncode == 0, said
    assert "1 of 2 shards are done; missing 2" in said
    shown = wsss(tmp_path, "runs", "show", run).stdout
    assert "eval shard 2/2" in shown and "killed" in shown
    again = wsss(tmp_path, *score, "--shard=array", OMP_NUM_THREADS="1", **array_task(2, 2))
    assert again.returncode == 0
    assert f"done: {run / 'eval.json'}" in again.stderr
    assert (scores_in(run), (run / "eval.images.npz").read_bytes()) == (whole, areas)
    assert not list(run.rglob("*.part")) and not (run / "eval").exists()
