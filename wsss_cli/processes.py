"""Work in processes and threads of its own: results in order, signals left to the parent, no orphans."""

from __future__ import annotations

import contextlib
import ctypes
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from wsss_cli.errors import ResourceError, WsssError
from wsss_cli.signals import STOPPING

Item = TypeVar("Item")
Result = TypeVar("Result")
Check = Callable[[], object]
LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "SLURM_CPUS_PER_TASK")
CGROUPS, CGROUP_ROOT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
TRY_SECONDS = 0.5  # of light work that are done here before processes are thought of
PAY_SECONDS = 4.0  # of light work that must be left for processes to pay: starting each takes half a second of a core
CHUNK_SECONDS = 0.1  # of work that a process is handed at a time
CHUNKS = 8  # that each process is handed before the first one's results are asked for
AHEAD = 256  # items that these hold at most

FINISH_SECONDS = 5.0  # that heavy work has to be finished in after a stop
LEAVE_SECONDS = 10.0  # after which a worker process ends where no result is wanted, whatever it is at

# in a worker process: a pipe that ends when no result is wanted any more. No event: one that is waited for by a process
# that is killed is never set
_wanted: Connection | None = None
_asked: list[Check] = []  # the last one raises where this process is asked to stop


class Unwanted(Exception):
    """In a worker process: nobody wants the result of the item at work any more."""


def check_stop() -> None:
    """For methods that take long on one item, between their views, iterations or files: raise if it is to be left.

    Raises what the stop flag of the process says; in a worker process `Unwanted`, which its parent drops.
    """
    for check in _asked[-1:]:
        check()


@contextlib.contextmanager
def stopping_by(check: Check) -> Iterator[None]:
    """Let `check_stop` ask `check` while the body runs."""
    _asked.append(check)
    try:
        yield
    finally:
        _asked.pop()


def _is_unwanted() -> bool:
    return _wanted is not None and _wanted.poll()


def _refuse_unwanted() -> None:
    if _is_unwanted():
        raise Unwanted


def _leave(wanted: Connection) -> None:
    wanted.poll(None)
    time.sleep(LEAVE_SECONDS)
    os._exit(1)


