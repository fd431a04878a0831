"""Training batches as a pure function of the step: a resumed run sees what an unbroken one would have seen.

Worker processes write samples straight into memory that they share with this one and that has no name. So nothing
depends on the size of /dev/shm, on TMPDIR or on open files, and no wait for a batch is without an end.
"""

from __future__ import annotations

import itertools
import mmap
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsss_cli.data.dataset import Sample
from wsss_cli.errors import DataError, ResourceError, WsssError
from wsss_cli.processes import signals_held, start_worker
from wsss_cli.ranks.who import cores_here

Key = tuple[int, int]  # epoch, index of a sample
Arrays = dict[str, np.ndarray]
Lost = list[tuple[str, str]]  # id, reason
Make = Callable[[Sample, np.random.Generator], Arrays]
MAX_REPLACEMENTS = 20
AHEAD = 4  # batches that each worker is ahead
STUCK_S = 600.0  # that a worker may take for one sample; longer, and its file system is taken to hang
ALIGNED = 64  # bytes that arrays in shared memory begin at multiples of


@lru_cache(maxsize=4)
def order(count: int, seed: int, epoch: int) -> np.ndarray:
    """The order of the samples in an epoch: a permutation of 0 .. count-1."""
    return np.random.default_rng((seed, epoch)).permutation(count)


def data_workers(asked: int) -> int:
    """Data worker processes: as asked, or one for each core but one, at most 8."""
    return asked if asked >= 0 else max(1, min(8, cores_here() - 1))


@dataclass(frozen=True)
class Batches:
    """Which samples a batch has, and how they are made.

    Attributes:
        make: (sample, random generator of this sample and epoch) -> arrays of one shape for all samples.
        size: samples in a batch.
        seed: of the order of the samples and of their generators.
        part: rows of the batch that are made here, the others being other ranks'; None: all.
    """

    samples: Sequence[Sample]
    make: Make
    size: int
    seed: int
    part: range | None = None

    @property
    def rows(self) -> range:
        """Rows of the batch that are made here."""
        return range(self.size) if self.part is None else self.part

    def keys(self, step: int) -> list[Key]:
        """(epoch, sample index) of a step's rows; batches straddle epochs and nothing is dropped."""
        count = len(self.samples)
        places = (divmod(step * self.size + row, count) for row in self.rows)
        return [(epoch, int(order(count, self.seed, epoch)[place])) for epoch, place in places]

    def item(self, key: Key) -> tuple[Arrays, Lost]:
        """A sample's arrays; one that cannot be read is replaced by the next one, and named.

        Raises:
            DataError: twenty samples in a row cannot be read.
        """
        epoch, index = key
        lost: Lost = []
        for offset in range(min(len(self.samples), MAX_REPLACEMENTS)):
            sample = self.samples[(index + offset) % len(self.samples)]
            try:
                return dict(self.make(sample, np.random.default_rng((self.seed, epoch, index)))), lost
            except DataError as error:
                lost.append((sample.id, error.message))
        raise DataError(
            f"{len(lost)} training images in a row cannot be read, first: {lost[0][0]}: {lost[0][1]}",
            "wsss verify DATASET names all that cannot",
        )

    def fill(self, step: int, arrays: Arrays, at: Callable[[int], object]) -> Lost:
        """Make a step's rows in `arrays` [len(rows), ...]; `at` is called with the index of each sample first."""
        lost: Lost = []
        for row, key in enumerate(self.keys(step)):
            at(key[1])
            item, missing = self.item(key)
            lost += missing
            for name, array in arrays.items():
                assert (item[name].shape, item[name].dtype) == (array.shape[1:], array.dtype), name
                array[row] = item[name]
        return lost


def training_batches(
    batches: Batches,
    *,
    workers: int,
    start: int,
    pin: bool,
    check: Callable[[], object],
    say: Callable[[str], object],
) -> Generator[dict[str, Any], None, None]:
    """Endless training batches from step `start` on. Close the iterator when done: that ends the workers.

    Args:
        workers: processes that make samples; 0: made in this process, as they are where none can be started.
        pin: page-locked memory, for copies to a GPU that overlap with its work.
        check: called at least once a second while a batch is waited for; what it raises ends the wait.
        say: told if workers cannot be started.
    Returns:
        Dictionaries of stacked tensors [B, ...], and 'lost': [(id, reason)] of samples that were replaced.
    Raises:
        DataError: twenty samples in a row cannot be read.
        ResourceError: a worker died, or has been at one sample for `STUCK_S`.
    """
    template, _ = batches.item(batches.keys(start)[0])
    if workers:
        try:
            team = _Team(batches, template, workers, start)
        except OSError as error:
            say(f"data workers cannot be started ({error.strerror or error}): samples are made in this process")
        else:
            yield from _from_workers(team, batches, template, pin, check)
    for step in itertools.count(start):
        tensors = _blank(template, len(batches.rows), pin)
        lost = batches.fill(step, {name: tensor.numpy() for name, tensor in tensors.items()}, lambda index: check())
        yield {**tensors, "lost": lost}


