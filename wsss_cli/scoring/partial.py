"""What an evaluation has counted so far, on disk, so that one that is stopped goes on where it stood."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsss_cli.data.dataset import Sample
from wsss_cli.engine.shards import FOLDER, Shard
from wsss_cli.engine.sweep import Batch, Lost
from wsss_cli.errors import DataError
from wsss_cli.files import read_json, write_json
from wsss_cli.scoring.counts import Counts

WRITE_SECONDS = 60.0  # of an evaluation, that a kill may lose
SHARD_COUNTS = "counts.json"  # ending of a shard's file of counts
FORM = 4  # of what is stored; earlier versions lack unscored pixels, which batches are counted, or single images


@dataclass(frozen=True)
class PartialCounts:
    """Counts of some batches of an evaluation.

    Attributes:
        path: the file; it appears whole or not at all.
        key: everything that the counts depend on; those of another key are not taken.
        whole: written at the end of the evaluation too, for whoever adds up.
    """

    path: Path
    key: dict[str, Any]
    whole: bool = False

    def read(self, counts: dict[str, Counts], lost: Lost, sizes: list[int]) -> set[int]:
        """Fill `counts` and `lost`; the numbers of the batches that are in them, none where nothing fits.

        Args:
            sizes: of all batches; an evaluation of other batches begins anew.
        """
        stored = _stored(self.path)
        if not self._fits(stored, counts) or stored["sizes"] != sizes:
            return set()
        for mode, count in counts.items():
            count.load_state(stored["counts"][mode])
        lost += stored["lost"]
        return set(stored["batches"])

    def fill(self, counts: dict[str, Counts]) -> bool:
        """Fill `counts` if those of all batches are there, whatever these are; whether they are."""
        stored = _stored(self.path)
        if not self._fits(stored, counts) or len(stored["batches"]) != len(stored["sizes"]):
            return False
        for mode, count in counts.items():
            count.load_state(stored["counts"][mode])
        return True

    def _fits(self, stored: dict[str, Any], counts: dict[str, Counts]) -> bool:
        if stored.get("form") != FORM or stored.get("key") != self.key:
            return False
        return bool(stored["counts"].keys() == counts.keys())

    def write(self, counts: dict[str, Counts], lost: Lost, sizes: list[int], batches: set[int]) -> None:
        state = {mode: count.state() for mode, count in counts.items()}
        write_json(
            self.path,
            {"form": FORM, "key": self.key, "sizes": sizes, "batches": sorted(batches), "lost": lost, "counts": state},
        )

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def evaluations_at(run: Path) -> list[Path]:
    """Folders of a run whose `shards` are those of an evaluation that is not done."""
    return sorted(folder.parent for folder in run.glob(f"eval*/*/{FOLDER}"))


def counted_of(place: Path, shard: Shard) -> int:
    """How many images of a shard are counted, as far as they are on disk."""
    stored = _stored(shard.file(place, SHARD_COUNTS))
    return sum(stored["sizes"][batch] for batch in stored["batches"]) if stored.get("form") == FORM else 0


def _stored(path: Path) -> dict[str, Any]:
    try:
        return dict(read_json(path)) if path.is_file() else {}
    except (DataError, TypeError, ValueError):  # damaged, or no object
        return {}


class Progress:
    """Counts by whole batches, so that an evaluation can go on from what is stored of them.

    Attributes:
        done: numbers of the batches that are counted.
        lost: items that were lost, those of the batches that are done among them.
    """

    def __init__(
        self, batches: Sequence[Batch[Sample]], fresh: Callable[[], dict[str, Counts]], partial: PartialCounts | None
    ) -> None:
        self.fresh, self.partial = fresh, partial
        self.sizes = [len(batch.items) for batch in batches]
        self.number = {sample.id: number for number, batch in enumerate(batches) for sample in batch.items}
        self.counts, self.lost = fresh(), Lost()
        self.done = partial.read(self.counts, self.lost, self.sizes) if partial else set()
        self.begun: dict[int, tuple[dict[str, Counts], int]] = {}  # of batches: counts, and of how many images
        self.written = time.monotonic()

    def add(self, sample: Sample, counts: dict[str, Counts]) -> None:
        """Take the counts of an image."""
        if time.monotonic() - self.written >= WRITE_SECONDS:
            self.write()
        number = self.number[sample.id]
        batch, added = self.begun.get(number) or (self.fresh(), 0)
        for mode, count in counts.items():
            batch[mode].merge(count)
        self.begun[number] = batch, added + 1
        if added + 1 == self.sizes[number]:
            self._close(number)

    def total(self) -> dict[str, Counts]:
        """The counts of all batches."""
        for number in list(self.begun):
            self._close(number)
        self.done = set(range(len(self.sizes)))
        return self.counts

    def write(self) -> None:
        """Store what is counted of whole batches."""
        if not self.partial:
            return
        numbers = [self.number[entry["id"]] for entry in self.lost]
        lost_of = Counter(numbers)
        for number in {*self.begun, *lost_of} - self.done:
            if self.begun.get(number, ({}, 0))[1] + lost_of[number] == self.sizes[number]:
                self._close(number)
        lost = [entry for entry, number in zip(self.lost, numbers, strict=True) if number in self.done]
        self.partial.write(self.counts, lost, self.sizes, self.done)
        self.written = time.monotonic()

    def _close(self, number: int) -> None:
        batch, _ = self.begun.pop(number, ({}, 0))
        for mode, count in batch.items():
            self.counts[mode].merge(count)
        self.done.add(number)
