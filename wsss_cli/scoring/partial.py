"""What an evaluation has counted so far, on disk, so that one that is stopped goes on where it stood."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsss_cli.engine.sweep import Lost
from wsss_cli.errors import DataError
from wsss_cli.files import read_json, write_json
from wsss_cli.scoring.counts import Counts

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
