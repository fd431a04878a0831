"""A line to whoever started the work. Functions that may have something to say take one of these as `say`."""

from __future__ import annotations

import sys

from wsss_cli.escapes import visible

_quiet = False


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
    sys.stderr.write(f"{visible(line)}\n")
    sys.stderr.flush()


def silent(line: str) -> None:
    """Say nothing."""
