"""`--gpus 2` on a CPU: two processes train as one does, stop together and fail together."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from command import PATIENCE, halt_rank, start, wsss

SMALL = [
    "--preset=toy", "--data=data/toy", "--set=train.supervision=full", "--set=train.batch=5", "--set=train.crop=32",
    "--set=train.augment.base_short=64", "--set=train.augment.base_long=128", "--set=train.log_interval=1",
    "--set=train.precision=fp32", "--set=train.val_interval=0", "--set=train.data_workers=0",
    "--set=train.head.aspp_channels=16", "--set=train.backbone.weights=none", "--set=train.checkpoint_interval=1000",
    '--set=train.optim={kind="sgd",lr=0.01}',
]  # fmt: skip
LONG = [*SMALL, "--iters=5000"]
FEW = [*SMALL, "--iters=12", "--set=train.ema=0.9"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    assert wsss(folder, "prepare", "toy", "--images=12", "--val=4", "--size=64").returncode == 0
    return folder


def end_of(run):
    checkpoint = run / "checkpoints" / (run / "checkpoints" / "latest").read_text().strip()
    state = safetensors.numpy.load_file(checkpoint / "model.safetensors")
    if (average := checkpoint / "ema.safetensors").is_file():
        state |= {f"average of {key}": value for key, value in safetensors.numpy.load_file(average).items()}
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return state, [row["loss"] for row in rows if row["kind"] == "train"]


def the_run(folder, runs):
    (run,) = (folder / runs).glob("train-*")
    return run


def rows_in(runs):
    return sum(len(file.read_text().splitlines()) for file in runs.glob("train-*/metrics.jsonl"))


def children(pid):
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def rank_of(pid):
    return next(entry for entry in Path(f"/proc/{pid}/environ").read_text().split("\0") if entry.startswith("RANK="))


def is_alive(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


@contextlib.contextmanager
def started(folder, runs, *arguments, gpus=2, **more):
    """A training that has done a step: (its process, the process ids of its ranks)."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = start(folder, "train", *arguments, f"--gpus={gpus}", f"--runs={runs}", **pipes, **more)
    try:
        end, before = time.monotonic() + PATIENCE, rows_in(folder / runs)
        while rows_in(folder / runs) <= before:
            assert process.poll() is None, process.stdout.read()
            assert time.monotonic() < end
            time.sleep(0.1)
        ranks = sorted(children(process.pid), key=rank_of) if gpus > 1 else []
        assert gpus == 1 or len(ranks) == gpus
        yield process, ranks
    finally:
        for pid in children(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.kill()
        process.wait()


def said_at_the_end(process, ranks):
    said, _ = process.communicate(timeout=PATIENCE)
    print(said)
    assert not any(map(is_alive, ranks))
    assert "Traceback" not in said
    return said


def test_two_ranks_end_where_one_does_and_may_take_turns(folder):
    assert wsss(folder, "train", *FEW, "--runs=one").returncode == 0
    done = wsss(folder, "train", *FEW, "--runs=two", "--gpus=2", OMP_NUM_THREADS="1")
    assert done.returncode == 0 and "UserWarning" not in done.stderr
    for gpus in (2, 1):
        with started(folder, "turns", *FEW, gpus=gpus) as (process, _):
            process.terminate()
            assert process.wait(PATIENCE) == 75
    assert wsss(folder, "train", *FEW, "--runs=turns", "--gpus=2", OMP_NUM_THREADS="1").returncode == 0
    state, losses = end_of(the_run(folder, "one"))
    for runs in ("two", "turns"):
        other, other_losses = end_of(the_run(folder, runs))
        np.testing.assert_allclose(other_losses, losses, rtol=2e-4)
        assert other.keys() == state.keys()
        for key, tensor in state.items():
            np.testing.assert_allclose(other[key], tensor, rtol=5e-3, atol=5e-4, err_msg=key)


def test_views_of_two_ranks_are_those_of_one(folder):
    """Crops are mixed with those of the other rank, too."""
    labels = ("prepare", "labels", "data/toy", "--split=train", "--draw=scribbles")
    assert wsss(folder, *labels).returncode == 0
    consistency = "--set=train.noise.consistency={threshold=0.3,cutmix=1.0}"
    views = [*SMALL, "--iters=4", "--set=train.ema=0.9", "--set=train.supervision=partial", consistency]
    assert wsss(folder, "train", *views, "--runs=views-one").returncode == 0
    assert wsss(folder, "train", *views, "--runs=views-two", "--gpus=2", OMP_NUM_THREADS="1").returncode == 0
    (state, losses), (other, other_losses) = (end_of(the_run(folder, runs)) for runs in ("views-one", "views-two"))
    np.testing.assert_allclose(other_losses, losses, rtol=2e-4)
    for key, tensor in state.items():
        np.testing.assert_allclose(other[key], tensor, rtol=5e-3, atol=5e-4, err_msg=key)
    rows = [json.loads(line) for line in (the_run(folder, "views-two") / "metrics.jsonl").read_text().splitlines()]
    assert all(row["loss_consistency"] > 0 for row in rows)


@pytest.mark.parametrize("who", ["rank 1", "all"])
def test_a_signal_to_any_rank_ends_all_with_one_checkpoint_and_others_go_on(folder, who):
    runs = f"stopped {who}"
    with started(folder, runs, *LONG) as (process, ranks):
        os.kill(ranks[1] if who == "rank 1" else process.pid, signal.SIGUSR1)
        said = said_at_the_end(process, ranks)
    assert process.returncode == 75
    assert said.count("error: ") == 1 and "SIGUSR1" in said
    run = the_run(folder, runs)
    record = json.loads((run / "run.json").read_text())
    assert record["state"] == "preempted"
    steps = int((run / "checkpoints" / "latest").read_text().split("-")[1])
    again = wsss(folder, "train", *LONG, f"--runs={runs}", "--set=rounds=1", "--dry-run")
    assert again.returncode == 0
    assert 0 < steps < 5000


def test_a_rank_that_is_killed_ends_all_and_is_named(folder):
    with started(folder, "killed", *LONG) as (process, ranks):
        os.kill(ranks[1], signal.SIGKILL)
        begin = time.monotonic()
        said = said_at_the_end(process, ranks)
    assert process.returncode == 3
    assert "rank 1" in said and "SIGKILL" in said
    assert time.monotonic() - begin < PATIENCE / 2


def test_a_rank_that_hangs_is_named(folder):
    with started(folder, "hung", *LONG, WSSS_RANK_TIMEOUT="4") as (process, ranks):
        halt_rank(1)
        begin = time.monotonic()
        said = said_at_the_end(process, ranks)
        assert time.monotonic() - begin < 4 + 30  # torch's agent alone waits half a minute more for the rank to end
    assert process.returncode == 3
    assert "rank 1 of 2" in said and "has not answered for 4 s" in said


def test_what_ends_a_rank_is_said_and_ends_the_others(folder):
    shutil.copytree(folder / "data" / "toy", folder / "data" / "torn")
    for image in (folder / "data" / "torn" / "JPEGImages").iterdir():
        image.write_bytes(b"torn")
    torn = [word.replace("data/toy", "data/torn") for word in FEW]
    done = wsss(folder, "train", *torn, "--runs=broken", "--gpus=2", OMP_NUM_THREADS="1")
    assert done.returncode == 3
    assert 1 <= done.stderr.count("cannot be read") <= 2  # by the rank, and by the first one
    assert "Traceback" not in done.stderr


def test_more_ranks_than_images_are_refused(folder):
    done = wsss(folder, "train", *FEW, "--runs=many", "--set=train.batch=2", "--gpus=3", OMP_NUM_THREADS="1")
    assert done.returncode == 2
    assert "2 images at a time for 3 ranks" in done.stderr
