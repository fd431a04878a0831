"""A line to whoever started the work. Functions that may have something to say take one of these as `say`."""

from __future__ import annotations

import sys

from wsss_cli.escapes import visible


def say(line: str) -> None:
    """A line of talk on stderr; what a terminal would obey in it is shown as an escape."""
    sys.stderr.write(f"{visible(line)}\n")
    sys.stderr.flush()


def silent(line: str) -> None:
    """Say nothing."""
