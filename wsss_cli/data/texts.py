"""Texts by the million, which lie in a file: 8 bytes of each are held, and 8 more of each key it is looked up by."""

from __future__ import annotations

import heapq
import os
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import overload

from wsss_cli.errors import WriteError
from wsss_cli.files import unnamed_file
from wsss_cli.processes import check_stop
from wsss_cli.rows import Rows

BLOCK = 512  # texts that are read at a time
SORTED = 100_000  # texts that are sorted in memory
LOW = (1 << 32) - 1


class Spool(Sequence[str]):
    """Texts one behind the other in a file without a name, as names of files are encoded. It only grows.

    Args:
        folder: where the file takes room.
    """

    def __init__(self, folder: Path, texts: Iterable[str] = ()) -> None:
        self._place = folder
        self._file = unnamed_file(folder)
        self._ends = array("Q", [0])
        self._waiting: list[bytes] = []
        self._block: tuple[int, bytes] = (-1, b"")
        for text in texts:
            self.append(text)
        if self._waiting:
            self._write()

    def append(self, text: str) -> None:
        """Add a text at the end.

        Raises:
            WriteError: the disk is full.
        """
        data = os.fsencode(text)
        self._waiting.append(data)
        self._ends.append(self._ends[-1] + len(data))
        if len(self._waiting) >= BLOCK:
            self._write()

    def _write(self) -> None:
        try:
            self._file.write(b"".join(self._waiting))
            self._file.flush()
        except OSError as error:
            reason = error.strerror or str(error)
            raise WriteError(f"cannot write {self._place}: {reason}", "free space, then run again") from error
        self._waiting.clear()
        self._block = (-1, b"")

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> Rows[str]: ...
    def __getitem__(self, at: int | slice) -> str | Rows[str]:
        if isinstance(at, slice):
            return Rows(self, range(len(self))[at])
        number = range(len(self))[at]
        first, data = self._block
        if first != number - number % BLOCK:
            first = number - number % BLOCK
            data = self._read(first)
            self._block = (first, data)
        return self._text(data, first, number)

    def __iter__(self) -> Iterator[str]:
        return self.part(0, len(self))

    def part(self, begin: int, end: int) -> Iterator[str]:
        """The texts `begin` .. `end` - 1, by one who does not disturb others."""
        for first in range(begin - begin % BLOCK, end, BLOCK):
            check_stop()
            data = self._read(first)
            for number in range(max(begin, first), min(first + BLOCK, end)):
                yield self._text(data, first, number)

    def _read(self, first: int) -> bytes:
        if self._waiting:
            self._write()
        start = self._ends[first]
        return os.pread(self._file.fileno(), self._ends[min(first + BLOCK, len(self))] - start, start)

    def _text(self, data: bytes, first: int, number: int) -> str:
        start = self._ends[first]
        return os.fsdecode(data[self._ends[number] - start : self._ends[number + 1] - start])


class Index:
    """Which texts of a sequence have a key; 8 bytes of each key are held.

    Args:
        texts: that do not change any more, 2^32 at most.
        keys: of a text, each once.
    """

    def __init__(self, texts: Sequence[str], keys: Callable[[str], Iterable[str]]) -> None:
        import numpy as np

        self._texts, self._keys = texts, keys
        self._entries = array("Q")  # the upper half of a key's hash, then the number of the text
        for number, text in enumerate(texts):
            self._entries.extend(_high(key) | number for key in keys(text))
        if self._entries:
            np.frombuffer(self._entries, np.uint64).sort()

    def find(self, key: str) -> list[int]:
        """Numbers of the texts that have it, ascending."""
        high = _high(key)
        numbers = list[int]()
        for at in range(bisect_left(self._entries, high), len(self._entries)):
            entry = self._entries[at]
            if entry & ~LOW != high:
                break
            if numbers[-1:] != [entry & LOW] and key in self._keys(self._texts[entry & LOW]):
                numbers.append(entry & LOW)
        return numbers


def _high(key: str) -> int:
    return hash(key) & (LOW << 32)


def in_order_of(texts: Iterable[str], folder: Path) -> Iterator[str]:
    """Texts sorted: `SORTED` of them in memory, all of them in a file.

    Args:
        folder: where the file takes room.
    """
    spool, starts = Spool(folder), [0]
    source = iter(texts)
    while part := sorted(islice(source, SORTED)):
        check_stop()
        for text in part:
            spool.append(text)
        starts.append(len(spool))
    return heapq.merge(*(spool.part(begin, end) for begin, end in pairwise(starts)))
