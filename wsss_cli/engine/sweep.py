"""The only per-item loop: what cannot be read is lost and named, all others go on."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, overload

from wsss_cli.engine.work import THREADS, Entry, Loss, Work
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
Log = Callable[[str], object]
PART = 1_000_000  # items whose sizes are looked up at a time


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


class Pool(Protocol):
    """Processes of several machines that take the place of this one."""

    def entries(self, work: Work, numbered: Iterable[tuple[int, Batch[Any]]]) -> Generator[Entry, None, None]:
        """As `Work.entries`, in no order."""
        ...


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
    yield nothing. They begin and end together. Where the context has a pool, its processes do the work, in no order.

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
    here = works_alone() and ctx.pool is None  # several processes must know all that there is
    as_they_come = options.total is not None and here
    todo = batches if isinstance(batches, Sequence) or as_they_come else list(batches)
    yield from _results(Work(load, compute, finish, options, ctx), todo, lost, log)


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
    yield from _results(Work(None, None, work, options, ctx), todo, lost, log)


def _results(
    work: Work, todo: Sequence[Batch[Item]] | Iterable[Batch[Item]], lost: Lost, log: Log
) -> Iterator[tuple[Item, Any]]:
    options, ctx = work.options, work.ctx
    total = _count(todo) if options.total is None else options.total
    shares = not works_alone()
    numbered: Iterable[tuple[int, Batch[Item]]] = enumerate(todo)
    if shares:
        assert isinstance(todo, Sequence)
        numbered = ((number, todo[number]) for number in turns_of(len(todo)))
    entries = work.entries(numbered, total) if ctx.pool is None else ctx.pool.entries(work, numbered)
    before, places = len(lost), []
    with ctx.ui.progress(total, options.title) as bar, closing(entries):
        everything: Iterator[Entry] = entries
        if shares:
            assert isinstance(todo, Sequence)
            everything = _of_all_ranks(entries, todo, options.title, ctx.stop.check)
        for place, item, outcome in everything:
            if isinstance(outcome, Loss):
                places.append(place)
                lost.append({"id": item.id, "reason": outcome.reason})
                log(f"lost {item.id}: {outcome.reason}")
            else:
                yield item, outcome[0]
            bar.advance(1)
    if shares or ctx.pool is not None:
        in_order = sorted(zip(places, lost[before:], strict=True), key=lambda pair: pair[0])
        lost[before:] = [entry for _, entry in in_order]


def _of_all_ranks(
    entries: Iterator[Entry],
    todo: Sequence[Batch[Item]],
    title: str,
    check: Callable[[], object],
) -> Iterator[Entry]:
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
    quiet = replace(ctx, ui=Silent(), pool=None)
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
