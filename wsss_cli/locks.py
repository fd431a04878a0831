"""One process at a time in a folder."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from wsss_cli.errors import BusyError, WriteError
from wsss_cli.talk import say

if TYPE_CHECKING:
    from filelock import BaseFileLock

NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
JOB_IDS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID")  # of Slurm, PBS, LSF and Grid Engine


@contextlib.contextmanager
def locked(file: Path, busy: str) -> Iterator[None]:
    """Hold a lock file, which says who holds it. The lock goes with the process, however that ends; the file stays.

    Where the file system gives no locks, a file beside it stands in. One that a killed process has left is taken over
    where that process ran on this machine; a process of another machine cannot be looked for.

    Args:
        file: in a folder that is there.
        busy: what to say where another process holds it; who that is, is added.
    Raises:
        BusyError: another process holds it.
        WriteError: the file cannot be written.
    """
    from filelock import SoftFileLock, Timeout  # here: it takes long, and most files are held by nobody

    hint = "wait for it, or stop it; the same command then goes on where it stands"
    try:
        lock = _acquired(file)
        if lock is None:
            hint += f"; if it is gone, remove {_stand_in(file)}, as this file system gives no locks"
            lock = SoftFileLock(_stand_in(file), timeout=0.3, thread_local=False)
            lock.acquire(poll_interval=0.05)
    except Timeout:
        raise BusyError(f"{busy} by another process ({_holder(file)})", hint) from None
    except OSError as error:
        raise WriteError(f"cannot write {file}: {error.strerror}", "choose another folder") from error
    try:
        if before := _left(file):
            say(f"{file}: {before} has ended without letting go of it; taken over")
        _write(file, _me())
        yield
    finally:
        _write(file, "")
        lock.release()


def is_locked(file: Path) -> bool:
    """Whether a process holds a lock file, as far as can be told: where it cannot be tried, yes."""
    if not file.exists():
        return False
    from filelock import SoftFileLock, Timeout

    try:
        lock = _acquired(file, wait=False)
        if lock is None:
            if not _stand_in(file).exists():
                return False
            lock = SoftFileLock(_stand_in(file), blocking=False, thread_local=False)
            lock.acquire()
    except (Timeout, OSError):
        return True
    lock.release()
    return False


def _acquired(file: Path, *, wait: bool = True) -> BaseFileLock | None:
    """The file's lock, held; None: its file system knows none."""
    from filelock import FileLock

    # `is_locked` of another process may hold it for a moment; a soft lock would outlive a killed process
    lock = FileLock(file, timeout=0.3 if wait else 0, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire(poll_interval=0.05)
    except OSError as error:
        if error.errno in NO_LOCKS:
            return None
        raise
    return lock


def _stand_in(file: Path) -> Path:
    return file.with_name(f".{file.name}.held")


def _me() -> str:
    job = next((f", job {os.environ[name]}" for name in JOB_IDS if os.environ.get(name)), "")
    return f"host {socket.gethostname()}, pid {os.getpid()}{job}, since {time.strftime('%Y-%m-%d %H:%M:%S')}"


def _write(file: Path, holder: str) -> None:
    with contextlib.suppress(OSError):  # on a full disk the lock holds without a name
        file.write_text(holder, encoding="utf-8")


def _read(file: Path) -> str:
    try:
        return " ".join(file.read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return ""


def _left(file: Path) -> str:
    """Who has left the file without letting go of it; empty where nobody has, or only an earlier version."""
    holder = _read(file)
    return holder if ", since " in holder else ""


def _holder(file: Path) -> str:
    holder = _read(file) or "unknown"
    named = re.match(r"host (.+?), pid (\d+)(?:,|$)", holder)
    if named and named[1] == socket.gethostname() and not _runs(int(named[2])):
        return f"{holder}; that one has ended, and what it started holds on"
    return holder


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
