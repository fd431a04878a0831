"""Labels of several kinds on one photograph: which of them counts where, and where each of them lies.

trusted/.parts/index.csv        id,kind,sha256,source: every kind that a photograph has
trusted/.parts/<kind>/<id>.png  each of a photograph that has several; of one that has one it is trusted/<id>.png
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from wsss_cli.errors import DataError
from wsss_cli.files import sha256_file, write_text
from wsss_cli.labels import IGNORE

if TYPE_CHECKING:
    import numpy as np  # which planning does without

PartKind = Literal["mask", "partial", "scribbles", "points", "boxes"]
RANKS: tuple[tuple[PartKind, ...], ...] = (("mask",), ("partial", "scribbles"), ("points",), ("boxes",))
"""Which kind counts where two say different things, the first one first; nobody drew what boxes tell."""
KINDS = tuple(kind for rank in RANKS for kind in rank)
PARTS, INDEX, COLUMNS = ".parts", "index.csv", ["id", "kind", "sha256", "source"]


@dataclass(frozen=True)
class Part:
    """A label map of one kind: SHA-256 of its file; what it came from, in words."""

    sha256: str
    source: str


Parts = dict[str, dict[PartKind, Part]]


@dataclass
class Joined:
    """What joining labels of several kinds came to.

    Attributes:
        photographs: that have several kinds.
        overruled: pixels of which a kind says another class than one that counts before it, boxes left out.
        contradictions: pixels of which two kinds of one rank say different classes.
        turned: photographs that EXIF turns and whose sides do not change by it: sizes do not tell which way up labels
            were drawn.
        untagged: photographs with tags, whose labels hold a class that is none of them.
    """

    photographs: int = 0
    overruled: int = 0
    contradictions: int = 0
    turned: int = 0
    untagged: int = 0


def join(parts: Mapping[PartKind, np.ndarray], counts: Joined) -> np.ndarray:
    """One label map of those of several kinds.

    Where several say something a whole mask counts before scribbles and partial maps, these before points, and all of
    them before boxes. Where scribbles and a partial map say different classes nothing is said. Where a whole mask is
    255, what was drawn otherwise counts, but not what boxes tell.

    Args:
        parts: class indices and 255, uint8 [H, W], of one size.
        counts: is added to.
    Returns:
        Class indices and 255, uint8 [H, W].
    """
    import numpy as np

    labels = np.full_like(next(iter(parts.values())), IGNORE)
    closed = np.zeros(labels.shape, bool)
    for rank in RANKS:
        maps = [parts[kind] for kind in rank if kind in parts and not (kind == "boxes" and "mask" in parts)]
        said, clash = np.full_like(labels, IGNORE), np.zeros(labels.shape, bool)
        for each in maps:
            clash |= (said != IGNORE) & (each != IGNORE) & (said != each)
            said = np.where(said == IGNORE, each, said)
        said[clash] = IGNORE
        is_open = (labels == IGNORE) & ~closed
        if "boxes" not in rank:
            counts.contradictions += int((clash & is_open).sum())
            counts.overruled += int(((labels != IGNORE) & (said != IGNORE) & (labels != said)).sum())
        labels = np.where(is_open, said, labels)
        closed |= clash & is_open
    counts.photographs += 1
    return labels


def read_parts(folder: Path) -> Parts:
    """Which kinds photographs have, by id; none where nothing is noted.

    Args:
        folder: of a data set's own labels.
    Raises:
        DataError: the index is damaged.
    """
    file = folder / PARTS / INDEX
    try:
        rows = list(csv.reader(io.StringIO(file.read_text("utf-8"), newline=""), strict=True))
    except FileNotFoundError:
        return {}
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise DataError(f"{file} is damaged: {error}", HINT) from error
    if not rows or rows[0] != COLUMNS:
        raise DataError(f"{file} has not the columns {','.join(COLUMNS)}", HINT)
    parts: Parts = {}
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(COLUMNS) or row[1] not in KINDS:
            raise DataError(f"{file}, line {number}: {','.join(row)[:200]!r} is no entry", HINT)
        parts.setdefault(row[0], {})[row[1]] = Part(row[2], row[3])
    return parts


HINT = (
    "wsss prepare labels DATASET SOURCE --clear takes new labels in place of all that are there; "
    "without SOURCE it takes these away"
)


def write_parts(folder: Path, parts: Parts) -> None:
    """Write which kinds photographs have, in the order of their ids."""
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for name, kinds in sorted(parts.items()):
        rows.writerows((name, kind, kinds[kind].sha256, kinds[kind].source) for kind in KINDS if kind in kinds)
    write_text(folder / PARTS / INDEX, text.getvalue())


def part_place(folder: Path, name: str, kind: PartKind) -> Path:
    """Where the label map of one kind lies, of a photograph that has several."""
    return folder / PARTS / kind / f"{name}.png"


def read_part(folder: Path, name: str, kind: PartKind, part: Part) -> np.ndarray:
    """The label map of one kind: class indices and 255, uint8 [H, W].

    Raises:
        DataError: it is gone, damaged, or another one than the index says.
    """
    from wsss_cli.data.masks import read_mask

    for file in (part_place(folder, name, kind), folder / f"{name}.png"):
        if file.is_file() and sha256_file(file) == part.sha256:
            return read_mask(file)
    raise DataError(f"the {kind} of {name} in {folder} are not those that its index says", HINT)


def joined_source(kinds: Mapping[PartKind, Part]) -> str:
    """What the kinds of a photograph came from, in words."""
    sources: Iterable[str] = (kinds[kind].source for kind in KINDS if kind in kinds)
    return " and ".join(source for source in sources if source)
