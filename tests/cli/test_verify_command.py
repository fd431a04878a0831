"""`wsss verify` as it is called: exit codes, the table, one JSON object, signals."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from command import start

from wsss_cli.data.sources.toy import prepare_toy


@pytest.fixture
def data(tmp_path):
    prepare_toy(tmp_path / "data", images=3, val=2, size=64)
    return tmp_path / "data"


def photograph(data, split, row):
    return data / (data / "splits" / f"{split}.csv").read_text().splitlines()[row].split(",")[1]


def test_a_sound_set(data, wsss):
    done = wsss("verify", "data")
    assert (done.returncode, done.stdout) == (0, "data: train 3, val 2: no findings\n")
    shown = json.loads(wsss("verify", "data", "--json", "--split", "val").stdout)
    assert shown.pop("seconds") >= 0
    assert shown == {
        "target": "data",
        "kind": "data set",
        "checked": {"val": 2},
        "counts": {},
        "findings": [],
        "notes": [],
    }


def test_findings(data, wsss):
    first, second = photograph(data, "train", 1), photograph(data, "train", 2)
    first.write_bytes(first.read_bytes()[:99])
    second.unlink()
    done = wsss("verify", "data", "--limit", "1")
    assert done.returncode == 3
    table = done.stdout.splitlines()
    assert table[0] == "data: train 3, val 2: 2 findings"
    assert table[3].startswith("unreadable  ") and str(first) in table[3]
    assert table[4] == "unreadable  ... and 1 more (--limit 0 shows all)"
    assert done.stderr.splitlines()[-1] == "error: 2 findings in data"
    done = wsss("verify", "data", "--json")
    shown = json.loads(done.stdout)  # one object
    assert (done.returncode, shown["counts"]) == (3, {"unreadable": 2})
    assert [finding["file"] for finding in shown["findings"]] == [str(first), str(second)]
    assert set(shown["findings"][0]) == {"code", "file", "problem", "fix"}
    allowed = wsss("verify", "data", "--allow", "unreadable")
    assert allowed.returncode == 0 and allowed.stdout.count("note: ") == 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere"], 2, "error: there is no nowhere"),
        (["."], 2, "error: . is no data set, no run and no folder of predictions"),
        (["data", "--allow", "unreadible"], 2, "error: --allow unreadible: there is no such finding"),
        (["data", "--split", "vall"], 3, "has no split 'vall'"),
    ],
)
def test_what_cannot_be_looked_at(data, wsss, arguments, code, message):
    done = wsss("verify", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr and "hint: " in done.stderr


def test_a_signal_ends_it(data, tmp_path):
    file = data / "splits" / "train.csv"
    head, row, *_ = file.read_text().splitlines()
    rows = [f"{number},{row.split(',', 1)[1]}" for number in range(20_000)]
    file.write_text("\n".join([head, *rows]) + "\n")
    process = start(tmp_path, "verify", "data", "--workers", "2", stdout=subprocess.PIPE)
    assert any(line.startswith("checking train") for line in process.stderr)
    os.killpg(process.pid, signal.SIGTERM)
    shown, talk = process.communicate(timeout=60)
    assert (process.returncode, shown) == (75, "")
    assert talk.splitlines()[-1] == "hint: run the same command again to go on"


def test_a_run(data, tmp_path, wsss):
    run = tmp_path / "runs" / "train-x"
    run.mkdir(parents=True)
    (run / "run.json").write_text('{"stage": "train", "state": "failed"}')
    done = wsss("verify", "runs/train-x", "--json")
    shown = json.loads(done.stdout)
    assert (done.returncode, shown["kind"], shown["counts"]) == (3, "run", {"record": 2})
    assert {Path(finding["file"]).name for finding in shown["findings"]} == {"inputs.json", "preset.lock.toml"}
    assert [note["code"] for note in shown["notes"]] == ["state"]
    assert wsss("verify", "runs/train-x", "--split", "val").returncode == 2
    (run / "run.json").write_text('{"form": 99}')
    done = wsss("verify", "runs/train-x")
    assert done.returncode == 3 and "written by a newer version" in done.stderr
