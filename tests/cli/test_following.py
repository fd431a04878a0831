"""Suggested command lines: they keep what was given, and a shell takes them as they are."""

import re
import shlex
from pathlib import Path

import pytest
import typer.main
from command import ROOT
from typer.testing import CliRunner

from wsss_cli.cli import following, preparing
from wsss_cli.cli.app import app
from wsss_cli.stages import preflight

GROUP = typer.main.get_command(app)


def context(*words):
    """The context of a command whose arguments are read, not run."""
    root = GROUP.make_context("wsss", list(words))
    return GROUP.commands[words[0]].make_context(words[0], list(words[1:]), parent=root)


@pytest.fixture
def after(monkeypatch):
    def suggested(words, *command, **more):
        monkeypatch.setattr(following, "_now", [context(*shlex.split(words))])
        return following.following(*command, **more)

    return suggested


def test_every_option_that_both_commands_have_is_kept_and_no_other(after):
    given = "cam -p toy --set a.b='[1, 2]' --set c=d --data 'my data' --runs=r --device cpu --gpus 2 --seed 0 --dry-run"
    assert after(given + " --json --shard 1/2 --quiet", "pseudo") == (
        "wsss pseudo --preset toy --set 'a.b=[1, 2]' --set c=d --data 'my data' --seed 0 --runs r --device cpu --gpus 2"
    )
    assert after(
        "train --preset toy --data d --runs r --device cuda:1", "eval", Path("r/a b"), leave_out=["--runs"]
    ) == ("wsss eval 'r/a b' --data d --device cuda:1")
    assert after("eval --best --weights ema --mode slide --crf --ms-flip", "infer", "r", "--out", "DIR") == (
        "wsss infer r --out DIR --ms-flip --best --weights ema --mode slide"
    )
    assert after("run --preset toy --until cam --iters 4", "run") == "wsss run --preset toy --iters 4"


def test_a_path_that_begins_with_a_hyphen_is_no_option(after):
    assert following.line("prepare", "folder", Path("-ph-"), Path("-t.csv")) == "wsss prepare folder ./-ph- ./-t.csv"
    assert after("run --preset toy --runs ./-r", "infer", Path("-r/a"), "--out", "DIR") == (
        "wsss infer ./-r/a --out DIR --runs -r"
    )


def test_an_option_that_the_next_command_has_not_becomes_a_setting(after):
    settings = {"classifier.iters": "4", "classifier.weights": '"a b.pth"'}
    assert after("cam --preset toy --iters 4", "pseudo", settings=settings) == (
        "wsss pseudo --preset toy --set classifier.iters=4 --set 'classifier.weights=\"a b.pth\"'"
    )


def test_a_line_is_what_a_shell_takes(monkeypatch):
    monkeypatch.setattr(following, "_now", [])
    assert following.following("run", "--data", "it's; rm -rf") == """wsss run --data 'it'"'"'s; rm -rf'"""
    assert shlex.split(following.line("infer", Path("a b/c*"), "IMAGES")) == ["wsss", "infer", "a b/c*", "IMAGES"]


def test_a_command_that_ends_names_the_next_one_with_its_options(wsss):
    done = wsss("prepare", "toy", "--images", "2", "--size", "32", "--out", "my data")
    assert done.stderr.splitlines()[-1] == "next: wsss run --preset toy --data 'my data'"


def test_a_trial_on_the_first_of_a_split_says_nothing_of_the_photographs_of_infer(wsss):
    assert wsss("prepare", "toy", "--images=4", "--val=2", "--size=32", "--out=data/mine").returncode == 0
    words = ["--preset=toy", "--data=data/mine", "--iters=1", "--set=train.batch=2", "--set=train.crop=32"]
    done = wsss("run", *words, "--set=train.supervision=full", "--set=eval.scales=[1.0]", "--limit=2", "--device=cpu")
    assert done.returncode == 0, done.stderr
    run = next(line for line in done.stderr.splitlines() if line.startswith("done: ")).removeprefix("done: ")
    assert done.stderr.splitlines()[-1] == f"next: wsss infer {run} IMAGES --out DIR --device cpu"


def test_after_labels_the_newest_run_on_the_data_set_is_named_with_all_its_options(wsss, tmp_path):
    assert wsss("prepare", "toy", "--images=4", "--val=2", "--size=32", "--out=data/mine").returncode == 0
    labels = ("prepare", "labels", "data/mine", "--draw=points", "--share=0.5")
    mixed = "--set train.supervision=mixed"
    assert wsss(*labels).stderr.splitlines()[-1] == f"next: wsss run --preset NAME --data data/mine {mixed}"
    small = ["--set=train.batch=2", "--set=train.crop=32", "--set=train.val_interval=0", "--set=train.data_workers=0"]
    words = ["--preset=toy", "--data=data/mine", *small, "--iters=1", "--set=train.supervision=full", "--until=train"]
    assert wsss("run", *words).returncode == 0
    assert wsss("run", *words, "--limit=3").returncode == 0  # a trial, which nobody goes on with
    options = " ".join(one.replace("=", " ", 1) for one in small)
    after = f"next: wsss run --preset toy {options} --data data/mine --iters 1 {mixed}"
    assert wsss(*labels).stderr.splitlines()[-1] == after
    (record,) = (tmp_path / "runs").glob("train-toy-[!l]*/run.json")
    record.write_text(record.read_text().replace('"--iters=1"', '"--gone=1"'))  # an option of another version
    assert wsss(*labels).stderr.splitlines()[-1].startswith("next: wsss run --preset NAME")


@pytest.mark.parametrize(
    ("images", "device", "more"),
    [(3, "cpu", " --set classifier.iters=350 --iters 400"), (3, "cuda", ""), (4, "cpu", "")],
)
def test_a_small_folder_gets_the_schedule_of_an_evening_where_there_is_no_gpu(
    tmp_path, monkeypatch, images, device, more
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(preparing, "FEW", 3)
    monkeypatch.setattr(preflight, "usable_device", lambda word: device)
    assert CliRunner().invoke(app, ["prepare", "toy", "--images=4", "--val=2", "--size=32"]).exit_code == 0
    names = [f"train_{number:06d}.jpg" for number in range(images)]
    Path("labels.csv").write_text("image,labels\n" + "".join(f"{name},cat\n" for name in names))
    done = CliRunner().invoke(app, ["prepare", "folder", "data/toy/JPEGImages", "labels.csv", "--out=data/mine"])
    assert done.stderr.splitlines()[-1] == f"next: wsss run --preset folder-lite0 --data data/mine{more}"
    page = (ROOT / "docs/start/own-photographs.md").read_text()
    assert "--data data/mine --set classifier.iters=350 --iters 400\n" in page  # with how long it takes


def test_the_table_of_options_says_what_commands_have():
    text = (ROOT / "docs/how-to/command-line.md").read_text()
    rows = re.findall(r"^\| `([a-z0-9 -]+)` \| (.*) \|$", text, re.MULTILINE)
    listed = {name: tuple(bool(cell.strip()) for cell in cells.split("|")) for name, cells in rows}
    there = {}
    for name, command in GROUP.commands.items():
        for words, each in getattr(command, "commands", {"": command}).items():
            options = {option for parameter in each.params for option in parameter.opts}
            assert "--quiet" in options
            there[f"{name} {words}".strip()] = tuple(
                option in options for option in ("--seed", "--iters", "--device", "--json")
            )
    assert listed.items() <= there.items()
    assert {name.split()[0] for name in there} == {name.split()[0] for name in listed}
