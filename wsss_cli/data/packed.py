"""Numbers by the million: above a limit they lie in a file without a name, which is mapped, and not in memory."""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
from array import array
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from wsss_cli.errors import WriteError
from wsss_cli.files import unnamed_file
from wsss_cli.processes import check_stop

Numbers: TypeAlias = "array[int] | memoryview"
LIMIT = 65_536  # numbers up to which they stay in memory
FEW = 4096  # numbers that are looked at without NumPy


class Packed:
    """Numbers of one type. They are added at the end of `tail`, and `settle` is called now and then.

    Args:
        code: their type, as of `array`.
        folder: where the file takes room; where there can be none, numbers stay in memory.
    """

    def __init__(self, code: str, folder: Path) -> None:
        self.tail = array(code)
        self._folder, self._limit = folder, LIMIT
        self._file: BinaryIO | None = None
        self._written = 0  # bytes

    def settle(self) -> None:
        """Put what is in `tail` into the file where there are many; where that is full, all stays in memory."""
        if self._file is None and len(self.tail) > self._limit:
            self._limit = sys.maxsize
            with contextlib.suppress(WriteError):
                self._file = unnamed_file(self._folder)
        if self._file is None or not self.tail:
            return
        data, done = self.tail.tobytes(), 0
        try:
            while done < len(data):
                done += os.write(self._file.fileno(), data[done:])
        except OSError:
            self.tail = array(self.tail.typecode, os.pread(self._file.fileno(), self._written, 0) + data)
            self._file.close()
            self._file = None
        else:
            self._written += done
            del self.tail[:]

    def clear(self) -> None:
        """There are none after all."""
        self._file, self._written = None, 0
        del self.tail[:]

    def numbers(self) -> Numbers:
        """All of them, in memory or mapped from the file; none are added any more."""
        self.settle()
        if self._file is None:
            return self.tail
        with self._file:
            mapped = mmap.mmap(self._file.fileno(), self._written, access=mmap.ACCESS_READ)
        view: Any = memoryview(mapped)
        numbers: memoryview = view.cast(self.tail.typecode)
        return numbers


def has_twins(hashes: Numbers) -> bool:
    """Whether a number occurs more than once."""
    if len(hashes) < FEW:
        return len(set(hashes)) < len(hashes)
    import numpy as np  # here: a dry run does without

    numbers = np.frombuffer(hashes, np.uint64)
    parts = max(1, len(numbers) >> 20)  # a sorted copy of all would take as much again
    for part in range(parts):
        check_stop()
        ordered = np.sort(np.concatenate([some[some % parts == part] for some in np.array_split(numbers, parts)]))
        if (ordered[1:] == ordered[:-1]).any():
            return True
    return False
