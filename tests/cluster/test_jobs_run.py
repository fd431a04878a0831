"""Jobs that run, on generated data: those of `wsss submit`, here and under Slurm, and the scripts of the page on Slurm.

The scripts are as they stand there; Slurm's commands are stand-ins.
"""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command import environment, executable, wsss
from slurm import Cluster

from wsss_cli.cli.app import app
from wsss_cli.data.sources.toy import prepare_toy
from wsss_cli.engine.records import find_runs
from wsss_cli.engine.rundir import read_metrics
from wsss_cli.files import read_json
from wsss_cli.stages import task_work

PAGE = Path(__file__).resolve().parents[2] / "docs/how-to/slurm.md"
EXPERIMENT = """
extends = "toy"
dataset = { path = "data/toy" }
classifier = { iters = 2, batch = 2, crop = 64, data_workers = 0, precision = "fp32" }
cam = { scales = [1.0] }
pseudo = { workers = 1 }
train = { iters = 12, batch = 2, crop = 64, data_workers = 0, precision = "fp32", log_interval = 1 }
eval = { scales = [1.0] }
"""
ALL = ("classifier", "cam", "pseudo", "train", "eval")


@pytest.fixture
def folder(tmp_path):
    prepare_toy(tmp_path / "data/toy", images=6, val=2, seed=0, size=64)
    (tmp_path / "experiment.toml").write_text(EXPERIMENT)
    return tmp_path


@pytest.fixture
def cluster(folder):
    for name, text in scripts(PAGE).items():
        (folder / name).write_text(text)
    cluster = Cluster(folder)
    executable(cluster.bin)
    return cluster


def scripts(page):
    """{file name: text} of the blocks of a page that have one."""
    blocks = re.findall(r"^`(\w+\.sh)`.*:\n\n((?:    .*\n|\n)+)", page.read_text(), re.MULTILINE)
    return {name: re.sub("^    ", "", block, flags=re.MULTILINE) for name, block in blocks}


