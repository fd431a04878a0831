"""The only per-item loop: what cannot be read is lost and named, all others go on."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate
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
        order: their numbers in the order of the batches, uint32 [N].
        groups: (size, first place in the order, place after the last, items of a batch) of each size.
        numbers: of the batches that are these; None: all.
    """

    def __init__(
        self,
        base: Sequence[Item],
        order: Any,
        groups: Sequence[tuple[Size, int, int, int]],
        numbers: range | None = None,
    ) -> None:
        self.base, self.order, self.groups = base, order, groups
        counts = (-(-(end - start) // count) for _, start, end, count in groups)
        self._ends = list(accumulate(counts))  # number of batches of each size and those before
        self.numbers = range(self._ends[-1] if groups else 0) if numbers is None else numbers

    @property
    def items(self) -> int:
        """How many there are in all batches."""
        if self.groups and len(self) == self._ends[-1]:
            return sum(end - start for _, start, end, _ in self.groups)
        return sum(end - start for _, start, end in map(self._part, self.numbers))

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, at: int) -> Batch[Item]: ...
    @overload
    def __getitem__(self, at: slice) -> Grouped[Item]: ...
    def __getitem__(self, at: int | slice) -> Batch[Item] | Grouped[Item]:
        if isinstance(at, slice):
            return Grouped(self.base, self.order, self.groups, self.numbers[at])
        size, start, end = self._part(self.numbers[at])
        return Batch([self.base[int(number)] for number in self.order[start:end]], size)

    def _part(self, number: int) -> tuple[Size, int, int]:
        """(size, first place in the order, place after the last) of a batch."""
        group = bisect_right(self._ends, number)
        size, start, end, count = self.groups[group]
        first = start + (number - (self._ends[group - 1] if group else 0)) * count
        return size, first, min(first + count, end)


def grouped(
    items: Sequence[Item],
    listed: Callable[[Sequence[Item]], Any],
    size_of: Callable[[Item], Size],
    like: Callable[[Size], Size],
    count_of: Callable[[Size], int],
    lost: Lost,
    ctx: Context,
    log: Log = str,
) -> Grouped[Item]:
    """Batches of items of one size, smaller sizes first; the same on all ranks, which share the looking at sizes.

    Args:
        listed: height and width of some of the items as far as they are known, [N, 2]; 0 where they are not.
        size_of: (height, width) of an item that is not listed; its DataErrors lose the item.
        like: the size that an item of some size is batched under.
        count_of: how many items of such a size are computed together.
        lost, log: as for `sweep`.
    """
    import numpy as np

    from wsss_cli.engine.context import Silent  # sizes are read in no time: no bar

    def keys_of(start: int) -> Any:
        """Height and width as one number, of the items of a part; 0 where they are not listed."""
        part = listed(items[start : start + PART]).astype(np.uint64)
        return part[:, 0] << np.uint64(32) | part[:, 1]

    starts = range(0, len(items), PART)
    known, gaps = np.zeros(0, np.uint64), [np.zeros(0, np.int64)]
    for start in starts:
        keys = keys_of(start)
        known = np.union1d(known, keys[keys > 0])
        gaps.append(start + np.flatnonzero(keys == 0))
    unknown = np.concatenate(gaps)
    looked = np.zeros(len(unknown), np.uint64)
    numbered = Each(range(len(unknown)), lambda at: _Numbered(at, items[int(unknown[at])]))
    quiet = replace(ctx, ui=Silent(), pool=None)
    read = sweep_items(numbered, lambda one: size_of(one.item), SweepOptions("sizes"), lost, quiet, log)
    for one, (height, width) in read:
        looked[one.number] = height << 32 | width
    if not works_alone():
        from wsss_cli.ranks.group import only_first

        looked = only_first(lambda: looked)
    values = np.union1d(known, looked)
    sizes = [like((int(value) >> 32, int(value) & 0xFFFFFFFF)) if value else (0, 0) for value in values]  # 0: lost
    ranks = {size: rank for rank, size in enumerate(sorted(set(sizes)))}
    rank_of = np.array([ranks[size] for size in sizes], np.uint16 if len(ranks) < 2**16 else np.uint32)
    groups, counts = np.empty(len(items), rank_of.dtype), np.zeros(len(ranks), np.int64)
    for start in starts:
        keys = keys_of(start)
        first, last = np.searchsorted(unknown, (start, start + len(keys)))
        keys[unknown[first:last] - start] = looked[first:last]
        groups[start : start + PART] = rank_of[np.searchsorted(values, keys)]
        counts += np.bincount(groups[start : start + PART], minlength=len(ranks))
    ends = np.cumsum(counts)
    parts = [
        (size, int(end - count), int(end), max(1, count_of(size)))
        for size, end, count in zip(ranks, ends, counts, strict=True)
        if size != (0, 0)
    ]
    return Grouped(items, _in_groups(groups, ends - counts), parts)


def _in_groups(groups: Any, free: Any) -> Any:
    """Numbers of items by their groups, in each ascending, uint32 [N]: a stable sort in parts.

    Args:
        groups: of each item, [N].
        free: the first place of each group.
    """
    import numpy as np

    order, free = np.empty(len(groups), np.uint32), free.copy()
    for start in range(0, len(groups), PART):
        part = groups[start : start + PART]
        here = np.bincount(part, minlength=len(free))
        places = np.repeat(free - (np.cumsum(here) - here), here) + np.arange(len(part))
        order[places] = np.argsort(part, kind="stable") + start
        free += here
    return order


@dataclass(frozen=True)
class _Numbered(Generic[Item]):
    number: int
    item: Item

    @property
    def id(self) -> str:
        return self.item.id
