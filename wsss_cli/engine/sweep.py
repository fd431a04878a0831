"""The only per-item loop: what cannot be read is lost and named, all others go on."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from wsss_cli.errors import DataError, ResourceError, out_of_memory
from wsss_cli.processes import in_processes, in_threads

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
    """

    title: str
    less_memory: str = "--device cpu"
    workers: int = THREADS
    processes: bool = False
    ahead: int = 2


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

    Args:
        batches: what is still to be done.
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
    todo = list(batches)
    now = [0]  # items of the batch that is computed

    def jobs() -> Iterator[tuple[Item, Computed | _Loss]]:
        halving = _Halving(compute, options, ctx)
        reading = prefetch(todo, lambda batch: [_outcome(load, item) for item in batch.items], THREADS, THREADS)
        with closing(reading):
            for batch, outcomes in zip(todo, reading, strict=True):
                ctx.stop.check()
                now[0] = len(batch.items)
                results = halving.run([one[0] for one in outcomes if not isinstance(one, _Loss)], batch.size)
                for item, outcome in zip(batch.items, outcomes, strict=True):
                    yield item, outcome if isinstance(outcome, _Loss) else next(results)

    total = sum(len(batch.items) for batch in todo)
    yield from _finished(jobs(), total, finish, options, lost, ctx, log, lambda: 2 * now[0] + options.workers)


def sweep_items(
    items: Sequence[Item],
    work: Callable[[Item], Result],
    options: SweepOptions,
    lost: Lost,
    ctx: Context,
    log: Log = str,
) -> Iterator[tuple[Item, Result]]:
    """A `sweep` without batches: `work`, which is all there is to do with an item, runs in threads or processes."""

    def jobs() -> Iterator[tuple[Item, Item]]:
        for item in items:
            ctx.stop.check()
            yield item, item

    yield from _finished(jobs(), len(items), work, options, lost, ctx, log, lambda: 2 * options.workers)


def _finished(
    jobs: Iterable[tuple[Item, Any]],
    total: int,
    finish: Callable[[Any], Result],
    options: SweepOptions,
    lost: Lost,
    ctx: Context,
    log: Log,
    limit: Callable[[], int],
) -> Iterator[tuple[Item, Result]]:
    handed: deque[Item] = deque()

    def hand() -> Iterator[Any]:
        for item, job in jobs:
            handed.append(item)
            yield job

    work, check = partial(_outcome, finish), ctx.stop.check
    if options.processes:
        workers = options.workers if total > 1 else 1
        outcomes = in_processes(work, hand(), workers, heavy=True, ahead=options.ahead, check=check)
    else:
        outcomes = in_threads(work, hand(), options.workers, limit=limit)
    with ctx.ui.progress(total, options.title) as bar, closing(outcomes):
        for outcome in outcomes:
            item = handed.popleft()
            if isinstance(outcome, _Loss):
                lost.append({"id": item.id, "reason": outcome.reason})
                log(f"lost {item.id}: {outcome.reason}")
            else:
                yield item, outcome[0]
            bar.advance(1)


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


def grouped(
    items: Sequence[Item],
    size_of: Callable[[Item], Size],
    count_of: Callable[[Size], int],
    lost: Lost,
    ctx: Context,
    log: Log = str,
) -> list[Batch[Item]]:
    """Batches of items of one size, smaller sizes first.

    Args:
        size_of: (height, width) of an item; its DataErrors lose the item.
        count_of: how many items of a size are computed together.
        lost, log: as for `sweep`.
    """
    sizes: dict[Size, list[Item]] = defaultdict(list)
    from wsss_cli.engine.context import Silent  # sizes are read in no time: no bar

    quiet = replace(ctx, ui=Silent())
    for item, size in sweep_items(items, size_of, SweepOptions("sizes"), lost, quiet, log):
        sizes[size].append(item)
    batches = []
    for size, members in sorted(sizes.items()):
        count = max(1, count_of(size))
        batches += [Batch(members[start : start + count], size) for start in range(0, len(members), count)]
    return batches


class _Halving:
    """Computes batches in equal parts, twice as many each time that memory is short."""

    def __init__(self, compute: Callable[[list[Any]], Iterable[Any]], options: SweepOptions, ctx: Context) -> None:
        self.compute, self.options, self.ctx = compute, options, ctx
        self.parts = 1

    def run(self, loaded: list[Any], size: Size | None) -> Iterator[Any]:
        start = 0
        while start < len(loaded):
            part = loaded[start : start + max(1, -(-len(loaded) // self.parts))]
            results = self._attempt(part)
            if results is None:  # what the attempt held is free again
                self._halve(len(part), "" if size is None else f" of {size[0]}x{size[1]}")
                continue
            start += len(part)
            yield from results

    def _attempt(self, part: list[Any]) -> list[Any] | None:
        try:
            return list(self.compute(part))
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            return None

    def _halve(self, count: int, of_size: str) -> None:
        if count == 1:
            raise ResourceError(
                f"out of memory with one image{of_size}", f"make it need less: {self.options.less_memory}"
            )
        if self.parts == 1:
            self.ctx.ui.say(f"out of memory with {count} images{of_size}: going on with {-(-count // 2)}")
        self.parts *= 2
        if self.ctx.device.type == "cuda":
            import torch

            torch.cuda.empty_cache()
