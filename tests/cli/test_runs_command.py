import json

import pytest

from wsss_cli.config.load import load_preset
from wsss_cli.engine.records import Inputs
from wsss_cli.engine.rundir import open_run
from wsss_cli.errors import DivergedError
from wsss_cli.files import write_json

INPUTS = Inputs(dataset="d", classes=(), colors=())
SCORES = {
    "cam": {"best": {"miou": 51.25}},
    "pseudo": {"background": {"miou": 60.5}, "drop": {"miou": 70.0}},
    "train": {"single": {"miou": 66.0}, "ms_flip": {"miou": None}},
}


@pytest.fixture
def runs(tmp_path):
    for stage, scores in SCORES.items():
        path = tmp_path / "runs" / f"{stage}-toy-0"
        with open_run(path, stage, load_preset("toy"), "abc", INPUTS) as run:
            write_json(path / "eval.json", scores)
            run.finish(lost=[{"id": "x", "reason": "y"}])
    with (
        pytest.raises(DivergedError),
        open_run(tmp_path / "runs" / "train-toy-1", "train", load_preset("toy"), "d", INPUTS),
    ):
        raise DivergedError("nan")
    return tmp_path / "runs"


def test_list_shows_state_and_scores(wsss, runs):
    done = wsss("runs", "list")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[2:6]] == [
        f"runs/{name}" for name in ("train-toy-1", "train-toy-0", "pseudo-toy-0", "cam-toy-0")
    ]
    assert "failed" in lines[2]
    assert lines[3].endswith("66.00 / -")
    assert lines[4].endswith("60.50")
    assert lines[5].endswith("51.25")


def test_list_as_json(wsss, runs):
    found = json.loads(wsss("runs", "list", "--json", "--runs", str(runs)).stdout)["runs"]
    assert [run["state"] for run in found] == ["failed", "done", "done", "done"]
    assert found[1]["scores"] == {"mIoU, single scale": 66.0, "mIoU, ms+flip": None}
    assert found[0]["scores"] == {}


def test_list_of_nothing_says_what_to_do(wsss):
    done = wsss("runs", "list")
    assert (done.returncode, done.stdout) == (0, "")
    assert "no runs in runs" in done.stderr
    assert json.loads(wsss("runs", "list", "--json").stdout) == {"runs": []}


def test_show_takes_a_path_or_a_name(wsss, runs):
    by_path, by_name = wsss("runs", "show", "runs/train-toy-1"), wsss("runs", "show", "train-toy-1")
    assert by_path.returncode == by_name.returncode == 0
    assert by_path.stdout == by_name.stdout
    assert "exit 5" in by_path.stdout
    assert "failed" in by_path.stdout


def test_show_as_json_has_the_record_and_the_scores(wsss, runs):
    record = json.loads(wsss("runs", "show", "pseudo-toy-0", "--json").stdout)
    assert (record["stage"], record["state"], record["identity"]) == ("pseudo", "done", "abc")
    assert record["scores"] == {"pseudo mask mIoU, 255 as background": 60.5}
    assert record["lost"] == [{"id": "x", "reason": "y"}]


@pytest.mark.parametrize("damage", ["{", "[]", '{"single": 3}', '{"single": {}}'])
def test_damaged_scores_are_left_out(wsss, runs, damage):
    (runs / "train-toy-0" / "eval.json").write_text(damage)
    done = wsss("runs", "list", "--json")
    named = "scores are left out" in done.stderr and "train-toy-0/eval.json" in done.stderr
    assert named == (damage != '{"single": {}}') and done.returncode == 0  # that one has none, and is whole
    assert ("remove it, and score again: wsss eval" in done.stderr) == named
    found = json.loads(done.stdout)["runs"]
    assert found[1]["scores"] == {}
    assert found[2]["scores"] == {"pseudo mask mIoU, 255 as background": 60.5}


def test_show_of_what_is_no_run_exits_2(wsss, runs):
    done = wsss("runs", "show", "nothing", "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"] == "nothing is no run directory"
    assert "runs list" in done.stderr


def test_a_damaged_record_is_named_and_the_others_are_listed(wsss, runs):
    (runs / "train-toy-0" / "run.json").write_text('{"stage": "train", "state": 3}')
    done = wsss("runs", "list", "--json")
    assert [run["run"].split("/")[-1] for run in json.loads(done.stdout)["runs"]] == [
        *("train-toy-1", "pseudo-toy-0", "cam-toy-0")
    ]
    assert done.stderr.startswith("passed over: runs/train-toy-0/run.json: state: input should be")
    shown = wsss("runs", "show", "train-toy-0")
    assert shown.returncode == 3
    assert shown.stderr.startswith("error: runs/train-toy-0/run.json: state: input should be")
