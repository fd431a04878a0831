"""Paths below ~ that no shell has replaced, and files of the current folder that have names of modules."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command import environment

from wsss_cli.cli import app
from wsss_cli.config.load import load_preset
from wsss_cli.data.dataset import data_places, source_home
from wsss_cli.errors import UsageError
from wsss_cli.files import at_home
from wsss_cli.stages.task_work import WSSS

APART = (
    "import subprocess, sys; from wsss_cli.cli import app; app.keep_apart(); sys.exit(subprocess.call(sys.argv[1:]))"
)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_paths_below_the_home_folder(home, monkeypatch):
    meant = {
        "~": str(home),
        "~/a b/*.jpg": f"{home}/a b/*.jpg",
        "./~/a": "./~/a",
        "a~/b": "a~/b",
        "~a": "~a",
        "": "",
    }
    assert {path: at_home(path) for path in meant} == meant
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as of a user without an entry
    with pytest.raises(UsageError, match="~/x: where ~ is cannot be told"):
        at_home("~/x")


def test_options_take_paths_below_the_home_folder(wsss, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    done = wsss("prepare", "toy", "--images", "1", "--val", "1", "--size", "32", "--out=~/toy", HOME=str(home))
    assert done.returncode == 0
    assert (home / "toy/dataset.json").is_file()
    assert f"{home}/toy: train 1" in done.stdout + done.stderr
    assert not list(tmp_path.glob("~*"))


def test_presets_take_paths_below_the_home_folder(home, tmp_path):
    home.mkdir()
    (home / "mine.toml").write_text('extends = "toy"\ndescription = "~/x"\n[dataset]\npath = "~/toy"\n')
    preset = load_preset("~/mine.toml", ["train.backbone.weights=~/w.pth"])
    assert (preset.dataset.path, preset.train.backbone.weights) == (f"{home}/toy", f"{home}/w.pth")
    assert preset.description == "~/x"


def test_source_data_is_looked_for_below_the_home_folder(home, monkeypatch):
    monkeypatch.setenv("WSSS_DATA", "~/data")
    assert source_home() == home / "data"
    assert home / "data/coco" in data_places(None, "coco")


def test_processes_take_no_files_of_the_current_folder_for_modules(tmp_path):
    (tmp_path / "random.py").write_text("raise SystemExit('a file of the user')")
    program = tmp_path / "bin/program"
    program.parent.mkdir()
    program.write_text(APART)
    done = subprocess.run(
        [sys.executable, program, *WSSS, "weights", "inspect", "nothing.pth"],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "a file of the user" not in done.stderr
    assert done.returncode == 3


def test_a_checkout_that_is_run_in_place_stays_so(monkeypatch):
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    monkeypatch.setattr(sys, "path", [str(Path.cwd()), *sys.path])
    app.keep_apart()
    assert "PYTHONSAFEPATH" not in os.environ
