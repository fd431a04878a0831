"""What the C library does with memory that is freed: it keeps it for the next array."""

from __future__ import annotations

import contextlib
import os
import sys

LARGEST = 32 * 2**20  # bytes; the most that glibc lets its heap be asked for in place of pages of their own
KEPT, KEPT_BY_WORKERS = 256 * 2**20, 64 * 2**20  # bytes of freed memory, about
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
OWN = ("MALLOC_", "GLIBC_TUNABLES")  # variables by which somebody has decided for himself


def keep_freed(most: int = KEPT) -> None:
    """Let the C library keep freed memory, `most` bytes at its end, in place of giving it back after each array.

    Arrays of an image have half a megabyte to some: by default each of them is new pages of the system, which must be
    made zero and mapped, and that takes as long as a colour distortion. Nothing happens without glibc, and where the
    environment sets what malloc does. Of 32 MiB on, arrays still have pages of their own.
    """
    if sys.platform != "linux" or any(name.startswith(OWN) for name in os.environ):
        return
    import ctypes

    with contextlib.suppress(AttributeError, OSError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST)
        libc.mallopt(M_TRIM_THRESHOLD, most)
