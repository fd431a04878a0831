"""Pairs of files, scored in pieces in worker processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from wsss_cli.errors import DataError
from wsss_cli.processes import Check, in_processes
from wsss_cli.rows import Each
from wsss_cli.talk import sides

Progress = Callable[[int], object]
T = TypeVar("T")
PIECE = 8  # images whose counts are added up before they cross the border of a process


def check_same_size(size: tuple[int, ...], file: Path, truth_size: tuple[int, ...], truth_file: Path) -> None:
    """Refuse a mask of another size than the true one.

    Raises:
        DataError: the sizes differ.
    """
    if size != truth_size:
        raise DataError(
            f"{file} is {sides(size)} and its true mask {truth_file} is {sides(truth_size)}",
            "both must have the size of the image",
        )


def in_pieces(
    work: Callable[[list[tuple[Path, Path]]], T],
    items: Sequence[tuple[Path, Path]],
    workers: int,
    check: Check,
    progress: Progress | None,
) -> Iterator[T]:
    """`work` on pieces of `items`, in processes where it pays; results and the first error come in order."""
    pieces = Each(range(0, len(items), PIECE), lambda start: list(items[start : start + PIECE]))
    for piece, result in zip(pieces, in_processes(work, pieces, workers, check=check), strict=True):
        yield result
        if progress:
            progress(len(piece))
