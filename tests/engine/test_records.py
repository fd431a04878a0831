from pathlib import Path

import pytest

from wsss_cli.engine.records import (
    Attempt,
    Inputs,
    RunRecord,
    find_runs,
    read_inputs,
    read_record,
    read_run,
    required,
    those_beside,
    write_inputs,
    write_record,
)
from wsss_cli.errors import DataError, UsageError
from wsss_cli.files import read_json, write_json

OLD = {  # as versions before `form` wrote it
    "stage": "pseudo",
    "preset": "toy",
    "identity": "abc",
    "state": "done",
    "created": 1764000000.5,
    "versions": {"python": "3.11.7"},
    "argv": ["wsss", "pseudo"],
    "attempts": [{"host": "h", "pid": 1, "start": 1764000000.5, "end": None, "exit": None}],
    "lost": [{"id": "a", "reason": "torn"}],
    "fg_threshold": 0.5,
    "bg_threshold": 0.25,
    "irn_run": "runs/irn-toy",
}
INPUTS = {"dataset": "d", "classes": ["background", "cat"], "colors": [[0, 0, 0], [1, 2, 255]], "protocol": ["p"]}


def test_a_record_from_before_forms_were_numbered_is_read_and_written_whole(tmp_path):
    write_json(tmp_path / "run.json", OLD)
    record = read_record(tmp_path)
    assert (record.form, record.stage, record.state, record.lost[0]["reason"]) == (1, "pseudo", "done", "torn")
    assert record.attempts == (Attempt(host="h", pid=1, start=1764000000.5),)
    write_record(tmp_path, record)
    assert read_json(tmp_path / "run.json") == {"form": 1, **OLD}


def test_a_change_is_a_new_record_and_checked():
    record = RunRecord(stage="cam", state="created", extra=1)
    changed = record.changed(state="running", attempts=[Attempt(host="h", pid=2, start=3.0)], lost=[], fps=1.5)
    assert (record.state, record.attempts) == ("created", ())
    assert changed.attempts == (Attempt(host="h", pid=2, start=3.0),)
    assert changed.model_extra == {"extra": 1, "fps": 1.5}
    with pytest.raises(ValueError, match="state"):
        record.changed(state="finished")


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"state": "finished"}, "state"),
        ({"stage": None}, "stage"),
        ({"created": "today"}, "created"),
        ({"attempts": [{"host": "h", "pid": "1", "start": 0.0}]}, r"attempts\.0\.pid"),
        ({"lost": [{"id": "a"}]}, r"lost\.0\.reason"),
        ({"lost": {"a": "torn"}}, "lost"),
        ({"form": 9}, r"newer version of wsss \(form 9, this one reads up to 1\)"),
    ],
)
def test_a_damaged_record_is_refused_with_file_and_key(tmp_path, change, key):
    write_json(tmp_path / "run.json", OLD | change)
    with pytest.raises(DataError, match=rf"run\.json.*{key}"):
        read_record(tmp_path)


def test_inputs_come_back(tmp_path):
    write_json(tmp_path / "inputs.json", INPUTS | {"cam_run": "runs/cam"})
    inputs = read_inputs(tmp_path)
    assert inputs.classes == ("background", "cat")
    assert inputs.colors == ((0, 0, 0), (1, 2, 255))
    assert (inputs.cam_run, inputs.pseudo_run) == ("runs/cam", None)
    write_inputs(tmp_path, Inputs(dataset="d", classes=("background",), colors=((0, 0, 0),), train_run="t"))
    assert read_inputs(tmp_path).train_run == "t"
    assert "pseudo_run" not in read_json(tmp_path / "inputs.json")


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"classes": None}, "classes"),
        ({"colors": [[0, 0, 0], [1, 2]]}, r"colors\.1\.2"),
        ({"dataset": 3}, "dataset"),
        ({"cam_run": 3}, "cam_run"),
    ],
)
def test_damaged_inputs_are_refused_with_file_and_key(tmp_path, change, key):
    write_json(tmp_path / "inputs.json", INPUTS | change)
    with pytest.raises(DataError, match=rf"inputs\.json: {key}: "):
        read_inputs(tmp_path)


def test_what_must_be_there_is_named():
    assert required(0.0, "run.json: x") == 0.0
    with pytest.raises(DataError, match=r"run\.json: x is missing"):
        required(None, "run.json: x")


@pytest.mark.parametrize(
    ("path", "command"),
    [("a b/no", "wsss runs list --runs 'a b'"), ("runs/no", "wsss runs list"), ("no", "wsss runs list"),
     ("gone/no", "wsss runs list")],
)  # fmt: skip
def test_the_hint_lists_the_runs_that_lie_beside(path, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a b").mkdir()
    assert those_beside(Path(path)) == f"{command} names those there are"


def test_a_run_that_is_named_must_be_a_finished_one_of_its_stage(tmp_path):
    with pytest.raises(UsageError, match="is no run directory"):
        read_run(tmp_path, "pseudo")
    write_json(tmp_path / "run.json", OLD)
    assert read_run(tmp_path, "pseudo").identity == "abc"
    with pytest.raises(UsageError, match="is a pseudo run; a cam run is needed here"):
        read_run(tmp_path, "cam")
    write_json(tmp_path / "run.json", OLD | {"state": "preempted"})
    with pytest.raises(UsageError, match="state: preempted"):
        read_run(tmp_path, "pseudo")


def test_runs_are_found_newest_first_and_damaged_ones_named(tmp_path):
    for created, (name, stage) in enumerate([("a", "cam"), ("b", "train"), ("c", "cam")]):
        write_json(tmp_path / name / "run.json", OLD | {"stage": stage, "created": created + 1.0})
    (tmp_path / "empty").mkdir()
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "run.json").write_text("{")
    write_json(tmp_path / "wrong" / "run.json", OLD | {"state": 3})
    said = []
    assert [path.name for path, _ in find_runs(tmp_path, say=said.append)] == ["c", "b", "a"]
    assert [line.split(":")[1].split("/")[-2] for line in said] == ["torn", "wrong"]
    assert [path.name for path, _ in find_runs(tmp_path, "cam")] == ["c", "a"]
    assert find_runs(tmp_path / "nothing") == []
