"""Suggested command lines: they keep what was given, and a shell takes them as they are."""

import re
import shlex
from pathlib import Path

import pytest
import typer.main
from command import ROOT

from wsss_cli.cli import following
from wsss_cli.cli.app import app

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
