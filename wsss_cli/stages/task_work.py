"""One command of a job in a process of its own: on this machine in order, or under Slurm, by submitit, queued again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from wsss_cli.engine.stop import Stop
from wsss_cli.errors import Preempted, ResourceError
from wsss_cli.processes import end_with
from wsss_cli.stages.jobs import Job, Task
from wsss_cli.talk import say

WSSS = (sys.executable, "-m", "wsss_cli")
POLL_S = 0.2
SAVE_S = 100.0  # that a command has to save and end under Slurm; less than `jobs.SIGNAL_S`
LEAVE_S = 600.0  # after which a command that was asked to stop here is killed
MOST_RESTARTS = 100  # of a job that Slurm has queued again


def start(task: Task, *, quiet: bool = False) -> subprocess.Popen[bytes]:
    """Start a task's command. It has a process group of its own, so that a signal reaches it once, from here, and is
    asked to stop when this process ends.

    Args:
        quiet: its results go nowhere; what it says does not change.
    """
    return subprocess.Popen(
        [*WSSS, *task.arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL if quiet else None,
        process_group=0,
        preexec_fn=partial(end_with, os.getpid(), signal.SIGTERM),  # this process has one thread
    )


def ended_well(task: Task, code: int) -> bool:
    """Whether what comes after a task may begin: it was done, maybe without items that could not be read (code 3)."""
    if code == 3 and task.done:
        say(f"{task.run} is done without what was lost: later steps go on without it")
        return True
    return code == 0


def run_here(jobs: Sequence[Job], stop: Stop, *, quiet: bool = False) -> dict[str, int]:
    """Run jobs on this machine, one command after another; those after one that failed are not begun.

    Args:
        stop: asks the command at work to stop; then what it has done is saved, and the rest is left.
        quiet: results of the commands go nowhere.
    Returns:
        The exit code of each job that was begun, by name; of several tasks that of the first which was not 0.
    """
    codes: dict[str, int] = {}
    failed: set[str] = set()
    for job in jobs:
        if failed.intersection(job.after):
            failed.add(job.name)
            continue
        say(f"== job {job.name}" + (f", {len(job.tasks)} tasks" if len(job.tasks) > 1 else ""))
        codes[job.name] = 0
        for task in job.tasks:
            code = _run(task, stop, quiet)
            codes[job.name] = codes[job.name] or code
            if not ended_well(task, code):
                failed.add(job.name)
                break
        stop.check()
    return codes


def _run(task: Task, stop: Stop, quiet: bool) -> int:
    """Run a command to its end, again where somebody else than this process stopped it."""
    for _ in range(MOST_RESTARTS):
        child = start(task, quiet=quiet)
        try:
            code = _wait(child, stop)
        except BaseException:  # a second Ctrl-C
            child.send_signal(signal.SIGINT)
            raise
        if code != Preempted.exit_code or stop.signal:
            return code
        say(f"{task.arguments[0]} was preempted: once more")
    return Preempted.exit_code


def _wait(child: subprocess.Popen[bytes], stop: Stop) -> int:
    until: float | None = None
    while (code := child.poll()) is None:
        if stop.signal and until is None:
            child.send_signal(stop.signal)
            until = time.monotonic() + LEAVE_S
        if until is not None and time.monotonic() > until:
            child.kill()
        time.sleep(POLL_S)
    return code if code >= 0 else 128 - code


class Work:
    """A task for submitit, which pickles it, calls it under srun, and `checkpoint` when the job's time is nearly over.

    Attributes:
        folder: where the command runs.
    """

    def __init__(self, task: Task, folder: Path) -> None:
        self.task, self.folder = task, folder
        self.child: subprocess.Popen[bytes] | None = None
        self.signal: signal.Signals | None = None  # the last one that came

    def __call__(self) -> None:
        """Run the command; the process ends with its exit code where later jobs are not to begin."""
        os.chdir(self.folder)
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._pass_on)
        self.child = start(self.task)
        if self.signal is not None:  # it came before there was a child to tell
            self._pass_on(self.signal)
        code = self.child.wait()
        self.child = None
        # by SIGTERM Slurm ends the job for good, or, where it preempts it, to queue it again itself
        if code == Preempted.exit_code and self.signal != signal.SIGTERM:
            try:
                requeue()
            except ResourceError as error:
                say(f"error: {error}")
        if code and not ended_well(self.task, code):
            sys.exit(code if code > 0 else 128 - code)

    def checkpoint(self) -> Any:
        """Called in a signal handler: let the command save, then have the same done again.

        Returns:
            What submitit queues.
        """
        from submitit.helpers import DelayedSubmission

        if self.child is not None:
            self._pass_on(signal.SIGUSR1)
            until = time.monotonic() + SAVE_S
            while _at_work(self.child.pid) and time.monotonic() < until:
                time.sleep(POLL_S)
        return DelayedSubmission(Work(self.task, self.folder))

    def _pass_on(self, number: int, frame: Any = None) -> None:
        self.signal = signal.Signals(number)
        if self.child is not None and _at_work(self.child.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.child.pid, number)


def _at_work(pid: int) -> bool:
    """Whether a child runs; in a signal handler, which `Popen.wait` may hold its lock in, and without reaping it."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False


def requeue() -> None:
    """Have Slurm queue this job again, to go on where it was stopped.

    Raises:
        ResourceError: it does not, or has done so too often.
    """
    job, again = os.environ.get("SLURM_JOB_ID", ""), "submit the same once more to go on"
    if int(os.environ.get("SLURM_RESTART_COUNT", "0") or 0) >= MOST_RESTARTS:
        raise ResourceError(f"job {job} was stopped {MOST_RESTARTS} times", again)
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60)
        fault = done.stderr.strip() if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        fault = str(error)
    if fault:
        raise ResourceError(f"job {job} was stopped, and Slurm does not queue it again: {fault}", again)
    say(f"job {job} was stopped and is queued again: it goes on where it stands")
