import errno
import fcntl
import os
import socket
import subprocess
import sys

import pytest

from wsss_cli.errors import BusyError, WriteError
from wsss_cli.locks import is_locked, locked

HOLDER = """
import sys
from pathlib import Path
from wsss_cli.locks import locked
with locked(Path(sys.argv[1]), ""):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_lock_is_held_once_and_says_by_whom(tmp_path):
    file = tmp_path / "LOCK"
    holder = rf"the folder is in use by another process \(host {socket.gethostname()}, pid {os.getpid()}, since .*\)"
    with locked(file, "the folder is in use"):
        for _ in range(2):  # asking changes nothing
            with pytest.raises(BusyError, match=holder), locked(file, "the folder is in use"):
                pass
    with locked(file, ""):
        pass


def test_a_lock_goes_with_a_process_that_is_killed(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "LOCK")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(BusyError, match=f"pid {other.pid}"), locked(tmp_path / "LOCK", "busy"):
            pass
        other.kill()
        other.wait()
        with locked(tmp_path / "LOCK", "busy"):
            pass


WITHOUT_LOCKS = """
import errno, fcntl
def refuse(*args):
    raise OSError(errno.ENOLCK, "No locks available")
fcntl.flock = refuse
"""


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_stands_in_where_the_file_system_gives_no_locks(tmp_path, monkeypatch, number):
    def refuse(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    file = tmp_path / "LOCK"
    with locked(file, "the folder is in use"):
        assert is_locked(file)
        busy = rf"the folder is in use by another process \(host .*, pid {os.getpid()}, .*remove .*\.LOCK\.held"
        with pytest.raises(BusyError, match=busy), locked(file, "the folder is in use"):
            pass
    assert not is_locked(file)
    assert not (tmp_path / ".LOCK.held").exists()


@pytest.mark.parametrize("without", ["", WITHOUT_LOCKS])
def test_what_a_killed_process_left_is_taken_over_with_a_word(tmp_path, monkeypatch, capsys, without):
    if without:
        monkeypatch.setattr(fcntl, "flock", lambda *args: (_ for _ in ()).throw(OSError(errno.ENOLCK, "no locks")))
    file = tmp_path / "LOCK"
    command = [sys.executable, "-c", without + HOLDER, str(file)]
    environment = {**os.environ, "SLURM_JOB_ID": "4711"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as other:
        assert other.stdout.readline() == "locked\n"
        assert is_locked(file)
        with pytest.raises(BusyError, match=f"pid {other.pid}, job 4711, since "), locked(file, "busy"):
            pass
        other.kill()
        other.wait()
    assert not is_locked(file)
    with locked(file, "busy"):
        assert f"pid {other.pid}, job 4711" in (said := capsys.readouterr().err)
        assert "has ended without letting go of it; taken over" in said
    with locked(file, "busy"):
        assert capsys.readouterr().err == ""


def test_a_holder_that_has_ended_while_something_of_it_holds_on_is_said(tmp_path):
    file = tmp_path / "LOCK"
    with subprocess.Popen(["true"]) as gone:
        pass
    with locked(file, "busy"):
        file.write_text(f"host {socket.gethostname()}, pid {gone.pid}, since 2026-01-01 00:00:00")
        with pytest.raises(BusyError, match="that one has ended, and what it started holds on"), locked(file, "busy"):
            pass


def test_a_lock_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(WriteError, match=r"cannot write .*: Is a directory"), locked(tmp_path, "busy"):
        pass
