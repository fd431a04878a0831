"""The command line in a process of its own, as a user starts it; or as warm.py forks it, which saves loading torch."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import warm

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 240.0
"""Seconds until a command counts as stuck: those of the tests take 1 to 20 on two cores."""
GRACE_S = 60.0
"""Seconds until a command has to have heard a signal: 20 on a machine with nothing else to do."""

SERVERS = []
"""The server of `forking`, and its folder, for as long as this process lives."""


def environment(folder, **more):
    """Variables of a command in `folder`: this checkout, no variables of the user that change what commands do."""
    user = {key: value for key, value in os.environ.items() if key not in ("WSSS_DATA", "WSSS_DEBUG")}
    return {**user, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder), **more}


def python(folder, *arguments, **more):
    """Run `python *arguments` in `folder` to its end; what it printed is shown where the test fails.

    Args:
        more: further environment variables.
    """
    return shown([sys.executable], folder, *arguments, **more)


def shown(program, folder, *arguments, **more):
    """Run `program *arguments` in `folder` to its end; see `python`."""
    command = [*program, *map(str, arguments)]
    variables = environment(folder, **more)
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=variables, timeout=PATIENCE)
    except subprocess.TimeoutExpired as stuck:
        raise AssertionError(f"{arguments} was not done in {PATIENCE} s: {stuck.stdout!r} {stuck.stderr!r}") from None
    print(done.stdout, end="")
    print(done.stderr, end="", file=sys.stderr)
    return done


def wsss(folder, *arguments, **more):
    """Run `wsss *arguments` in `folder` to its end, forked by a process that has loaded everything.

    With variables that count when modules are loaded, it starts as a user starts it.
    """
    if more.keys() - {"OMP_NUM_THREADS"}:
        return python(folder, "-m", "wsss_cli", *arguments, **more)
    return shown([sys.executable, "-S", "-E", warm.__file__, "run", forking()], folder, *arguments, **more)


@cache
def forking():
    """Address of this process's own server of forks, which ends with it."""
    folder = tempfile.TemporaryDirectory(prefix="wsss-")
    server = warm.started(str(Path(folder.name) / "socket"), environment(folder.name))
    SERVERS.append((server, folder))
    return server.args[-1]


def start(folder, *arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **more):
    """Start `wsss *arguments` in `folder`, in a process group of its own; its stderr is a pipe of text.

    Forked like `wsss`; with variables that count when modules are loaded, it starts as a user starts it.

    Args:
        more: further environment variables.
    """
    variables = environment(folder, **{"OMP_NUM_THREADS": "1"} | more)
    if all(name == "OMP_NUM_THREADS" or name.startswith(("WSSS_", "SLURM_")) for name in more):
        return warm.Forked(forking(), list(map(str, arguments)), folder, variables, (stdout, stderr))
    return subprocess.Popen(
        [sys.executable, "-m", "wsss_cli", *map(str, arguments)],
        cwd=folder,
        env=variables,
        stdout=stdout,
        stderr=stderr,
        text=True,
        start_new_session=True,
    )


def ranks_below(pid):
    """{rank: process id} of the ranks that a command with --gpus has started."""
    with contextlib.suppress(OSError):
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return dict(sorted(pair for child in children for pair in _rank(child)))
    return {}


def _rank(pid):
    with contextlib.suppress(OSError):  # it has ended
        entries = Path(f"/proc/{pid}/environ").read_text().split("\0")
        return [(int(entry[5:]), pid) for entry in entries if entry.startswith("RANK=")]
    return []


def halt_rank(rank):
    """Stop a rank of the command with --gpus that was started last, so that it does nothing more but is there."""
    os.kill(int(Path(f"{forking()}.{rank}").read_text()), signal.SIGSTOP)


def left_of(group, seconds):
    """Processes of a group after `seconds` at most: some end by the end of a pipe, a moment after their parent."""
    until = time.monotonic() + seconds
    while (count := _count(group)) and time.monotonic() < until:
        time.sleep(0.2)
    return count


def _count(group):
    listed = subprocess.run(["ps", "-eo", "pgid="], capture_output=True, text=True).stdout.split()
    return listed.count(str(group))
