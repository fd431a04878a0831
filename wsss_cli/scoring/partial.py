"""What an evaluation has counted so far, on disk, so that one that is stopped goes on where it stood."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsss_cli.data.dataset import Sample
from wsss_cli.engine.sweep import Batch, Lost
from wsss_cli.errors import DataError
from wsss_cli.files import read_json, write_json
from wsss_cli.scoring.counts import Counts

WRITE_SECONDS = 60.0  # of an evaluation, that a kill may lose
FORM = 2  # of what is stored; what an earlier version has counted lacks the unscored pixels


@dataclass(frozen=True)
class PartialCounts:
    """Counts of the first batches of an evaluation.

    Attributes:
        path: the file; it appears whole or not at all.
        key: everything that the counts depend on; those of another key are not taken.
    """

    path: Path
    key: dict[str, Any]

    def read(self, counts: dict[str, Counts], lost: Lost, sizes: list[int]) -> int:
        """Fill `counts` and `lost`; the number of batches that are in them, 0 where nothing fits.

        Args:
            sizes: of all batches; an evaluation of other batches begins anew.
        """
        try:
            stored = read_json(self.path) if self.path.is_file() else {}
        except DataError:
            return 0
        if stored.get("form") != FORM:
            return 0
        if (stored.get("key"), stored.get("sizes")) != (self.key, sizes) or stored["counts"].keys() != counts.keys():
            return 0
        for mode, count in counts.items():
            count.load_state(stored["counts"][mode])
        lost += stored["lost"]
        return int(stored["batches"])

    def write(self, counts: dict[str, Counts], lost: Lost, sizes: list[int], batches: int) -> None:
        state = {mode: count.state() for mode, count in counts.items()}
        write_json(
            self.path,
            {"form": FORM, "key": self.key, "sizes": sizes, "batches": batches, "lost": lost, "counts": state},
        )

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


class Progress:
    """Counts by whole batches, so that an evaluation can go on from what is stored of them.

    Attributes:
        done: batches that are counted; `batch` is the one after them.
    """

    def __init__(
        self, batches: Sequence[Batch[Sample]], fresh: Callable[[], dict[str, Counts]], partial: PartialCounts | None
    ) -> None:
        self.fresh, self.partial = fresh, partial
        self.sizes = [len(batch.items) for batch in batches]
        self.number = {sample.id: number for number, batch in enumerate(batches) for sample in batch.items}
        self.counts, self.batch, self.lost = fresh(), fresh(), Lost()
        self.done = partial.read(self.counts, self.lost, self.sizes) if partial else 0
        self.added, self.written = 0, time.monotonic()

    def add(self, sample: Sample, counts: dict[str, Counts]) -> None:
        """Take the counts of the next image; what is between it and the one before is lost."""
        if self.number[sample.id] > self.done:
            self._close(self.number[sample.id])
            if time.monotonic() - self.written >= WRITE_SECONDS:
                self.write()
        self.added += 1
        for mode, count in counts.items():
            self.batch[mode].merge(count)

    def total(self) -> dict[str, Counts]:
        """The counts of all batches."""
        self._close(len(self.sizes))
        return self.counts

    def write(self) -> None:
        """Store what is counted of whole batches."""
        numbers = [self.number[entry["id"]] for entry in self.lost]
        if self.done < len(self.sizes) and self.added + numbers.count(self.done) == self.sizes[self.done]:
            self._close(self.done + 1)
        if self.partial:
            lost = [entry for entry, number in zip(self.lost, numbers, strict=True) if number < self.done]
            self.partial.write(self.counts, lost, self.sizes, self.done)
            self.written = time.monotonic()

    def _close(self, done: int) -> None:
        for mode, count in self.batch.items():
            self.counts[mode].merge(count)
        self.batch, self.added, self.done = self.fresh(), 0, done
