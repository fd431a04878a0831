"""Training batches as a pure function of the step: a resumed run sees what an unbroken one would have seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from wsss_cli.data.dataset import Sample
from wsss_cli.errors import DataError, WriteError
from wsss_cli.processes import cores, start_worker

Key = tuple[int, int]
Make = Callable[[Sample, np.random.Generator], dict[str, np.ndarray]]
MAX_REPLACEMENTS = 20


def order(count: int, seed: int, epoch: int) -> np.ndarray:
    """The order of the samples in an epoch: a permutation of 0 .. count-1."""
    return np.random.default_rng((seed, epoch)).permutation(count)


def data_workers(asked: int) -> int:
    """Data worker processes: as asked, or one for each core but one, at most 8."""
    return asked if asked >= 0 else max(1, min(8, cores() - 1))


class KeyBatches:
    """Endless batches of (epoch, sample index) from a step on; batches straddle epochs and nothing is dropped."""

    def __init__(self, count: int, batch: int, seed: int, start: int) -> None:
        self.count, self.batch, self.seed, self.start = count, batch, seed, start

    def __iter__(self) -> Iterator[list[Key]]:
        position = self.start * self.batch
        epoch, indices = -1, np.zeros(0, np.int64)
        while True:
            keys: list[Key] = []
            for _ in range(self.batch):
                if position // self.count != epoch:
                    epoch = position // self.count
                    indices = order(self.count, self.seed, epoch)
                keys.append((epoch, int(indices[position % self.count])))
                position += 1
            yield keys


class TrainSet(Dataset[dict[str, Any]]):
    """Samples by (epoch, index); a sample that cannot be read is replaced by the next one, and named in 'lost'."""

    def __init__(self, samples: Sequence[Sample], make: Make, seed: int) -> None:
        self.samples, self.make, self.seed = samples, make, seed

    def __getitem__(self, key: Key) -> dict[str, Any]:
        epoch, index = key
        lost: list[tuple[str, str]] = []
        for offset in range(min(len(self.samples), MAX_REPLACEMENTS)):
            sample = self.samples[(index + offset) % len(self.samples)]
            try:
                made: dict[str, Any] = dict(self.make(sample, np.random.default_rng((self.seed, epoch, index))))
            except WriteError:
                raise
            except DataError as error:
                lost.append((sample.id, error.message))
                continue
            made["lost"] = lost
            return made
        raise DataError(f"{len(lost)} training images in a row cannot be read, first: {lost[0][1]}")


def _collate(items: list[dict[str, Any]]) -> dict[str, Any]:
    batch: dict[str, Any] = {
        key: torch.from_numpy(np.stack([item[key] for item in items])) for key in items[0] if key != "lost"
    }
    batch["lost"] = [entry for item in items for entry in item["lost"]]
    return batch


def _start_worker(worker: int) -> None:
    start_worker()
    torch.set_num_threads(1)


def training_batches(
    samples: Sequence[Sample], make: Make, *, batch: int, seed: int, workers: int, start: int, pin: bool
) -> Iterator[dict[str, Any]]:
    """Endless training batches from step `start` on.

    Args:
        make: (sample, random generator of this sample and epoch) -> arrays of one shape for all samples.
        workers: processes that make samples; 0: made in this process.
        pin: page-locked memory, for copies to a GPU that overlap with its work.
    Returns:
        Dictionaries of stacked tensors [B, ...], and 'lost': [(id, reason)] of samples that were replaced.
    Raises:
        DataError: twenty samples in a row cannot be read.
    """
    keys: Any = KeyBatches(len(samples), batch, seed, start)
    loader: DataLoader[dict[str, Any]] = DataLoader(
        TrainSet(samples, make, seed),
        batch_sampler=keys,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pin,
        worker_init_fn=_start_worker,
        prefetch_factor=4 if workers else None,
    )
    return iter(loader)
