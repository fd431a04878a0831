import errno
import fcntl
import os
import socket
import subprocess
import sys

import pytest

from wsss_cli.errors import BusyError, DataError, WriteError
from wsss_cli.locks import locked

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
    holder = rf"the folder is in use by another process \(host {socket.gethostname()}, pid {os.getpid()}\)"
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


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_not_called_busy(tmp_path, monkeypatch, number):
    def refuse(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    message = rf"LOCK: its file system gives no locks .{os.strerror(number)}"
    with pytest.raises(DataError, match=message), locked(tmp_path / "LOCK", "busy"):
        pass


def test_a_lock_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(WriteError, match=r"cannot write .*: Is a directory"), locked(tmp_path, "busy"):
        pass
