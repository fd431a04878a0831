"""A line to whoever started the work. Functions that may have something to say take one of these as `say`."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import time
from collections.abc import Sequence

from wsss_cli.escapes import one_line

_quiet = False
_said = time.monotonic()  # when the last line was said


def hush(quiet: bool) -> None:
    """Whether `say` says nothing from here on: --quiet."""
    global _quiet
    _quiet = quiet


def is_quiet() -> bool:
    """Whether --quiet was given."""
    return _quiet


def say(line: str) -> None:
    """A line of talk on stderr; what a terminal would obey in it is shown as an escape."""
    if not _quiet:
        complain(line)


def complain(line: str) -> None:
    """A line on stderr that is said with --quiet, too: what went wrong, and what helps."""
    note()
    sys.stderr.write(f"{one_line(line)}\n")
    sys.stderr.flush()


def say_at_once(line: str) -> None:
    """A line of talk from a signal handler or another thread, past what is being written."""
    note()
    with contextlib.suppress(OSError):
        os.write(2, f"{one_line(line)}\n".encode())


def note() -> None:
    """Something is said, or shown, now."""
    global _said
    _said = time.monotonic()


def said() -> float:
    """When the last line was said, by `time.monotonic`."""
    return _said


def silent(line: str) -> None:
    """Say nothing."""


def duration(seconds: float) -> str:
    """'45 s', '12 min', '3 h 05 min', '2 d 04 h'."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24:02d} h"


def sides(size: Sequence[int]) -> str:
    """'500x375', width by height as cameras say it, for an array of the shape (375, 500)."""
    return "x".join(map(str, (size[1], size[0]) if len(size) == 2 else size))


def counted(count: int, thing: str) -> str:
    """'1 image', '1,234 images', '2 classes'."""
    several = f"{thing}es" if thing.endswith("s") else f"{thing}s"
    return f"{count:,} {thing if count == 1 else several}"


def shell_word(path: object) -> str:
    """A path as a word of a command line that is suggested: quoted, and no option where it begins with a hyphen."""
    return shlex.quote(f"./{path}" if str(path).startswith("-") else str(path))


def rename_option(old: str, new: str) -> str:
    """`--rename OLD=NEW` as a shell takes it; what else helps where that cannot name OLD, or it is not shown."""
    pair = f"{old}={new}"
    taken = old and "=" not in old and one_line(pair) == pair
    return f"--rename {shlex.quote(pair)}" if taken else f"{new} in the file in place of {old!r}"
