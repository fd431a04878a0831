"""Nobody reading stdout or stderr ends no work, and turns nothing into a success that is none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wsss_cli.cli import console

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def unread():
    """A stream whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as file:
        yield console.Stream(file)


def test_what_nobody_reads_goes_nowhere(unread, monkeypatch):
    monkeypatch.setattr(sys, "stderr", unread)
    monkeypatch.setattr(sys, "stdout", unread)
    for _ in range(3):
        console.say("x" * 100_000)
        console.result("x" * 100_000)
    assert isinstance(unread.error, BrokenPipeError)
    assert console.lost_result() is None


def test_a_result_that_the_disk_had_no_room_for_is_lost(monkeypatch):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    with Path("/dev/full").open("w") as file:
        monkeypatch.setattr(sys, "stdout", console.Stream(file))
        console.result("one")
        console.result("two")
        assert console.lost_result().strerror == "No space left on device"


def test_a_stream_is_what_it_stands_for_in_all_else(tmp_path):
    with (tmp_path / "talk").open("w") as file:
        stream = console.Stream(file)
        assert (stream.isatty(), stream.fileno(), stream.encoding) == (False, file.fileno(), file.encoding)
        assert stream.write("four") == 4
        stream.flush()
        assert ((tmp_path / "talk").read_text(), stream.error) == ("four", None)


@pytest.mark.parametrize(
    ("redirect", "code"), [(">&-", 0), ("2>&-", 0), (">&- 2>&- <&-", 0), (">/dev/full", 3), ("2>/dev/full", 0)]
)
def test_closed_and_full_streams(redirect, code, tmp_path):
    command = f"{sys.executable} -m wsss_cli presets schema {redirect}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=120
    )
    assert done.returncode == code, done.stderr
    if code:
        assert done.stderr.splitlines()[0] == "error: cannot write the result: No space left on device"
    assert "bug" not in done.stderr


def test_work_goes_on_without_readers(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "wsss_cli", "prepare", "toy", "--images", "3", "--val", "1", "--size", "32"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, stdout=writer, stderr=writer, cwd=tmp_path, env=environment, timeout=120)
    os.close(writer)
    assert done.returncode == 0
    assert (tmp_path / "data" / "toy" / "dataset.json").is_file()