def submit_all(folder, cluster):
    done = subprocess.run(
        ["bash", "submit.sh"],
        cwd=folder,
        env=environment(folder, **cluster.variables()),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def said(folder):
    return "\n".join(f"{file.name}: {file.read_text()}" for file in sorted(folder.rglob("*.out")))


def exits(folder, stage):
    ((_, record),) = find_runs(folder / "runs", stage)
    return [attempt.exit for attempt in record.attempts]


# -- the page ----------------------------------------------------------------------------------------------------------


def test_scripts_make_scores_of_tags_and_a_preempted_training_is_queued_again(folder, cluster):
    assert "eval PENDING" in submit_all(folder, cluster)
    stopped = []

    def preempt(job, batch):
        begun = [run for run, _ in find_runs(folder / "runs", "train") if read_metrics(run)]
        if job["name"] == "train" and begun and not stopped:
            stopped.append(job["id"])
            cluster.signal_before_the_end(job, batch)

    cluster.run(preempt)
    assert cluster.states() == dict.fromkeys(ALL, "COMPLETED"), said(folder)
    jobs = cluster.jobs()
    assert [jobs[number]["name"] for number in cluster.log] == [
        *("classifier", "cam", "cam", "pseudo", "pseudo", "train", "train", "eval")
    ]
    assert exits(folder, "train") == [75, 0]
    ((run, _),) = find_runs(folder / "runs", "train")
    assert [row["step"] for row in read_metrics(run)] == list(range(1, 13))
    assert "ms_flip" in read_json(run / "eval.json")
    ((cams, _),) = find_runs(folder / "runs", "cam")
    assert sorted(file.name for file in (cams / "shards").glob("*.json")) == ["1-of-2.json", "2-of-2.json"]


def test_what_waits_for_a_script_that_failed_is_cancelled(folder, cluster):
    (folder / "experiment.toml").write_text(EXPERIMENT.replace("iters = 2", "iters = 0"))
    submit_all(folder, cluster)
    cluster.run()
    assert cluster.states() == dict.fromkeys(ALL, "CANCELLED") | {"classifier": "FAILED"}
    assert not (folder / "runs").exists()


# -- here --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def here(folder, monkeypatch, capfd):
    """Runs `wsss submit --local -- run ...` in the folder: exit code, JSON."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(task_work, "WSSS", (str(executable(folder)),))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def here(*options):
        command = ["submit", "--local", "--json", "--shards=2", "--", "run", "--preset=experiment.toml", *options]
        code = app(command, standalone_mode=False)
        return code or 0, json.loads(capfd.readouterr().out)

    return here


def states(result):
    return {job["name"]: job["state"] for job in result["jobs"]}


def test_tags_become_scores_in_one_line_here(folder, here):
    code, result = here()
    assert (code, states(result)) == (0, dict.fromkeys(ALL, "done"))
    assert "ms_flip" in read_json(folder / result["jobs"][-1]["run"] / "eval.json")
    assert here() == (0, {"jobs": []})


def test_what_needs_a_job_that_failed_here_is_not_begun_and_what_was_stopped_goes_on(folder, here, monkeypatch):
    started = []

    def start(task, **more):
        started.append(task.arguments)
        codes = {1: "kill -USR1 $$", 2: "exit 3"}  # a task that is preempted once and one that fails
        script = f"trap 'exit 75' USR1; {codes[len(started)]}; sleep 1"
        return subprocess.Popen(["sh", "-c", script])

    monkeypatch.setattr(task_work, "start", start)
    code, result = here()
    assert (code, states(result)) == (
        3,
        {"classifier": "failed with exit code 3"} | dict.fromkeys(ALL[1:], "not begun"),
    )
    assert started[0] == started[1]
    assert started[0][-2:] == ("--until", "classifier")


# -- Slurm, by submitit ------------------------------------------------------------------------------------------------


def test_a_submitted_training_that_is_preempted_is_queued_again_and_what_follows_runs(folder, cluster, monkeypatch):
    pytest.importorskip("submitit")
    (folder / "experiment.toml").write_text(EXPERIMENT.replace("iters = 2", "iters = 40"))  # seconds, to be heard in
    more = {**cluster.variables(), "OMP_NUM_THREADS": "1"}
    shim = folder / "shim"
    shim.mkdir()
    (shim / "sitecustomize.py").write_text(  # commands of jobs start at once
        "import os\nif 'SLURM_STANDIN' in os.environ:\n"
        "    from wsss_cli.stages import task_work\n    task_work.WSSS = ('wsss',)\n"
    )
    more["PYTHONPATH"] = os.pathsep.join([str(shim), *filter(None, sys.path)])
    options = ["--gpus=0", "--shards=2", "--partition=gpu", "--extra=exclusive"]
    run = ["--", "run", "--preset=experiment.toml", "--until=cam"]
    dry = wsss(folder, "submit", *options, "--dry-run", *run, **more)
    done = wsss(folder, "submit", *options, "--json", *run, **more)
    assert done.returncode == 0, done.stderr
    jobs = json.loads(done.stdout)["jobs"]
    assert [job["name"] for job in jobs] == ["classifier", "cam"]
    for job in jobs:  # what a dry run prints is what is submitted
        text = (folder / "runs/submit" / f"{job['id']}_submission.sh").resolve().read_text()
        shown = dry.stdout.partition(f"# {job['name']}\n")[2].partition("srun")[0].splitlines()[1:]
        shown = [line.replace("<classifier>", jobs[0]["id"]) for line in shown]
        assert [line for line in shown if f"{line}\n" not in text.replace("%2\n", "\n")] == []
    stopped = []

    def preempt(job, batch):
        begun = [run for run, _ in find_runs(folder / "runs", "classifier")]
        if job["name"] == "wsss-classifier" and begun and not stopped:
            stopped.append(job["id"])
            cluster.signal_before_the_end(job, batch)

    cluster.run(preempt)
    assert cluster.states() == {"wsss-classifier": "COMPLETED", "wsss-cam": "COMPLETED"}, said(folder)
    assert exits(folder, "classifier") == [75, 0]
    assert [job["restarts"] for job in cluster.jobs().values()] == [1, 0, 0]
    assert Path(jobs[0]["log"]).is_file()


def test_a_cancelled_job_is_not_queued_again(monkeypatch, tmp_path):
    queued = []
    monkeypatch.setattr(task_work, "requeue", lambda: queued.append("again"))
    monkeypatch.setattr(task_work, "WSSS", ("sh", "-c"))
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        for name, expected in (("TERM", []), ("USR1", ["again"])):
            script = f"trap 'exit 75' {name}; kill -{name} $PPID; while :; do sleep 0.05; done"
            task = task_work.Task((script,), "train", tmp_path)
            with pytest.raises(SystemExit, match="75"):
                task_work.Work(task, tmp_path)()
            assert queued == expected
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
