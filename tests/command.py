"""The command line in a process of its own, as a user starts it."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 240.0
"""Seconds until a command counts as stuck: those of the tests take 1 to 20 on two cores."""


def environment(folder, **more):
    """Variables of a command in `folder`: this checkout, no variables of the user that change what commands do."""
    user = {key: value for key, value in os.environ.items() if key not in ("WSSS_DATA", "WSSS_DEBUG")}
    return {**user, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder), **more}


def python(folder, *arguments, **more):
    """Run `python *arguments` in `folder` to its end; what it printed is shown where the test fails.

    Args:
        more: further environment variables.
    """
    command = [sys.executable, *map(str, arguments)]
    variables = environment(folder, **more)
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=variables, timeout=PATIENCE)
    except subprocess.TimeoutExpired as stuck:
        raise AssertionError(f"{arguments} was not done in {PATIENCE} s: {stuck.stdout!r} {stuck.stderr!r}") from None
    print(done.stdout, end="")
    print(done.stderr, end="", file=sys.stderr)
    return done


def wsss(folder, *arguments, **more):
    """Run `wsss *arguments` in `folder` to its end."""
    return python(folder, "-m", "wsss_cli", *arguments, **more)
