"""What the machine lacks or refuses is one line with its exit code and a hint, and no bug."""

import json
import sys

import pytest

from wsss_cli.cli import app, presets
from wsss_cli.errors import out_of_memory


def encoding_error(name):
    with pytest.raises(UnicodeEncodeError) as raised:
        name.encode()
    return raised.value


@pytest.mark.parametrize(
    ("failure", "error", "hint"),
    [
        (OSError(28, "No space left on device", "x.png"), "cannot write x.png: No space left on device", "free space"),
        (OSError(122, "Disk quota exceeded", "x"), "cannot write x: Disk quota exceeded", "free space"),
        (OSError(5, "Input/output error", "x.png"), "cannot use x.png: Input/output error", "the disk is sound"),
        (OSError(24, "Too many open files"), "cannot use a file: Too many open files", "ulimit -n"),
        (OSError(30, "Read-only file system", "x"), "cannot use x: Read-only file system", "choose a place"),
        (PermissionError(13, "Permission denied", "x"), "cannot use x: Permission denied", "choose a place"),
        (NotADirectoryError(20, "Not a directory", "x/y"), "cannot use x/y: Not a directory", "can be used"),
        (BlockingIOError(11, "Resource temporarily unavailable"), "temporarily unavailable", "fewer workers"),
        (BrokenPipeError(32, "Broken pipe"), "cannot use a file: Broken pipe", "can be used"),  # of no stream of ours
        (
            encoding_error("p/d\udce4ten.png"),
            "not UTF-8 and cannot be written to a record: 'p/d\\udce4ten.png'",
            "rename",
        ),
        (MemoryError(), "out of memory", "lower the batch"),
        (RuntimeError("could not create a primitive"), "out of memory: could not create a primitive", "lower the"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory", "crop"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_machine_that_does_not_suffice_is_no_bug(failure, error, hint, monkeypatch, capsys):
    def fail(*arguments):
        raise failure

    monkeypatch.setattr(presets, "_brief", fail)
    monkeypatch.setattr(sys, "argv", ["wsss", "presets", "list"])
    assert app._run() == 3
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("error: ") and error in first
    assert second.startswith("hint: ") and hint in second
    monkeypatch.setattr(sys, "argv", ["wsss", "presets", "list", "--json"])
    assert app._run() == json.loads(capsys.readouterr().out)["exit_code"] == 3


def test_not_every_error_is_a_lack_of_memory():
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert out_of_memory(Exception("OpenCV(4.10) error: (-4:Insufficient memory) Failed to allocate 12 bytes"))


def test_a_folder_that_went_away_under_the_command_is_said(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    monkeypatch.setattr(sys, "argv", ["wsss", "doctor"])
    assert app._run() == 3
    assert capsys.readouterr().err.startswith("error: the folder that this was started in is not there any more\n")
