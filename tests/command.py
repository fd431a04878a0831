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

import handed
import warm

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 240.0
"""Seconds until a command counts as stuck: those of the tests take 1 to 20 on two cores."""
GRACE_S = 60.0
"""Seconds until a command has to have heard a signal: 20 on a machine with nothing else to do."""

FORKED = ("WSSS_", "SLURM_")
"""Beginnings of variables that are read when a command runs."""

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
    command, pipes = [sys.executable, *map(str, arguments)], {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return ended(subprocess.Popen(command, **pipes, text=True, cwd=folder, env=environment(folder, **more)))


def wsss(folder, *arguments, **more):
    """Run `wsss *arguments` in `folder` to its end, forked by a process that has loaded everything.

    With variables that count when modules are loaded, it starts as a user starts it.
    """
    if not may_be_forked(more):
        return python(folder, "-m", "wsss_cli", *arguments, **more)
    pipes = (subprocess.PIPE, subprocess.PIPE)
    return ended(warm.Forked(forking(), list(map(str, arguments)), folder, environment(folder, **more), pipes))


def hooked(file):
    """Variables with which `file`, a sitecustomize.py, is run in a command before all else, and in what it starts."""
    return {"WSSS_TEST_HOOK": str(file), "PYTHONPATH": f"{file.parent}{os.pathsep}{ROOT}"}


def may_be_forked(variables):
    """Whether none of them counts when modules are loaded."""
    late = {"OMP_NUM_THREADS", "COLUMNS", "HOME"} | ({"PYTHONPATH"} if "WSSS_TEST_HOOK" in variables else set())
    return all(name in late or name.startswith(FORKED) for name in variables)


def ended(process):
    """Wait for a command, and show what it printed."""
    try:
        stdout, stderr = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired as stuck:
        process.kill()
        shown = f"{stuck.stdout!r} {stuck.stderr!r}"
        raise AssertionError(f"{process.args} was not done in {PATIENCE} s: {shown}") from None
    print(stdout, end="")
    print(stderr, end="", file=sys.stderr)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


@cache
def forking():
    """Address of this process's own server of forks, which ends with it."""
    folder = tempfile.TemporaryDirectory(prefix="wsss-")
    variables = environment(folder.name, LC_ALL="C.UTF-8")
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):  # some modules read them when they are loaded
        variables.pop(name, None)
    server = warm.started(str(Path(folder.name) / "socket"), variables)
    SERVERS.append((server, folder))
    return server.args[-1]


def executable(folder):
    """The file `folder`/wsss, which runs a command as `wsss` does, for shells and what else starts commands."""
    file = Path(folder) / "wsss"
    file.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E {handed.__file__} {forking()} "$@"\n')
    file.chmod(0o755)
    return file


def start(folder, *arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **more):
    """Start `wsss *arguments` in `folder`, in a process group of its own; its stderr is a pipe of text.

    Forked like `wsss`; with variables that count when modules are loaded, it starts as a user starts it.

    Args:
        more: further environment variables.
    """
    variables = environment(folder, **{"OMP_NUM_THREADS": "1"} | more)
    if may_be_forked(more):
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
