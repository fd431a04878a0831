"""What a person or a script sees: results on stdout, talk and progress (progress.py) on stderr. Names are no markup."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from wsss_cli.cli.progress import progress as progress
from wsss_cli.cli.progress import training_progress as training_progress
from wsss_cli.escapes import one_line, visible
from wsss_cli.talk import complain as complain
from wsss_cli.talk import say as say
from wsss_cli.talk import say_at_once as say_at_once

if TYPE_CHECKING:
    from wsss_cli.report.tables import Table


class Stream:
    """A standard stream that never ends work: what nobody reads goes nowhere, quietly.

    Attributes:
        error: what first kept it from being written.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.terminal = stream.isatty()
        self.error: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write text, or drop it."""
        try:
            return self.stream.write(text)
        except OSError as error:
            self._close(error)
            return len(text)

    def flush(self) -> None:
        """Hand on what is buffered, or drop it."""
        try:
            self.stream.flush()
        except OSError as error:
            self._close(error)

    def _close(self, error: OSError) -> None:
        self.error = self.error or error
        with contextlib.suppress(OSError):  # what is still buffered goes nowhere too
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())


def open_streams() -> None:
    """Make stdout and stderr a `Stream` each; those that are closed go nowhere, and no file takes their number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name) or os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace")
        setattr(sys, name, Stream(stream))


def leave_to_first() -> None:
    """From here on this process, which is another rank than the first, says nothing but what ends it."""
    sys.stdout = sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  # as long as the process


def say_of_rank(rank: int, line: str) -> None:
    """A line on the process's own stderr, after `leave_to_first`."""
    with contextlib.suppress(OSError):
        os.write(2, f"{one_line(f'rank {rank}: {line}')}\n".encode())


def lost_result() -> OSError | None:
    """What kept the results from stdout, a full disk for instance; None where there was only nobody to read them."""
    sys.stdout.flush()
    if not isinstance(sys.stdout, Stream) or sys.stdout.error is None:
        return None
    unread = sys.stdout.terminal or sys.stdout.error.errno in (errno.EPIPE, errno.EBADF)
    return None if unread else sys.stdout.error


def result(text: str) -> None:
    """A result on stdout; what a terminal would obey in it is shown as an escape, so that JSON stays JSON."""
    text = visible(text)
    sys.stdout.write(text if text.endswith("\n") else f"{text}\n")
    sys.stdout.flush()


def result_json(value: Any) -> None:
    """Exactly one JSON object on stdout; what is not finite becomes null, a path text, a numpy number a plain one."""
    result(json.dumps(_plain(value), allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return str(value)
    if hasattr(value, "tolist"):  # numpy, without importing it
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def table(table: Table) -> None:
    """A table on stdout: by Rich on a terminal, plain elsewhere."""
    from wsss_cli.report.tables import print_table

    print_table(table, sys.stdout)
    sys.stdout.flush()


def width() -> int:
    """Columns of the terminal; 80 where there is none."""
    return shutil.get_terminal_size().columns


def picture(png: bytes) -> None:
    """Show a PNG on stdout where that is a terminal which can, by its own word; nothing elsewhere."""
    from wsss_cli.cli.inline import inlined

    if sys.stdout.isatty() and (codes := inlined(png, os.environ)):
        sys.stdout.write(f"{codes}\n")
        sys.stdout.flush()