def _blank(template: Arrays, size: int, pin: bool) -> dict[str, Tensor]:
    """Tensors [size, ...] for arrays like those of the template."""
    kinds = {name: torch.from_numpy(np.empty(0, array.dtype)).dtype for name, array in template.items()}
    return {
        name: torch.empty((size, *array.shape), dtype=kinds[name], pin_memory=pin) for name, array in template.items()
    }


class _Team:
    """Forked worker processes; worker w makes the batches of steps start + w, start + w + workers, ...

    Attributes:
        slots: of each worker the arrays [B, ...] that it writes its batches into, in turn.
        at: index of the sample that each worker has in hand.
    """

    def __init__(self, batches: Batches, template: Arrays, workers: int, start: int) -> None:
        self.start, self.workers, self.samples = start, workers, batches.samples
        sizes = {name: -(-array.nbytes * len(batches.rows) // ALIGNED) * ALIGNED for name, array in template.items()}
        memory = mmap.mmap(-1, workers * (8 + AHEAD * sum(sizes.values())) + ALIGNED)
        self.at = np.frombuffer(memory, np.int64, workers)
        offset = -(-8 * workers // ALIGNED) * ALIGNED
        self.slots: list[list[Arrays]] = []
        for _ in range(workers):
            self.slots.append([])
            for _ in range(AHEAD):
                slot = {}
                for name, array in template.items():
                    flat = np.frombuffer(memory, array.dtype, array.size * len(batches.rows), offset)
                    slot[name] = flat.reshape(len(batches.rows), *array.shape)
                    offset += sizes[name]
                self.slots[-1].append(slot)
        self.pipes: list[Connection] = []
        self.processes: list[Any] = []
        context = multiprocessing.get_context("fork")
        try:
            for number in range(workers):
                here, there = context.Pipe()
                self.pipes.append(here)
                with there, signals_held():
                    process = context.Process(
                        target=_work, args=(self, batches, number, there, os.getpid()), daemon=True
                    )
                    process.start()
                self.processes.append(process)
                for _ in range(AHEAD):
                    here.send_bytes(b"go")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the workers at once: they hold nothing that could be lost."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join(5.0)  # one that hangs in its file system cannot end before that answers
        for pipe in self.pipes:
            pipe.close()


def _work(team: _Team, batches: Batches, number: int, pipe: Connection, parent: int) -> None:
    """In worker `number`: batch after batch, each when the parent has left a slot free."""
    start_worker(parent)
    torch.set_num_threads(1)
    for other in team.pipes:  # so that the end of the parent is the end of each pipe
        other.close()
    report: Lost | Exception
    for turn in itertools.count():
        try:
            pipe.recv_bytes()
        except (EOFError, OSError):
            return
        try:
            arrays = team.slots[number][turn % AHEAD]
            step = team.start + number + turn * team.workers
            report = batches.fill(step, arrays, lambda index: team.at.__setitem__(number, index))
        except WsssError as error:
            report = error
        except MemoryError:
            report = ResourceError("a data worker is out of memory", "fewer data workers, or a smaller batch or crop")
        except Exception as error:  # a bug: the parent shows it, with the place
            report = RuntimeError(f"{team.samples[team.at[number]].id}: {type(error).__name__}: {error}")
            report.add_note(traceback.format_exc())
        pipe.send(report)


def _from_workers(
    team: _Team, batches: Batches, template: Arrays, pin: bool, check: Callable[[], object]
) -> Iterator[dict[str, Any]]:
    try:
        for turn in itertools.count():
            count, number = divmod(turn, team.workers)
            lost = _report(team, number, check)
            tensors = _blank(template, len(batches.rows), pin)
            for name, array in team.slots[number][count % AHEAD].items():
                tensors[name].copy_(torch.from_numpy(array))
            with suppress(OSError):  # it died: noticed when its next batch is waited for
                team.pipes[number].send_bytes(b"go")
            yield {**tensors, "lost": lost}
    finally:
        team.close()


def _report(team: _Team, number: int, check: Callable[[], object]) -> Lost:
    """Wait until a worker has its next batch ready: what was replaced in it."""
    pipe, process = team.pipes[number], team.processes[number]
    sample, since = -1, time.monotonic()
    while not pipe.poll(1.0):
        check()
        if sample != team.at[number]:
            sample, since = int(team.at[number]), time.monotonic()
        if time.monotonic() - since > STUCK_S:
            raise ResourceError(
                f"a data worker (process {process.pid}) has been at {team.samples[sample].image} for {STUCK_S:.0f} s",
                "see whether its disk answers, then run the same command again",
            )
    try:
        report: list[tuple[str, str]] | Exception = pipe.recv()
    except (EOFError, OSError):
        check()
        process.join(1.0)
        raise _died(process.exitcode) from None
    if isinstance(report, Exception):
        raise report
    return report


def _died(code: int | None) -> ResourceError:
    how = f"by {signal.Signals(-code).name}" if code and code < 0 else f"with exit code {code}"
    why = ", probably for lack of memory" if code == -signal.SIGKILL else ""
    return ResourceError(
        f"a data worker ended {how}{why}", "run the same command again, with fewer data workers or a smaller batch"
    )
