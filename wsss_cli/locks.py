"""One process at a time in a folder."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from wsss_cli.errors import BusyError, DataError, WriteError


@contextlib.contextmanager
def locked(file: Path, busy: str) -> Iterator[None]:
    """Hold a lock file, which says who holds it. The lock goes with the process, however that ends; the file stays.

    Args:
        file: in a folder that is there.
        busy: what to say where another process holds it; who that is, is added.
    Raises:
        BusyError: another process holds it.
        DataError: the file system knows no locks.
        WriteError: the file cannot be written.
    """
    # `is_locked` of another process may hold it for a moment; a soft lock would outlive a killed process
    lock = FileLock(file, timeout=0.3, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire(poll_interval=0.05)
    except Timeout:
        raise BusyError(
            f"{busy} by another process ({_holder(file)})",
            "wait for it, or stop it; the same command then goes on where it stands",
        ) from None
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
            raise DataError(
                f"{file}: its file system gives no locks ({error.strerror}), so nothing would keep two processes apart",
                "choose a folder on another file system",
            ) from error
        raise WriteError(f"cannot write {file}: {error.strerror}", "choose another folder") from error
    try:
        with contextlib.suppress(OSError):  # on a full disk the lock holds without a name
            file.write_text(f"host {socket.gethostname()}, pid {os.getpid()}", encoding="utf-8")
        yield
    finally:
        lock.release()


def is_locked(file: Path) -> bool:
    """Whether a process holds a lock file, as far as can be told: where it cannot be tried, yes."""
    lock = FileLock(file, blocking=False, thread_local=False, fallback_to_soft=False)
    if not file.exists():
        return False
    try:
        lock.acquire()
    except (Timeout, OSError):
        return True
    lock.release()
    return False


def _holder(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip() or "unknown"
    except OSError:
        return "unknown"
