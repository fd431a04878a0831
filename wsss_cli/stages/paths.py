"""Where the runs of stages keep what they make of an image."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wsss_cli.data.columns import hashes_of
from wsss_cli.data.dataset import Sample
from wsss_cli.engine.records import is_run, read_record
from wsss_cli.processes import check_stop
from wsss_cli.rows import Rows

if TYPE_CHECKING:
    import numpy as np

SPREAD_ABOVE = 20_000  # images of a split, above which the files of a run are spread over 256 folders
SPREAD = 2  # hexadecimal digits that name these
PART = 1_000_000  # images that are looked up at a time
MANY = 4096  # files after which the stop flag is looked at


@dataclass(frozen=True)
class Files:
    """What a run has of each image in files of one kind.

    Attributes:
        ending: of their names.
        spread: digits of the SHA-256 of an id that name the folder within `folder` that its file is in; 0: there are
            no such folders.
    """

    folder: Path
    ending: str
    spread: int = 0

    def of(self, name: str) -> Path:
        """The file of an image."""
        if not self.spread:
            return self.folder / f"{name}{self.ending}"
        return self.folder / hashlib.sha256(name.encode()).hexdigest()[: self.spread] / f"{name}{self.ending}"

    def names(self) -> Iterator[str]:
        """The ids of the images whose files are there, in no order: one look at each folder, at no file."""
        pending, seen = [""], 0
        while pending:
            inside = pending.pop()
            try:
                entries = os.scandir(self.folder / inside)
            except (FileNotFoundError, NotADirectoryError):
                continue
            before = inside.partition("/")[2] if self.spread else inside
            with entries:
                for entry in entries:
                    seen += 1
                    if seen % MANY == 0:
                        check_stop()
                    if entry.is_dir():
                        pending.append(f"{inside}{entry.name}/")
                    elif entry.name.endswith(self.ending) and (inside or not self.spread):
                        yield before + entry.name.removesuffix(self.ending)

    def there(self, samples: Sequence[Sample]) -> np.ndarray:
        """Which samples have their file, bool [N].

        Told by 64 bits of each id: one of ten million that is missing passes for one that is there by a chance of one
        in a million at most, and in another process by another.
        """
        import numpy as np

        wanted, known = hashes_of(samples), np.fromiter(map(hash, self.names()), np.int64)
        known.sort()
        there = np.zeros(len(wanted), bool)
        for start in range(0, len(wanted) if len(known) else 0, PART):
            part = wanted[start : start + PART]
            there[start : start + PART] = known[np.searchsorted(known[1:], part, "right")] == part
        return there

    def with_file(self, samples: Sequence[Sample]) -> Rows[Sample]:
        """The samples that have their file."""
        return Rows(samples, _numbers(self.there(samples)))

    def without_file(self, samples: Sequence[Sample]) -> Rows[Sample]:
        """The samples that do not have their file."""
        return Rows(samples, _numbers(~self.there(samples)))


def _numbers(chosen: np.ndarray) -> np.ndarray:
    """Where `chosen` is true, uint32: half of what `flatnonzero` takes."""
    import numpy as np

    numbers = np.empty(int(chosen.sum()), np.uint32)
    end = 0
    for start in range(0, len(chosen), PART):
        part = np.flatnonzero(chosen[start : start + PART]) + start
        numbers[end : end + len(part)] = part
        end += len(part)
    return numbers


def spread_for(images: int) -> int:
    """How the files of a new run of so many images are spread; see `Files.spread`."""
    return SPREAD if images > SPREAD_ABOVE else 0


def cam_files(run: Path) -> Files:
    """The CAMs of a cam run."""
    return Files(run / "cams", ".npz", _spread(run))


def label_files(run: Path) -> Files:
    """The labels that the network of an irn or psa run learns from."""
    return Files(run / "labels", ".png", _spread(run))


def mask_files(run: Path) -> Files:
    """The masks of a pseudo run."""
    return Files(run / "masks", ".png", _spread(run))


def confidence_files(run: Path) -> Files:
    """The confidence of a pseudo run's masks: 8-bit grey, 255 = certain, 0 = undecided."""
    return Files(run / "confidence", ".png", _spread(run))


def walk_files(run: Path, walk: str) -> Files:
    """The scores of a random walk of a pseudo run, as '1-irn-walk'."""
    return Files(run / "scores" / walk, ".npz", _spread(run))


def last_files(run: Path, stage: str) -> Files:
    """What a run of a stage makes last of an image."""
    return {"cam": cam_files, "pseudo": mask_files}.get(stage, label_files)(run)


def cam_path(run: Path, name: str) -> Path:
    """Where a cam run keeps the CAMs of an image."""
    return cam_files(run).of(name)


def label_path(run: Path, name: str) -> Path:
    """Where an irn or psa run keeps the label that its network learns an image from."""
    return label_files(run).of(name)


def mask_path(run: Path, name: str) -> Path:
    """Where a pseudo run keeps the mask of an image."""
    return mask_files(run).of(name)


def confidence_path(run: Path, name: str) -> Path:
    """Where a pseudo run keeps the confidence of an image's mask."""
    return confidence_files(run).of(name)


def _spread(run: Path) -> int:
    return read_record(run).spread if is_run(run) else 0
