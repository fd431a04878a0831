"""The only per-item loops: what is done is skipped, a bad item is named and the others go on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from wsss_cli.engine.rundir import RunDir
from wsss_cli.errors import DataError, WriteError
from wsss_cli.processes import in_processes

if TYPE_CHECKING:
    from wsss_cli.engine.context import Context  # loads torch, half a gigabyte that most worker processes need not hold

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")
Made = TypeVar("Made")
Lost = list[dict[str, str]]
THREADS = 4  # that read ahead, and as many that write


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
    batches: Sequence[Sequence[Item]],
    load: Callable[[Item], Loaded],
    compute: Callable[[list[Loaded]], Iterable[Made]],
    store: Callable[[Made], object],
    name: Callable[[Item], str],
    run: RunDir,
    ctx: Context,
    title: str,
) -> Lost:
    """Work through batches in this process; between two of them the stop flag is looked at.

    Reading, computing and writing overlap: `load` and `store` run in threads, ahead of `compute` and behind it.

    Args:
        batches: what is still to be done.
        load: reads an item; its DataErrors lose the item.
        compute: what is to be stored of each item of a batch, from all that could be loaded of it.
        store: writes an item's result, whole or not at all.
    Returns:
        Every lost item: {'id', 'reason'}.
    """
    lost: Lost = []
    writing: deque[Future[object]] = deque()
    outcome = partial(_outcome, load)
    ahead = prefetch(batches, lambda batch: [outcome(item) for item in batch], THREADS, THREADS)
    with ThreadPoolExecutor(THREADS) as pool, ctx.ui.progress(sum(len(batch) for batch in batches), title) as bar:
        for batch, loaded in zip(batches, ahead, strict=True):
            ctx.stop.check()
            lost += [
                {"id": name(item), "reason": why} for item, (why, found) in zip(batch, loaded, strict=True) if not found
            ]
            if good := [found[0] for _, found in loaded if found]:
                writing.extend(pool.submit(store, made) for made in compute(good))
            while len(writing) > 2 * len(batch) + THREADS:
                writing.popleft().result()
            bar.advance(len(batch))
        for future in writing:
            future.result()
    for entry in lost:
        run.log(f"lost {entry['id']}: {entry['reason']}")
    return lost


def sweep_processes(
    items: Sequence[Item],
    work: Callable[[Item], Made],
    name: Callable[[Item], str],
    workers: int,
    run: RunDir,
    ctx: Context,
    title: str,
    collect: Callable[[Made], object] = lambda made: None,
    *,
    threads: bool = False,
) -> Lost:
    """Like `sweep`, an item at a time in worker processes. `work` must be picklable; its DataErrors lose the item.

    Args:
        collect: given what `work` returned for each item that is not lost, in order.
        threads: in threads of this process instead, for work that shares a GPU.
    """
    lost: Lost = []
    with ctx.ui.progress(len(items), title) as bar:
        outcomes = in_processes(partial(_outcome, work), items, workers, few=2, threads=threads, check=ctx.stop.check)
        for item, (problem, made) in zip(items, outcomes, strict=True):
            if made is None:
                lost.append({"id": name(item), "reason": problem})
            else:
                collect(made[0])
            bar.advance(1)
    for entry in lost:
        run.log(f"lost {entry['id']}: {entry['reason']}")
    return lost


def _outcome(work: Callable[[Item], Made], item: Item) -> tuple[str, tuple[Made] | None]:
    """Do an item: ("", what was made), or (what is wrong with it, None)."""
    try:
        return "", (work(item),)
    except WriteError:
        raise
    except DataError as error:
        return error.message, None
