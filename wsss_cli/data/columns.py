"""One thing of each of many samples; of a list without the rest of its rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from wsss_cli.data.splits import Sample, Split
from wsss_cli.rows import Rows

if TYPE_CHECKING:
    import numpy as np


def sizes_of(samples: Sequence[Any]) -> np.ndarray:
    """Height and width of each sample as its list has them, uint32 [N, 2]; 0 where it does not."""
    import numpy as np

    if isinstance(samples, Split):
        known = np.frombuffer(samples.sizes, np.uint32).reshape(-1, 2)
        return known if len(known) else np.zeros((len(samples), 2), np.uint32)
    if isinstance(samples, Rows):
        return sizes_of(samples.base)[np.asarray(samples.numbers, np.int64)]
    sizes = [getattr(sample, "size", None) or (0, 0) for sample in samples]
    return np.array(sizes, np.uint32).reshape(-1, 2)


def hashes_of(samples: Sequence[Sample]) -> np.ndarray:
    """`hash` of the id of each sample, int64 [N]; of one process alone, as Python's hashes of text are."""
    import numpy as np

    if isinstance(samples, Split):
        return np.frombuffer(samples.hashes, np.int64)
    if isinstance(samples, Rows):
        return hashes_of(samples.base)[np.asarray(samples.numbers, np.int64)]
    return np.fromiter((hash(sample.id) for sample in samples), np.int64, len(samples))


def names_of(samples: Sequence[Sample]) -> Iterator[str]:
    """The ids of samples; of those of a list without the rest of their rows."""
    if isinstance(samples, Split):
        return samples.names()
    if isinstance(samples, Rows) and isinstance(samples.base, Split):
        return (samples.base.name(int(number)) for number in samples.numbers)
    return (sample.id for sample in samples)
