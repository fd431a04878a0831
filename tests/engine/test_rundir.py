import json
import os
import subprocess
import sys
import textwrap
import time

import pytest

from wsss_cli.config.load import load_preset
from wsss_cli.engine.records import Inputs
from wsss_cli.engine.rundir import open_run, read_metrics, run_path
from wsss_cli.errors import BusyError, DataError, DivergedError, Preempted, UsageError, WriteError
from wsss_cli.files import read_json

TOY = load_preset("toy")
INPUTS = Inputs(dataset="data/toy", classes=("background", "cat"), colors=((0, 0, 0), (128, 0, 0)), cam_run="runs/cam")


def opened(path, identity="abc", preset=TOY, stage="train"):
    return open_run(path, stage, preset, identity, INPUTS)


def test_a_clock_that_is_set_back_takes_no_time_from_an_attempt(tmp_path, monkeypatch):
    with opened(tmp_path / "r"):
        at = time.time()
        monkeypatch.setattr(time, "time", lambda: at - 3600)
    (attempt,) = read_json(tmp_path / "r" / "run.json")["attempts"]
    assert 0 <= attempt["end"] - attempt["start"] < 600
    assert abs(attempt["start"] - at) < 600


def test_the_path_says_stage_preset_and_identity(tmp_path):
    assert run_path(tmp_path, "cam", "toy", "0123456789ab") == tmp_path / "cam-toy-01234567"


def test_a_new_run_says_what_it_is(tmp_path):
    with opened(tmp_path / "r"):
        record = read_json(tmp_path / "r" / "run.json")
        assert (record["stage"], record["preset"], record["identity"]) == ("train", "toy", "abc")
        assert record["state"] == "running"
        assert record["attempts"][0]["pid"] == os.getpid()
        assert record["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert read_json(tmp_path / "r" / "inputs.json") == {
        "form": 1,
        "dataset": "data/toy",
        "classes": ["background", "cat"],
        "colors": [[0, 0, 0], [128, 0, 0]],
        "cam_run": "runs/cam",
    }
    assert load_preset(str(tmp_path / "r" / "preset.lock.toml")) == TOY


def test_a_finished_run_stays_finished(tmp_path):
    with opened(tmp_path) as run:
        run.finish(device="CPU", lost=[{"id": "a", "reason": "b"}])
    record = read_json(tmp_path / "run.json")
    assert (record["state"], record["device"], record["attempts"][0]["exit"]) == ("done", "CPU", 0)
    with opened(tmp_path) as run:
        assert run.done
        assert run.lost == [{"id": "a", "reason": "b"}]
    assert read_json(tmp_path / "run.json") == record


@pytest.mark.parametrize(
    ("error", "state", "code"),
    [
        (Preempted("stopped"), "preempted", 75),
        (KeyboardInterrupt(), "preempted", 130),
        (DivergedError("nan"), "failed", 5),
        (ZeroDivisionError("oops"), "failed", 1),
    ],
)
def test_an_error_that_leaves_the_body_is_recorded(tmp_path, error, state, code):
    with pytest.raises(type(error)), opened(tmp_path):
        raise error
    record = read_json(tmp_path / "run.json")
    assert record["state"] == state
    assert record["attempts"][-1]["exit"] == code
    assert record["attempts"][-1]["end"] >= record["attempts"][-1]["start"]
    log = (tmp_path / "log.txt").read_text()
    assert ("Traceback" in log) == (code in (1, 130))  # what the user can act on needs no traceback
    with opened(tmp_path) as run:
        run.finish()
    record = read_json(tmp_path / "run.json")
    assert (record["state"], len(record["attempts"])) == ("done", 2)


def test_what_workers_that_were_killed_meanwhile_left_half_written_goes_at_the_end(tmp_path):
    with opened(tmp_path / "run") as run:
        (tmp_path / "run" / ".train_000007.npz.4kl5bq6z.part").write_bytes(b"half")
        run.finish()
    assert not list((tmp_path / "run").glob(".*.part"))


def test_a_disk_that_is_full_at_the_end_does_not_hide_the_first_error(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    with pytest.raises(WriteError, match=r"a\.png"), opened(tmp_path):
        monkeypatch.setattr(os, "fsync", full)
        raise WriteError("cannot write a.png: No space left on device")


def test_a_run_in_use_by_another_process_is_busy(tmp_path):
    code = """
        import fcntl, sys
        lock = open(sys.argv[1], "a+")
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("host there, pid 42")
        lock.flush()
        print("locked", flush=True)
        sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "LOCK")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(BusyError, match="host there, pid 42") as caught, opened(tmp_path):
            pass
        assert caught.value.exit_code == 6
        assert not (tmp_path / "run.json").exists()
        other.stdin.close()
    with opened(tmp_path) as run:  # free again
        assert not run.done


def test_the_lock_is_held_and_given_back(tmp_path):
    with opened(tmp_path), pytest.raises(BusyError, match=f"pid {os.getpid()}"), opened(tmp_path):
        pass
    with opened(tmp_path):
        pass


def test_other_settings_are_refused_and_named(tmp_path):
    with opened(tmp_path):
        pass
    before = read_json(tmp_path / "run.json")
    other = load_preset("toy", ["train.iters=7"])
    with pytest.raises(UsageError, match=r"train\.iters: \d+ -> 7"), opened(tmp_path, "def", other):
        pass
    with pytest.raises(UsageError, match="data set or an earlier stage"), opened(tmp_path, "def"):
        pass
    assert read_json(tmp_path / "run.json") == before


def test_a_run_directory_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot create the run directory"), opened(tmp_path / "file" / "run"):
        pass


def test_metrics_past_a_step_are_cut_and_a_torn_line_goes(tmp_path):
    with opened(tmp_path) as run:
        assert read_metrics(tmp_path) == []
        for step in (1, 2, 3):
            run.metric({"kind": "train", "step": step, "loss": step / 2})
        with (tmp_path / "metrics.jsonl").open("a") as file:
            file.write('{"kind": "tra')
        assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3]
        run.cut_metrics(2)
        run.metric({"kind": "train", "step": 3, "loss": 9.0})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [(row["step"], row["loss"]) for row in map(json.loads, lines)] == [(1, 0.5), (2, 1.0), (3, 9.0)]


def test_a_torn_first_line_goes_too(tmp_path):
    with opened(tmp_path) as run:
        (tmp_path / "metrics.jsonl").write_text('{"kind"')
        run.cut_metrics(0)
        run.metric({"kind": "train", "step": 1})
    assert read_metrics(tmp_path) == [{"kind": "train", "step": 1}]


DAMAGED = (
    *(b"3", b"[1]", b"null", b"{}", b'{"kind": "tr\xff\xfe"}', bytes(4), b"[" * 100_000),
    *(b'{"kind": "train", "loss": 1}', b'{"kind": "train", "step": "1"}', b'{"step": 1}'),
    b'{"kind": "train", "step": 1, "loss": "x"}',
)


@pytest.mark.parametrize("line", DAMAGED)
def test_a_damaged_line_of_metrics_is_left_out(tmp_path, line):
    with opened(tmp_path) as run:
        run.metric({"kind": "train", "step": 1, "loss": 0.5})
        with (tmp_path / "metrics.jsonl").open("ab") as file:
            file.write(line + b"\n")
        run.metric({"kind": "val", "step": 2, "miou": None})
        assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2]
        run.cut_metrics(1)
        assert [row["step"] for row in read_metrics(tmp_path)] == [1]
