"""What is to be done with each batch of a sweep: here, or, as it can be pickled, in a process of another machine."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from wsss_cli.engine.halving import Halving
from wsss_cli.errors import DataError
from wsss_cli.processes import in_processes, in_threads

if TYPE_CHECKING:
    from wsss_cli.engine.context import Context  # loads torch, half a gigabyte that most worker processes need not hold
    from wsss_cli.engine.sweep import Batch, SweepOptions

Result = TypeVar("Result")
Place = tuple[int, int]  # number of a batch, and of an item in it
Entry = tuple[Place, Any, Any]  # place of an item, the item, and what became of it: (result,), or a Loss
THREADS = 4  # that read ahead, and as many that write behind


@dataclass(frozen=True)
class Loss:
    """What is wrong with an item."""

    reason: str


@dataclass(frozen=True)
class Work:
    """The functions of a sweep, see there; without `load` and `compute` an item is finished as it is.

    Attributes:
        ctx: also that of the functions.
    """

    load: Callable[[Any], Any] | None
    compute: Callable[[list[Any]], Iterable[Any]] | None
    finish: Callable[[Any], Any]
    options: SweepOptions
    ctx: Context

    def entries(self, numbered: Iterable[tuple[int, Batch[Any]]], total: int) -> Generator[Entry, None, None]:
        """Work through batches, each with its number: what became of their items, in order.

        Args:
            total: items of all batches.
        """
        handed: deque[tuple[Place, Any]] = deque()
        now = [0]  # items of the batch that is computed
        jobs = self._computed(numbered, now) if self.compute else self._as_they_are(numbered)

        def hand() -> Iterator[Any]:
            for place, item, job in jobs:
                handed.append((place, item))
                yield job

        options, finish = self.options, partial(_outcome, self.finish)
        if options.processes:
            workers, check = options.workers if total > 1 else 1, self.ctx.stop.check
            outcomes = in_processes(finish, hand(), workers, heavy=True, ahead=options.ahead, check=check)
        else:
            more = 1 if self.compute else 2
            outcomes = in_threads(finish, hand(), options.workers, limit=lambda: 2 * now[0] + more * options.workers)
        with closing(outcomes):
            for outcome in outcomes:
                yield (*handed.popleft(), outcome)

    def _computed(self, numbered: Iterable[tuple[int, Batch[Any]]], now: list[int]) -> Iterator[tuple[Place, Any, Any]]:
        assert self.load is not None and self.compute is not None
        halving = Halving(self.compute, self.options, self.ctx)
        reading = prefetch(numbered, partial(_read, self.load), THREADS, THREADS)
        with closing(reading):
            for number, batch, outcomes in reading:
                self.ctx.stop.check()
                now[0] = len(batch.items)
                results = halving.run([one[0] for one in outcomes if not isinstance(one, Loss)], batch)
                for at, (item, outcome) in enumerate(zip(batch.items, outcomes, strict=True)):
                    yield (number, at), item, outcome if isinstance(outcome, Loss) else next(results)

    def _as_they_are(self, numbered: Iterable[tuple[int, Batch[Any]]]) -> Iterator[tuple[Place, Any, Any]]:
        for number, batch in numbered:
            for at, item in enumerate(batch.items):
                self.ctx.stop.check()
                yield (number, at), item, item


def _read(
    load: Callable[[Any], Any], numbered: tuple[int, Batch[Any]]
) -> tuple[int, Batch[Any], list[tuple[Any] | Loss]]:
    number, batch = numbered
    return number, batch, [_outcome(load, item) for item in batch.items]


def _outcome(work: Callable[[Any], Result], item: Any) -> tuple[Result] | Loss:
    """What became of an item: (result,), or what is wrong with it."""
    if isinstance(item, Loss):
        return item
    try:
        return (work(item),)
    except DataError as error:
        return Loss(error.message)


def prefetch(
    items: Iterable[Any], load: Callable[[Any], Result], workers: int, ahead: int
) -> Generator[Result, None, None]:
    """Apply `load` in threads, `ahead` items before they are needed; results in order."""
    pool = ThreadPoolExecutor(max(workers, 1), "read")
    try:
        queue: deque[Future[Result]] = deque()
        for item in items:
            queue.append(pool.submit(load, item))
            if len(queue) > ahead:
                yield queue.popleft().result()
        while queue:
            yield queue.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
