"""--limit: a trial on the first photographs that nobody takes for a result."""

import json
import pickle

import pytest
from command import wsss

from wsss_cli.data.dataset import open_dataset

SMALL = ("--preset", "toy", "--set", "classifier.crop=64", "--set", "train.crop=64", "--set", "cam.scales=[1.0]")
QUICK = (*SMALL, "--set", "classifier.iters=2", "--iters", "2", "--device", "cpu")
SAYS = "limit 3: not a result"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a data set and a whole trial on three of its photographs."""
    folder = tmp_path_factory.mktemp("limit")
    assert wsss(folder, "prepare", "toy", "--images", "6", "--val", "4", "--size", "64").returncode == 0
    (folder / "trial.json").write_text(wsss(folder, "run", *QUICK, "--limit", "3", "--json").stdout)
    return folder


@pytest.fixture(scope="module")
def trial(home):
    return json.loads((home / "trial.json").read_text())


def test_a_limited_list_is_the_first_rows_of_the_whole_one(home):
    whole, limited = open_dataset(home / "data/toy"), open_dataset(home / "data/toy", limit=3)
    for name in ("train", "val"):
        rows = list(whole.split(name))
        split = limited.split(name)
        assert (len(split), list(split), split[-1], list(split[1:])) == (3, rows[:3], rows[2], rows[1:3])
        assert list(pickle.loads(pickle.dumps(split))) == rows[:3]
        assert (list(split.names()), len(split.masked), list(split.sizes)) == ([r.id for r in rows[:3]], 3, [64] * 6)
        with pytest.raises(IndexError):
            split[3]
    assert len(open_dataset(home / "data/toy", limit=100).split("train")) == 6
    fingerprints = {open_dataset(home / "data/toy", limit=limit).fingerprint for limit in (0, 3, 4)}
    assert len(fingerprints) == 3
    assert limited.split_sha256 == whole.split_sha256


def test_a_trial_makes_three_of_everything_and_says_so_everywhere(home, trial):
    assert trial["limit"] == 3
    assert all("-toy-limit3-" in run for run in trial["runs"].values())
    assert len(list((home / trial["runs"]["cam"] / "cams").glob("*.npz"))) == 3
    assert len(list((home / trial["runs"]["pseudo"] / "masks").glob("*.png"))) == 3
    assert [SAYS in scores["protocol"] for scores in trial["scores"].values()] == [True, True, True]
    assert "(3 images)" in trial["scores"]["eval"]["protocol"][0]
    again = wsss(home, "run", *QUICK, "--limit", "3")
    assert SAYS in again.stdout
    assert SAYS in again.stderr.splitlines()
    for file in ("report.html", "preset.lock.toml"):
        text = (home / trial["runs"]["train"] / file).read_text()
        assert ("limit = 3" if file.endswith("toml") else SAYS) in text
    assert wsss(home, "verify", trial["runs"]["cam"]).returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("table",),
        ("report",),
        ("eval",),
        ("pseudo", *SMALL, "--cams", "cam"),
        ("train", *SMALL, "--masks", "pseudo"),
        ("train", *SMALL, "--init", "train"),
        ("cam", *SMALL, "--weights", "classifier"),
    ],
    ids=" ".join,
)
def test_nothing_else_takes_a_trial_for_a_run(home, trial, arguments):
    *front, last = arguments
    done = wsss(home, *front, trial["runs"].get(last, last))
    assert done.returncode == 2
    assert "limit" in next(line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert done.stdout == ""


def test_a_run_without_a_limit_finds_nothing_of_the_trial(home):
    done = wsss(home, "run", *QUICK, "--dry-run", "--json")
    assert [stage["done"] for stage in json.loads(done.stdout)["stages"]] == [False] * 5
    pseudo = wsss(home, "pseudo", *SMALL, "--dry-run")
    assert "no finished cam run fits" in pseudo.stderr


def test_a_trial_evaluation_is_not_stored_and_the_table_says_so(home, trial):
    run = trial["runs"]["train"]
    before = {file.name: file.read_bytes() for file in (home / run).glob("eval*")}
    shown = wsss(home, "eval", run, "--limit", "2")
    assert shown.returncode == 0
    assert shown.stdout.splitlines()[0] == f"{run} (limit 2: not a result)"
    assert {file.name: file.read_bytes() for file in (home / run).glob("eval*")} == before
    assert json.loads(wsss(home, "eval", run, "--limit", "2", "--json").stdout)["limit"] == 2
    named = wsss(home, "table", run)
    assert SAYS in named.stdout
    refused = wsss(home, "eval", trial["runs"]["cam"], "--limit", "2")
    assert (refused.returncode, "--limit is for networks" in refused.stderr) == (2, True)


def test_the_first_photographs_are_segmented(home, trial):
    command = ("infer", trial["runs"]["train"], "data/toy/JPEGImages", "--out", "masks", "--limit", "2")
    done = wsss(home, *command)
    assert "limit 2: the first 2 of 10 photographs" in done.stdout
    assert len(list((home / "masks/masks").glob("*.png"))) == 2


@pytest.mark.parametrize("command", [("export", "--out=trial.pt"), ("weights", "publish", "--out=zoo"), ("infer",)])
def test_a_network_of_a_trial_says_so_once_wherever_it_goes(home, trial, command):
    run = trial["runs"]["train"]
    more = ("data/toy/JPEGImages", "--out=other", "--limit=1") if command == ("infer",) else ()
    done = wsss(home, *command, run, *more)
    assert done.returncode == 0
    assert done.stderr.splitlines().count(f"{run} was trained with {SAYS}") == 1
    if command[0] == "weights":
        again = wsss(home, "export", "zoo", "--out=zoo.pt")
        assert again.returncode == 0 and f"zoo was trained with {SAYS}\n" in again.stderr


def test_a_run_that_is_submitted_is_the_same_one_with_all_its_options(home):
    done = wsss(home, "submit", "--dry-run", "--", "run", *QUICK, "--limit", "3")
    assert (done.returncode, done.stdout) == (0, "")
    assert "nothing to submit, all is done: runs/train-toy-limit3-" in done.stderr
    other = wsss(home, "submit", "--dry-run", "--", "run", *QUICK, "--limit", "3", "--seed", "5")
    assert "--limit 3 --seed 5 --until classifier" in other.stdout
