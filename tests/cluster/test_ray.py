"""`--engine ray` on a cluster of two workers that it starts, one of which is killed at work."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from command import GRACE_S, PATIENCE, environment, wsss

from wsss_cli.data.sources.toy import prepare_toy

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: wsss[ray]")

SETTINGS = (
    "iters=2",
    "batch=2",
    "crop=64",
    "data_workers=0",
    "precision='fp32'",
    "backbone={name='resnet10t',weights='none'}",
)
CAM = ("--preset=toy", "--data=toy", "--device=cpu", "--set=cam.scales=[1.0,0.5,2.0]", "--set=pseudo.workers=1")
CAM += tuple(f"--set=classifier.{setting}" for setting in SETTINGS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Toy images, those for training behind URLs, and CAMs and masks of them in `one`, made by one process."""
    folder = tmp_path_factory.mktemp("ray")
    prepare_toy(folder / "toy", images=40, val=1, seed=0, size=160)
    listed = folder / "toy" / "splits" / "train.csv"
    listed.write_text(listed.read_text().replace(",JPEGImages/", f",file://{folder}/toy/JPEGImages/"))
    assert wsss(folder, "pseudo", *CAM, "--runs=one", OMP_NUM_THREADS="1").returncode == 0
    trained = next((folder / "one").glob("classifier-*"))
    for runs in ("killed", "stopped"):
        shutil.copytree(trained, folder / runs / trained.name)
    return folder


def contents(runs, names=("cams", "masks", "confidence")):
    return {file.relative_to(runs): file.read_bytes() for name in names for file in runs.glob(f"*/{name}/*")}


def below(pid):
    """(process id, title) of what a process has started, and of what that has."""
    listed = subprocess.run(["ps", "-wweo", "pid=,ppid=,args="], capture_output=True, text=True).stdout
    rows = [(int(row[0]), int(row[1]), row[2]) for row in (line.split(None, 2) for line in listed.splitlines())]
    level, everything = {pid}, []
    while rows_below := [row for row in rows if row[1] in level]:
        everything += [(row[0], row[2]) for row in rows_below]
        level = {row[0] for row in rows_below}
    return everything


def alive(pids):
    states = subprocess.run(
        ["ps", "-o", "stat=", "-p", ",".join(map(str, pids))], capture_output=True, text=True
    ).stdout
    return [state for state in states.split() if not state.startswith("Z")]


def at_work(folder, runs, *command):
    """A command that has made a CAM and makes others, and its workers that are at it."""
    words = [sys.executable, "-m", "wsss_cli", *command, *CAM, f"--runs={runs}", "--engine=ray"]
    variables = environment(folder, OMP_NUM_THREADS="2")
    process = subprocess.Popen(
        words, cwd=folder, env=variables, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    until = time.monotonic() + PATIENCE
    while True:
        busy = [pid for pid, title in below(process.pid) if title.startswith("ray::Worker.do")]
        if busy and list((folder / runs).glob("cam-*/cams/*.npz")):
            return process, busy
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_worker_that_is_killed_is_started_again_and_the_files_are_those_of_one_process(folder):
    process, busy = at_work(folder, "killed", "pseudo")
    with process:
        os.kill(busy[0], signal.SIGKILL)
        _, said = process.communicate(timeout=PATIENCE)
    print(said)
    assert process.returncode == 0
    assert contents(folder / "killed") == contents(folder / "one")
    for stage in ("cam", "pseudo"):
        assert next((folder / "killed").glob(f"{stage}-*/run.json")).read_text().count('"state": "done"') == 1


def test_a_signal_to_all_processes_ends_them_with_75_and_what_is_done_stays(folder):
    process, _ = at_work(folder, "stopped", "cam")
    with process:
        started = [pid for pid, _ in below(process.pid)]
        os.killpg(process.pid, signal.SIGTERM)
        _, said = process.communicate(timeout=GRACE_S)
    print(said)
    assert process.returncode == 75
    assert said.count("error: ") == 1 and "Traceback" not in said
    assert alive(started) == []
    run = next((folder / "stopped").glob("cam-*"))
    before = {file: file.stat().st_mtime_ns for file in (run / "cams").glob("*.npz")}
    assert wsss(folder, "cam", *CAM, "--runs=stopped", OMP_NUM_THREADS="1").returncode == 0
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert contents(folder / "stopped", ["cams"]) == contents(folder / "one", ["cams"])


def test_a_cluster_that_does_not_answer_is_named(folder):
    done = wsss(folder, "cam", *CAM, "--runs=none", "--engine=ray", "--address=127.0.0.1:9")
    assert done.returncode == 3
    assert "no Ray cluster answers at 127.0.0.1:9" in done.stderr
    assert done.stderr.count("error: ") == 1