def cores(among: int = 1) -> int:
    """Processor cores that this process may use, at least 1.

    Those of its affinity mask, at most as many as the variables of `LIMITS` and the quota of its control group say.

    Args:
        among: processes that share the cores, where no variable says what each one has.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    firsts = [os.environ.get(variable, "").split(",")[0].strip() for variable in LIMITS]  # may be lists, by nesting
    granted = [int(first) for first in firsts if first.isdecimal() and len(first) < 10 and int(first) > 0]
    usable = math.ceil(min(usable, _quota()))
    return max(1, min(usable, *granted) if granted else usable // among)


def _quota() -> float:
    """Cores that the control groups of this process grant it (Linux, both versions); infinite: as many as there are."""
    quota = math.inf
    with contextlib.suppress(OSError, ValueError):
        for line in CGROUPS.read_text(encoding="utf-8").splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            top = CGROUP_ROOT / "cpu" if controllers else CGROUP_ROOT
            inner = top / group.strip("/")
            for folder in (inner, *inner.parents):  # a group has no more than those that it is in
                if folder == top.parent:
                    break
                quota = min(quota, _granted(folder))
    return quota


def _granted(folder: Path) -> float:
    for files in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):  # version 2, version 1
        with contextlib.suppress(OSError, ValueError):
            limit, period = " ".join((folder / name).read_text(encoding="utf-8") for name in files).split()
            if limit.isdecimal() and int(limit) > 0 and int(period) > 0:  # else 'max', or -1
                return int(limit) / int(period)
    return math.inf


def in_processes(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    *,
    check: Check,
    heavy: bool = False,
    ahead: int = AHEAD,
) -> Generator[Result, None, None]:
    """`work(item)` for each item, in order; the first error ends it.

    Processes are handed chunks of items, of a tenth of a second of work each, so that many small items do not cost more
    than the work itself.

    Args:
        work: picklable; runs in a fresh process (one with threads cannot be forked safely). In this one where there are
            fewer than two workers or items, and where it proves to be done before processes would have started.
        check: called after each item and at least once a second; what it raises ends the work.
        heavy: an item takes so long that processes are started at once, and that results of what is being worked on
            and of what was handed on are taken where `check` ends the work, as far as they come within seconds.
        ahead: items that each process is handed at most before the first one's results are asked for.
    Raises:
        ResourceError: a worker process died, or none can be started.
    """
    count = len(items) if isinstance(items, Sequence) else math.inf
    source = iter(items)
    if workers < 2 or count < 2 or not heavy:
        seconds = 0.0
        for done, item in enumerate(source, 1):
            begin = time.monotonic()
            result = work(item)
            seconds += time.monotonic() - begin
            yield result
            check()
            if workers > 1 and seconds >= TRY_SECONDS and (count - done) * seconds / done > PAY_SECONDS:
                break
        else:
            return
    context = multiprocessing.get_context("spawn")
    try:
        with signals_held():
            resource_tracker.ensure_running()  # here, as it lets signals in again
            wanted, holder = context.Pipe(duplex=False)
        pool = ProcessPoolExecutor(workers, context, _start, (os.getpid(), wanted))
    except OSError as error:  # no semaphores where /dev/shm cannot be written
        raise ResourceError(f"cannot start worker processes: {error.strerror or error}", "use one worker") from error
    chunks, largest = workers * CHUNKS, max(1, ahead // CHUNKS)
    try:
        at_end = holder.close if heavy else None  # results that were waited for so long are taken before a stop
        yield from _results(pool, work, source, lambda: workers * ahead, chunks, largest, check, at_end)
    except BrokenProcessPool as error:
        check()  # asked to stop, perhaps together with the worker
        raise ResourceError("a worker process died, probably for lack of memory", "use fewer workers") from error
    finally:
        holder.close()
        pool.shutdown(wait=True, cancel_futures=True)
        wanted.close()


def in_threads(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int, *, limit: Callable[[], int]
) -> Generator[Result, None, None]:
    """`in_processes` in threads of this process, for work that waits for files or shares a GPU.

    Where `items` raise, which is how they look at a stop flag, what the threads have been handed is done first.

    Args:
        limit: how many items threads may hold, asked before each one.
    """
    import torch  # here: worker processes may do without

    gpu = torch.cuda.current_device() if torch.cuda.is_initialized() else None
    with ThreadPoolExecutor(workers, "work", *(() if gpu is None else (torch.cuda.set_device, (gpu,)))) as pool:
        yield from _results(pool, work, iter(items), limit, sys.maxsize, 1)


def _results(
    pool: Executor,
    work: Callable[[Item], Result],
    source: Iterator[Item],
    limit: Callable[[], int],
    chunks: int,
    largest: int,
    check: Check = lambda: None,
    at_end: Callable[[], object] | None = None,
) -> Generator[Result, None, None]:
    """Results in order; at most `limit()` items in `chunks` chunks of `largest` are ahead, so that none pile up.

    An error of the source is raised when all that was handed on before it is yielded; one of `work` or `check` at once.
    With `at_end` one of `check` is like one of the source, and after some seconds `at_end` has the rest left undone.
    """
    waiting: deque[tuple[Future[Any], int]] = deque()
    handed, size = 0, 1
    ended: Exception | None = None
    until = math.inf

    def end(problem: Exception) -> None:
        nonlocal ended, until
        ended, until = problem, time.monotonic() + FINISH_SECONDS

    def look() -> None:
        try:
            if ended is None:
                check()
        except Exception as problem:
            if at_end is None:
                raise
            end(problem)

    while True:
        while ended is None and len(waiting) < chunks and handed < max(limit(), 1):
            look()  # before an item is taken, which may be much work
            try:
                if ended is not None:
                    break
                chunk = list(islice(source, size))
            except Exception as problem:
                end(problem)
                break
            if not chunk:
                break
            with signals_held():  # it starts processes
                waiting.append((pool.submit(_chunk, work, chunk), len(chunk)))
            handed += len(chunk)
        if not waiting:
            break
        future, count = waiting.popleft()
        while not wait((future,), timeout=1.0).done:
            look()
            if at_end is not None and time.monotonic() > until:
                at_end()
        results, error, seconds = future.result()
        handed -= count
        size = max(1, min(largest, 2 * count, int(CHUNK_SECONDS * count / max(seconds, 1e-6))))
        for result in results:
            yield result
            look()
        if error is not None:
            raise error if ended is None else ended
        if len(results) < count:  # what was not begun
            break
    if ended is not None:
        raise ended


def _chunk(work: Callable[[Item], Result], items: list[Item]) -> tuple[list[Result], Exception | None, float]:
    """Results of the items before the first error, that error, and the seconds that they took."""
    begin, results = time.monotonic(), []
    for item in items:
        if _is_unwanted():
            break
        try:
            results.append(work(item))
        except Exception as error:
            if _wanted is not None and not isinstance(error, WsssError):
                error.add_note(traceback.format_exc())  # a traceback does not cross the border of a process
            return results, error, time.monotonic() - begin
    return results, None, time.monotonic() - begin


def _start(parent: int, wanted: Connection) -> None:
    global _wanted  # a worker process does one piece of work
    _wanted = wanted
    _asked.append(_refuse_unwanted)
    threading.Thread(target=_leave, args=(wanted,), daemon=True).start()
    start_worker(parent)


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Keep signals from this thread while the body starts processes, which inherit that: see `start_worker`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with(parent: int, number: signal.Signals) -> None:
    """From here on this process gets a signal when its parent ends (Linux); at once where it has ended already."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, number)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def start_worker(parent: int) -> None:
    """For the start of a worker process: leave signals to the parent, and die with it (Linux).

    A scheduler signals the whole process group; the parent decides when to stop. A worker that outlives a killed parent
    would hold the files that it has open, the lock of the run directory among them. Started within `signals_held`, a
    worker hears no signal before it gets here.

    Args:
        parent: the process id of the parent, which may be gone by now.
    """
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    end_with(parent, signal.SIGKILL)
    import cv2

    cv2.setNumThreads(0)  # the processes are the parallelism
    os.environ["OMP_NUM_THREADS"] = "1"  # likewise for torch, where the work loads it
