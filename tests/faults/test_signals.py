"""Signals to a command in phases that do not look at the stop flag: the right exit code, soon."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130), (signal.SIGHUP, 75), (signal.SIGUSR1, 75)]
)
def test_a_signal_to_the_group_ends_prepare(number, code, tmp_path):
    command = [sys.executable, "-m", "wsss_cli", "prepare", "toy", "--images", "20000", "--size", "64"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    assert process.stderr.readline().startswith("drawing")
    os.killpg(process.pid, number)
    _, talk = process.communicate(timeout=60)
    assert process.returncode == code
    shown = "interrupted" if code == 130 else f"stopped by {number.name}"
    assert talk.splitlines() == [f"error: {shown}", "hint: run the same command again to go on"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_signal_while_the_command_is_imported_ends_it(number, tmp_path):
    code = (
        "import os, sys\n"
        "class Finder:\n"  # the first thing that is imported of the command line
        "    def find_spec(self, name, path, target=None):\n"
        f"        if name == 'wsss_cli.cli.app': os.kill(os.getpid(), {int(number)})\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from wsss_cli.__main__ import main; main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (75, "")
    assert done.stderr.splitlines()[0] == f"error: stopped by {number.name}"
