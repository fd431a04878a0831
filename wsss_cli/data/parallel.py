"""A function over many items in worker processes, results in order."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")
FEW = 64  # items for which starting processes takes longer than the work


def in_processes(
    work: Callable[[Item], Made],
    items: Sequence[Item],
    workers: int,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[Made]:
    """`work(item)` for each item, in order; the first error ends it.

    Args:
        work: picklable; runs in a fresh process, or in this one where there are few items.
        tick: called with (done, total) after each item.
    """
    if workers < 2 or len(items) < FEW:
        for done, item in enumerate(items, 1):
            yield work(item)
            tick(done, len(items))
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        try:
            for done, made in enumerate(pool.map(work, items, chunksize=16), 1):
                yield made
                tick(done, len(items))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
