"""A line to whoever started the work. Functions that may have something to say take one of these as `say`."""

from __future__ import annotations

import sys


def say(line: str) -> None:
    """A line of talk on stderr."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def silent(line: str) -> None:
    """Say nothing."""
