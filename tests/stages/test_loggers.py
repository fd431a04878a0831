"""Logs sent on: each step once, by a process whose faults no training meets. A stand-in takes the place of wandb."""

import json
import os
import shutil
import sys
import time
from pathlib import Path

import pytest
from command import ROOT

from wsss_cli.engine import loggers
from wsss_cli.engine.loggers import check_loggers, scalars, send, sending
from wsss_cli.errors import BusyError, DataError, ResourceError, UsageError
from wsss_cli.locks import locked

STAND_IN = """
import json, os, pathlib, time
class Run:
    id = "abc"
    def log(self, values, step):
        {log}
        with open(pathlib.Path(os.environ["TAKEN"]), "a") as file:
            file.write(json.dumps([step, values]) + "\\n")
    def finish(self):
        pass
def init(**options):
    with open(pathlib.Path(os.environ["TAKEN"] + ".init"), "a") as file:
        file.write(json.dumps([options["name"], options["id"], options["config"]["seed"]]) + "\\n")
    return Run()
"""


@pytest.fixture
def run(home, tmp_path, monkeypatch):
    """A copy of a training's run, and a `wandb` that writes what it takes into a file."""
    shutil.copytree(home / "runs/train-toy-3", tmp_path / "train-toy-3")
    monkeypatch.setenv("TAKEN", str(tmp_path / "taken"))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'packages'}:{ROOT}")
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    stand_in(tmp_path)
    return tmp_path / "train-toy-3"


def stand_in(folder, log="pass"):
    (folder / "packages").mkdir(exist_ok=True)
    sys.modules.pop("wandb", None)
    (folder / "packages/wandb.py").write_text(STAND_IN.replace("{log}", log))


def taken():
    file = Path(os.environ["TAKEN"])
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def test_each_step_is_sent_once_and_the_same_run_is_gone_on_with(run):
    assert send(run, "wandb", {"seed": 7}) == 6
    assert [step for step, _ in taken()] == [1, 2, 3, 4, 5, 5]
    assert taken()[0][1] == {"train/loss": 1.0, "train/memory_gib": 2.5} and taken()[5][1] == {"val/miou": 44.5}
    assert send(run, "wandb", {"seed": 7}) == 0
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "step": 6, "loss": 0.5}\n{"kind": "train", "st')  # and one that is being written
    assert send(run, "wandb", {"seed": 7}) == 1 and taken()[-1] == [6, {"train/loss": 0.5}]
    begun = [json.loads(line) for line in Path(os.environ["TAKEN"] + ".init").read_text().splitlines()]
    assert begun == [["train-toy-3", None, 7], ["train-toy-3", "abc", 7]]


def test_what_is_no_number_is_no_scalar():
    assert scalars({"kind": "val", "step": 3, "miou": None, "best": True, "text": "x"}) == {"val/best": 1.0}


def test_a_logger_follows_a_training_to_its_end(run, tmp_path):
    said = []
    (run / "metrics.jsonl").rename(tmp_path / "all")
    rows = (tmp_path / "all").read_text().splitlines(keepends=True)
    with locked(run / "LOCK", "in use"), sending(run, ["wandb"], said.append):
        for row in rows[:3]:
            with (run / "metrics.jsonl").open("a") as file:
                file.write(row)
        until = time.monotonic() + 120
        while len(taken()) < 3 and time.monotonic() < until:
            time.sleep(0.1)
        with (run / "metrics.jsonl").open("a") as file:
            file.write("".join(rows[3:]))
    assert not said and [step for step, _ in taken()] == [1, 2, 3, 4, 5, 5]


@pytest.mark.parametrize(
    ("log", "words"),
    [("time.sleep(1000)", "has not taken all"), ("raise OSError('no route')", "wandb: OSError: no route")],
)
def test_a_logger_that_hangs_or_fails_costs_seconds(run, tmp_path, monkeypatch, log, words):
    stand_in(tmp_path, log)
    monkeypatch.setattr(loggers, "PATIENCE_S", 1.0)
    said = []
    with sending(run, ["wandb"], said.append):
        until = time.monotonic() + 120
        while not Path(os.environ["TAKEN"] + ".init").exists() and time.monotonic() < until:
            time.sleep(0.1)
        time.sleep(1.0)
        begin = time.monotonic()
    assert time.monotonic() - begin < 30 and any(words in line for line in said)
    assert said[-1].endswith(f"wsss runs log {run} --to wandb")
    stand_in(tmp_path)
    assert send(run, "wandb", {"seed": 7}) == 6  # all is sent later; the lock is free


def test_faults_of_a_logger_are_one_line(run, tmp_path):
    stand_in(tmp_path, "raise OSError('no\\nroute')")
    with pytest.raises(ResourceError, match="wandb: OSError: no route"):
        send(run, "wandb", {"seed": 7})


def test_two_do_not_send_at_once(run):
    (run / "loggers").mkdir()
    with locked(run / "loggers/wandb.lock", ""), pytest.raises(BusyError, match="being sent to wandb"):
        send(run, "wandb", {"seed": 7})


def test_what_was_sent_is_no_guess(run):
    (run / "loggers").mkdir()
    (run / "loggers/wandb.json").write_text("[]")
    with pytest.raises(DataError, match=r"wandb\.json is damaged"):
        send(run, "wandb", {"seed": 7})


def test_loggers_that_are_not_there_are_refused_before_any_work(monkeypatch):
    monkeypatch.setitem(loggers.LOGGERS, "mlflow", "no_such_package")
    with pytest.raises(UsageError, match="mlflow: it is not installed") as error:
        check_loggers(["mlflow"])
    assert "wsss[mlflow]" in error.value.hint
    with pytest.raises(UsageError, match="no logger 'comet'"):
        check_loggers(["comet"])
