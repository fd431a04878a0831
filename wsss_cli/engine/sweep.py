"""The only per-item loop: what cannot be read is lost and named, all others go on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, overload

from wsss_cli.engine.halving import Halving
from wsss_cli.errors import DataError
from wsss_cli.processes import in_processes, in_threads
from wsss_cli.ranks.who import turns_of, works_alone
from wsss_cli.rows import Each, Rows

if TYPE_CHECKING:
    from wsss_cli.engine.context import Context  # loads torch, half a gigabyte that most worker processes need not hold


class Named(Protocol):
    @property
    def id(self) -> str: ...


Item = TypeVar("Item", bound=Named)
Loaded = TypeVar("Loaded")
Computed = TypeVar("Computed")
Result = TypeVar("Result")
Lost = list[dict[str, str]]
Size = tuple[int, int]
Place = tuple[int, int]  # number of a batch, and of an item in it
Log = Callable[[str], object]
PART = 1_000_000  # items whose sizes are looked up at a time
THREADS = 4  # that read ahead, and as many that write behind


@dataclass(frozen=True)
class Batch(Generic[Item]):
    """Items that are computed together.

    Attributes:
        size: (height, width) of each, where it is known.
    """

    items: Sequence[Item]
    size: Size | None = None


@dataclass(frozen=True)
class SweepOptions:
    """How a sweep is done.

    Attributes:
        title: of the progress bar.
        less_memory: how the user makes one item need less memory, for the error where it does not fit.
        workers: that finish what is computed.
        processes: they are processes, for work of a CPU; else threads, for files and for work that shares a GPU.
        ahead: items that each process is handed before the first one's results are asked for.
        size_of: the size of what is loaded; a batch that was put together by sizes that do not hold any more is
            computed in parts, each of one size.
        total: items of batches that are put together while others are worked on; None: the batches are all there.
    """

    title: str
    less_memory: str = "--device cpu"
    workers: int = THREADS
    processes: bool = False
    ahead: int = 2
    size_of: Callable[[Any], Size] | None = None
    total: int | None = None


@dataclass(frozen=True)
class _Loss:
    reason: str


def sweep(
    batches: Iterable[Batch[Item]],
    load: Callable[[Item], Loaded],
    compute: Callable[[list[Loaded]], Iterable[Computed]],
    finish: Callable[[Computed], Result],
    options: SweepOptions,
    lost: Lost,
    ctx: Context,
    log: Log = str,
) -> Iterator[tuple[Item, Result]]:
    """Work through batches; between two of them, and once a second while waiting, the stop flag is looked at.

    Reading, computing and finishing overlap: `load` runs in threads, ahead of `compute`; `finish` in threads or
    processes, behind it. A DataError of either loses the item, any other error ends the sweep. A batch for which memory
    is short is halved, and so are those after it.

    Ranks take turns at the batches. The first one is told of what all of them finish and lose, in no order; the others
    yield nothing. They begin and end together.

    Args:
        batches: what is still to be done; the same on all ranks.
        load: reads an item.
        compute: what is to be finished of each item of a batch, in order, from all of it that could be loaded.
        finish: writes or counts what is computed of an item; picklable where `options.processes`.
        lost: lost items are added to it, {'id', 'reason'}.
        log: told of each of them.
    Returns:
        (item, what `finish` returned) of each that is not lost, in order.
    Raises:
        ResourceError: memory is short for one item by itself, or a worker process died.
    """
    as_they_come = options.total is not None and works_alone()  # several ranks must know all that there is
    todo = batches if isinstance(batches, Sequence) or as_they_come else list(batches)
    now = [0]  # items of the batch that is computed

    def jobs() -> Iterator[tuple[Place, Item, Computed | _Loss]]:
        halving = Halving(compute, options, ctx)
        numbered = (
            ((number, todo[number]) for number in turns_of(len(todo)))
            if isinstance(todo, Sequence)
            else enumerate(todo)
        )
        reading = prefetch(numbered, partial(_read, load), THREADS, THREADS)
        with closing(reading):
            for number, batch, outcomes in reading:
                ctx.stop.check()
                now[0] = len(batch.items)
                results = halving.run([one[0] for one in outcomes if not isinstance(one, _Loss)], batch)
                for at, (item, outcome) in enumerate(zip(batch.items, outcomes, strict=True)):
                    yield (number, at), item, outcome if isinstance(outcome, _Loss) else next(results)

    yield from _finished(jobs(), todo, finish, options, lost, ctx, log, lambda: 2 * now[0] + options.workers)


def sweep_items(
    items: Sequence[Item],
    work: Callable[[Item], Result],
    options: SweepOptions,
    lost: Lost,
    ctx: Context,
    log: Log = str,
) -> Iterator[tuple[Item, Result]]:
    """A `sweep` without batches: `work`, which is all there is to do with an item, runs in threads or processes."""

    todo = Each(Rows(items, range(len(items))), lambda item: Batch([item]))

    def jobs() -> Iterator[tuple[Place, Item, Item]]:
        for number in turns_of(len(items)):
            ctx.stop.check()
            item = items[number]
            yield (number, 0), item, item

    yield from _finished(jobs(), todo, work, options, lost, ctx, log, lambda: 2 * options.workers)


def _finished(
    jobs: Iterable[tuple[Place, Item, Any]],
    todo: Iterable[Batch[Item]],
    finish: Callable[[Any], Result],
    options: SweepOptions,
    lost: Lost,
    ctx: Context,
    log: Log,
    limit: Callable[[], int],
) -> Iterator[tuple[Item, Result]]:
    handed: deque[tuple[Place, Item]] = deque()
    total = _count(todo) if options.total is None else options.total

    def hand() -> Iterator[Any]:
        for place, item, job in jobs:
            handed.append((place, item))
            yield job

    work, check = partial(_outcome, finish), ctx.stop.check
    if options.processes:
        workers = options.workers if total > 1 else 1
        outcomes = in_processes(work, hand(), workers, heavy=True, ahead=options.ahead, check=check)
    else:
        outcomes = in_threads(work, hand(), options.workers, limit=limit)
    entries: Iterator[tuple[Place, Item, Any]] = ((*handed.popleft(), outcome) for outcome in outcomes)
    if shares := not works_alone():
        assert isinstance(todo, Sequence)
        entries = _of_all_ranks(entries, todo, options.title, check)
    before, places = len(lost), []
    with ctx.ui.progress(total, options.title) as bar, closing(outcomes):
        for place, item, outcome in entries:
            if isinstance(outcome, _Loss):
                places.append(place)
                lost.append({"id": item.id, "reason": outcome.reason})
                log(f"lost {item.id}: {outcome.reason}")
            else:
                yield item, outcome[0]
            bar.advance(1)
    if shares:
        in_order = sorted(zip(places, lost[before:], strict=True), key=lambda pair: pair[0])
        lost[before:] = [entry for _, entry in in_order]


def _of_all_ranks(
    entries: Iterator[tuple[Place, Item, Any]],
    todo: Sequence[Batch[Item]],
    title: str,
    check: Callable[[], object],
) -> Iterator[tuple[Place, Item, Any]]:
    from wsss_cli.ranks.sharing import shared  # torch, see above

    batch_of = lru_cache(maxsize=8)(todo.__getitem__)
    names = (item.id for batch in todo for item in batch.items)
    with_places = ((place, outcome) for place, _, outcome in entries)
    for (number, at), outcome in shared(with_places, names, title, check):
        yield (number, at), batch_of(number).items[at], outcome


def _count(todo: Iterable[Batch[Any]]) -> int:
    if isinstance(todo, Grouped):
        return todo.items
    return len(todo) if isinstance(todo, Each) else sum(len(batch.items) for batch in todo)


def _read(
    load: Callable[[Item], Loaded], numbered: tuple[int, Batch[Item]]
) -> tuple[int, Batch[Item], list[tuple[Loaded] | _Loss]]:
    number, batch = numbered
    return number, batch, [_outcome(load, item) for item in batch.items]


def _outcome(work: Callable[[Any], Result], item: Any) -> tuple[Result] | _Loss:
    """What became of an item: (result,), or what is wrong with it."""
    if isinstance(item, _Loss):
        return item
    try:
        return (work(item),)
    except DataError as error:
        return _Loss(error.message)


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


class Grouped(Sequence[Batch[Item]]):
    """Batches of items of one size, each put together when it is asked for.

    Args:
        base: the items.
        order: their numbers in the order of the batches, int64 [N].
        parts: (size, first place in the order, place after the last) of each batch.
    """

    def __init__(self, base: Sequence[Item], order: Any, parts: Sequence[tuple[Size, int, int]]) -> None:
        self.base, self.order, self.parts = base, order, parts

    @property
    def items(self) -> int:
        """How many there are in all batches."""
        return sum(end - start for _, start, end in self.parts)

    def __len__(self) -> int:
        return len(self.parts)

    @overload
    def __getitem__(self, at: int) -> Batch[Item]: ...
    @overload
    def __getitem__(self, at: slice) -> Grouped[Item]: ...
    def __getitem__(self, at: int | slice) -> Batch[Item] | Grouped[Item]:
        if isinstance(at, slice):
            return Grouped(self.base, self.order, self.parts[at])
        size, start, end = self.parts[at]
        return Batch([self.base[int(number)] for number in self.order[start:end]], size)


def grouped(
    items: Sequence[Item],
    listed: Any,
    size_of: Callable[[Item], Size],
    like: Callable[[Size], Size],
    count_of: Callable[[Size], int],
    lost: Lost,
    ctx: Context,
    log: Log = str,
) -> Grouped[Item]:
    """Batches of items of one size, smaller sizes first; the same on all ranks, which share the looking at sizes.

    Args:
        listed: height and width of each item as far as they are known, [N, 2]; 0 where they are not.
        size_of: (height, width) of an item that is not listed; its DataErrors lose the item.
        like: the size that an item of some size is batched under.
        count_of: how many items of such a size are computed together.
        lost, log: as for `sweep`.
    """
    import numpy as np

    from wsss_cli.engine.context import Silent  # sizes are read in no time: no bar

    keys = listed[:, 0].astype(np.uint64) << np.uint64(32) | listed[:, 1]
    unknown = np.flatnonzero(keys == 0)
    numbered = Each(Rows(range(len(items)), unknown), lambda number: _Numbered(number, items[number]))
    quiet = replace(ctx, ui=Silent())
    read = sweep_items(numbered, lambda one: size_of(one.item), SweepOptions("sizes"), lost, quiet, log)
    for one, (height, width) in read:
        keys[one.number] = height << 32 | width
    if not works_alone():
        from wsss_cli.ranks.group import only_first

        keys = only_first(lambda: keys)
    values = np.unique(keys)
    sizes = [like((int(value) >> 32, int(value) & 0xFFFFFFFF)) if value else (0, 0) for value in values]  # 0: lost
    ranks = {size: rank for rank, size in enumerate(sorted(set(sizes)))}
    rank_of = np.array([ranks[size] for size in sizes], np.uint16 if len(ranks) < 2**16 else np.uint32)
    groups = np.empty(len(keys), rank_of.dtype)
    for start in range(0, len(keys), PART):
        groups[start : start + PART] = rank_of[np.searchsorted(values, keys[start : start + PART])]
    order = np.argsort(groups, kind="stable")
    ends = np.cumsum(np.bincount(groups, minlength=len(ranks))).tolist()
    parts = []
    for (size, rank), end in zip(ranks.items(), ends, strict=True):
        start = ends[rank - 1] if rank else 0
        count = max(1, count_of(size)) if size != (0, 0) else 0
        parts += [(size, first, min(first + count, end)) for first in range(start, end, count)] if count else []
    return Grouped(items, order, parts)


@dataclass(frozen=True)
class _Numbered(Generic[Item]):
    number: int
    item: Item

    @property
    def id(self) -> str:
        return self.item.id
