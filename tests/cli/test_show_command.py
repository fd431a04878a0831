"""`wsss show`: what it refuses, and pictures within a terminal."""

import base64
import re

import pytest
from typer.testing import CliRunner

from wsss_cli.cli.app import app
from wsss_cli.cli.inline import CHUNK, inlined
from wsss_cli.errors import UsageError


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["data"], "needs a preset"),
        (["data", "--preset", "toy", "--layer", "x"], "--layer: for a run only"),
        (["runs/x", "--preset", "toy"], "--preset: for wsss show data only"),
        (["runs/x", "--masks", "y", "--set", "seed=1"], "--set, --masks: for wsss show data only"),
        (["runs/x", "--out", "x.gif"], "ends in .png or .jpg"),
        (["runs/x", "--split", "test"], "train or val"),
        (["runs/x"], "is no run directory"),
    ],
)
def test_what_cannot_be_shown_is_refused(arguments, words):
    error = CliRunner().invoke(app, ["show", *arguments]).exception
    assert isinstance(error, UsageError) and words in error.message


PNG = bytes(range(256)) * 30


def test_kitty_gets_a_picture_in_chunks():
    codes = inlined(PNG, {"TERM": "xterm-kitty"})
    parts = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", codes)
    assert [head for head, _ in parts] == ["a=T,f=100,m=1", "m=1", "m=0"]
    assert all(len(chunk) <= CHUNK for _, chunk in parts)
    assert base64.b64decode("".join(chunk for _, chunk in parts)) == PNG


def test_iterm_gets_a_picture_with_its_size():
    codes = inlined(PNG, {"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"})
    head, text = codes.removesuffix("\x07").split(":")
    assert head.startswith("\x1b]1337;File=inline=1") and f"size={len(PNG)}" in head
    assert base64.b64decode(text) == PNG


@pytest.mark.parametrize("more", [{}, {"TERM_PROGRAM": "Apple_Terminal"}, {"KITTY_WINDOW_ID": "1", "TMUX": "/tmp/t"}])
def test_other_terminals_get_none(more):
    assert inlined(PNG, {"TERM": "xterm-256color", **more}) == ""
