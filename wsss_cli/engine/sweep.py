"""The only per-item loops: what is done is skipped, a bad item is named and the others go on."""

from __future__ import annotations

import ctypes
import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from wsss_cli.engine.context import Context
from wsss_cli.engine.rundir import RunDir
from wsss_cli.errors import DataError, WriteError

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")
Lost = list[dict[str, str]]


def prefetch(items: Iterable[Item], load: Callable[[Item], Loaded], workers: int, ahead: int) -> Iterator[Loaded]:
    """Apply `load` in threads, `ahead` items before they are needed; results in order."""
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        queue: list[Future[Loaded]] = []
        for item in items:
            queue.append(pool.submit(load, item))
            if len(queue) > ahead:
                yield queue.pop(0).result()
        for future in queue:
            yield future.result()


def sweep(
    batches: Sequence[Sequence[Item]], work: Callable[[Sequence[Item]], Lost], run: RunDir, ctx: Context, title: str
) -> Lost:
    """Work through batches in this process; between two of them the stop flag is looked at.

    Args:
        batches: what is still to be done.
        work: writes the results of a batch, whole or not at all; returns the items that were lost.
    Returns:
        Every lost item: {'id', 'reason'}.
    """
    lost: Lost = []
    with ctx.ui.progress(sum(len(batch) for batch in batches), title) as bar:
        for batch in batches:
            ctx.stop.check()
            lost += work(batch)
            bar.advance(len(batch))
    for entry in lost:
        run.log(f"lost {entry['id']}: {entry['reason']}")
    return lost


def sweep_processes(
    items: Sequence[Item],
    work: Callable[[Item], Any],
    name: Callable[[Item], str],
    workers: int,
    run: RunDir,
    ctx: Context,
    title: str,
) -> Lost:
    """Like `sweep`, an item at a time in worker processes. `work` must be picklable; its DataErrors lose the item."""
    lost: Lost = []
    waiting: dict[Future[Any], Item] = {}
    rest = iter(items)
    method = multiprocessing.get_context("spawn")
    with (
        ctx.ui.progress(len(items), title) as bar,
        ProcessPoolExecutor(workers, mp_context=method, initializer=_start_worker) as pool,
    ):
        try:
            while True:
                while len(waiting) < 4 * workers and (item := next(rest, None)) is not None:
                    waiting[pool.submit(work, item)] = item
                if not waiting:
                    break
                for future in wait(waiting, timeout=1.0, return_when=FIRST_COMPLETED).done:
                    item = waiting.pop(future)
                    try:
                        future.result()
                    except WriteError:
                        raise
                    except DataError as error:
                        lost.append({"id": name(item), "reason": error.message})
                    bar.advance(1)
                ctx.stop.check()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    for entry in lost:
        run.log(f"lost {entry['id']}: {entry['reason']}")
    return lost


def _start_worker() -> None:
    """Leave SIGINT and SIGTERM to the parent, and die with it (Linux), so that a killed job leaves no orphans."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
