"""Work in processes of its own: results in order, signals left to the parent, no orphans."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import resource_tracker
from typing import TypeVar

from wsss_cli.errors import ResourceError

Item = TypeVar("Item")
Made = TypeVar("Made")
FEW = 64  # items for which starting processes takes longer than the work
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)  # ask work to stop
AHEAD = 16  # items given to each process before their results are asked for


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_processes(
    work: Callable[[Item], Made],
    items: Iterable[Item],
    workers: int,
    *,
    few: int = FEW,
    ahead: int = AHEAD,
    threads: bool = False,
    check: Callable[[], object] = lambda: None,
) -> Iterator[Made]:
    """`work(item)` for each item, in order; the first error ends it.

    Args:
        work: picklable; runs in a fresh process (one with threads cannot be forked safely), or in this one where
            there are fewer than two workers, or than `few` items in a sequence.
        ahead: items that each process is given before their results are asked for.
        threads: threads of this process instead, for work that shares a GPU.
        check: called after each item and at least once a second; what it raises ends the work.
    Raises:
        ResourceError: a worker process died.
    """
    if workers < 2 or (isinstance(items, Sequence) and len(items) < few):
        for item in items:
            yield work(item)
            check()
        return
    pool: Executor
    if threads:
        import torch  # here: worker processes may do without

        gpu = torch.cuda.current_device() if torch.cuda.is_available() else None
        pool = ThreadPoolExecutor(workers, "work", *(() if gpu is None else (torch.cuda.set_device, (gpu,))))
    else:
        try:
            with signals_held():
                resource_tracker.ensure_running()  # here, as it lets signals in again
            pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), start_worker, (os.getpid(),))
        except OSError as error:  # no semaphores where /dev/shm cannot be written
            raise ResourceError(
                f"cannot start worker processes: {error.strerror or error}", "use one worker"
            ) from error
    try:
        for future in _window(pool, work, items, ahead * workers):
            while not wait((future,), timeout=1.0).done:
                check()
            yield future.result()
            check()
    except BrokenProcessPool as error:
        check()  # asked to stop, perhaps together with the worker
        raise ResourceError("a worker process died, probably for lack of memory", "use fewer workers") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _window(pool: Executor, work: Callable[[Item], Made], items: Iterable[Item], size: int) -> Iterator[Future[Made]]:
    """Futures in order, at most `size` of them ahead, so that results do not pile up."""
    waiting: deque[Future[Made]] = deque()
    for item in items:
        with signals_held():  # it starts processes
            waiting.append(pool.submit(work, item))
        if len(waiting) >= size:
            yield waiting.popleft()
    while waiting:
        yield waiting.popleft()


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Keep signals from this thread while the body starts processes, which inherit that: see `start_worker`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    import cv2

    cv2.setNumThreads(0)  # the processes are the parallelism
    os.environ["OMP_NUM_THREADS"] = "1"  # likewise for torch, where the work loads it
