"""Shards that start at the same moment, in processes of their own, one of which is killed at work."""

import os
import signal
import time

from command import GRACE_S, PATIENCE, start, wsss

from wsss_cli.data.sources.toy import prepare_toy
from wsss_cli.engine.shards import shard_of

SETTINGS = ("iters=2", "batch=2", "crop=64", "data_workers=0", "backbone={name='resnet10t', weights='none'}")
CAM = ("cam", "--preset", "toy", "--data", "toy", "--device", "cpu", "--set", "cam.scales=[1.0,0.5]")
CAM += tuple(word for setting in SETTINGS for word in ("--set", f"classifier.{setting}"))


def cams(folder):
    return {file.name: file.read_bytes() for file in folder.glob("cam-*/cams/*.npz")}


def second_at_work(folder):
    """Waits until the second shard has made an image."""
    until = time.monotonic() + GRACE_S + PATIENCE
    while not any(shard_of(name.removesuffix(".npz"), 2) == 2 for name in cams(folder)):
        assert time.monotonic() < until
        time.sleep(0.005)


def test_a_killed_shard_beside_another_one(tmp_path):
    prepare_toy(tmp_path / "toy", images=40, val=1, seed=0, size=64)
    assert wsss(tmp_path, *CAM, "--runs", "whole", OMP_NUM_THREADS="1").returncode == 0
    first, second = (start(tmp_path, *CAM, "--runs", "parts", "--shard", f"{number}/2") for number in (1, 2))
    with first, second:
        second_at_work(tmp_path / "parts")
        os.killpg(second.pid, signal.SIGKILL)
        said = first.communicate(timeout=PATIENCE)[1]
        second.communicate(timeout=PATIENCE)
    assert first.returncode == 0, said
    run = next((tmp_path / "parts").glob("cam-*"))
    if "done" not in (run / "shards" / "2-of-2.json").read_text():  # the kill came while it worked
        assert "1 of 2 shards are done; missing 2" in said
        assert "killed" in wsss(tmp_path, "runs", "show", run).stdout
    again = wsss(tmp_path, *CAM, "--runs", "parts", "--shard", "2/2", OMP_NUM_THREADS="1")
    assert again.returncode == 0
    assert f"done: parts/{run.name}" in again.stderr
    assert cams(tmp_path / "parts") == cams(tmp_path / "whole")
    scores = [next((tmp_path / runs).glob("cam-*/eval.json")).read_bytes() for runs in ("whole", "parts")]
    assert scores[0] == scores[1]
