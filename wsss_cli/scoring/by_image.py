"""What single images add to a score: for the best and the worst of them, and for intervals of a difference.

Nothing here loads torch.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsss_cli.cam.store import npz_fault
from wsss_cli.errors import DataError
from wsss_cli.files import write_bytes
from wsss_cli.metrics.scores import miou

AREAS = ("intersect", "pred", "label")
AREAS_FILE = "eval.images.npz"  # of the scores in eval.json
MOST = 200_000  # images, above which nothing is kept of single ones
ClassAreas = tuple[np.ndarray, np.ndarray]  # of an image: its classes, int16 [n], and their areas, int32 [n, 3]
CHUNK = 64  # resamples at a time


@dataclass(frozen=True)
class ImageAreas:
    """Pixels of each class in each image; a row is kept for the classes that an image has in truth or prediction.

    Attributes:
        names: ids of the images.
        rows: index of the image, int32 [R], ascending.
        classes: class index, int16 [R].
        areas: pixels of intersection, prediction and truth, int32 [R, 3].
    """

    names: tuple[str, ...]
    rows: np.ndarray
    classes: np.ndarray
    areas: np.ndarray

    def dense(self, num_classes: int) -> np.ndarray:
        """Pixels as int64 [images, K, 3]."""
        table = np.zeros((len(self.names), num_classes, len(AREAS)), np.int64)
        table[self.rows, self.classes] = self.areas
        return table

    def mious(self) -> np.ndarray:
        """Mean IoU of each image over the classes that it has in truth or prediction, per cent, float64 [images].

        NaN for an image without a scored pixel.
        """
        intersect, pred, label = self.areas.T.astype(np.float64)
        each = 100 * intersect / np.maximum(pred + label - intersect, 1)
        total = np.bincount(self.rows, each, len(self.names))
        count = np.bincount(self.rows, minlength=len(self.names))
        means: np.ndarray = np.divide(total, count, out=np.full(len(self.names), np.nan), where=count > 0)
        return means

    def taken(self, names: Sequence[str]) -> ImageAreas:
        """Those of some images, in the order of `names`; all must be there."""
        places = {name: number for number, name in enumerate(self.names)}
        order = [places[name] for name in names]
        starts = np.searchsorted(self.rows, np.arange(len(self.names) + 1))
        index = [np.arange(starts[place], starts[place + 1]) for place in order]
        rows = np.repeat(np.arange(len(order), dtype=np.int32), [len(part) for part in index])
        flat = np.concatenate(index) if index else np.zeros(0, np.intp)
        return ImageAreas(tuple(names), rows, self.classes[flat], self.areas[flat])


def class_areas(matrix: np.ndarray) -> ClassAreas:
    """Of an image's confusion matrix, [K+1, K+1] as `metrics.confusion.Confusion` holds it."""
    k = len(matrix) - 1
    table = np.stack([matrix.diagonal()[:k], matrix[:, :k].sum(axis=0), matrix[:k].sum(axis=1)], axis=1)
    there = np.flatnonzero(table.any(axis=1))
    return there.astype(np.int16), table[there].astype(np.int32)


def image_areas(images: Iterable[tuple[str, ClassAreas]]) -> ImageAreas:
    """Areas of all images together, in order."""
    names, rows, classes, areas = [], [], [], []
    for number, (name, (there, table)) in enumerate(images):
        names.append(name)
        rows.append(np.full(len(there), number, np.int32))
        classes.append(there)
        areas.append(table)
    if not names:
        return ImageAreas((), np.zeros(0, np.int32), np.zeros(0, np.int16), np.zeros((0, 3), np.int32))
    return ImageAreas(tuple(names), np.concatenate(rows), np.concatenate(classes), np.concatenate(areas))


def write_areas(path: Path, areas: ImageAreas) -> None:
    """Write as .npz, whole or not at all; about 60 bytes an image.

    Raises:
        WriteError: the file cannot be written.
    """
    buffer = io.BytesIO()
    text = np.frombuffer("\n".join(areas.names).encode(), np.uint8)
    np.savez_compressed(buffer, names=text, rows=areas.rows, classes=areas.classes, areas=areas.areas)
    write_bytes(path, buffer.getvalue())


def read_areas(path: Path) -> ImageAreas:
    """Read what `write_areas` wrote.

    Raises:
        DataError: it is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            text = stored["names"].tobytes().decode()
            names = tuple(text.split("\n")) if text else ()
            read = ImageAreas(names, stored["rows"], stored["classes"], stored["areas"])
    except MemoryError:
        raise
    except Exception as error:  # NumPy, zipfile and zlib raise many types on a damaged file
        raise DataError(f"{path} cannot be read: {npz_fault(error)}", "score the run again: wsss eval") from error
    return read


@dataclass(frozen=True)
class Difference:
    """Of two scores on the same images, b - a, in points of mIoU.

    Attributes:
        low, high: the interval that holds 95 % of the resampled differences.
        images: that both have scored.
    """

    value: float
    low: float
    high: float
    images: int


def paired_difference(
    a: ImageAreas,
    b: ImageAreas,
    num_classes: int,
    check: Callable[[], object],
    resamples: int = 2000,
    seed: int = 0,
) -> Difference | None:
    """The difference of mIoU, b - a, with its interval by the paired bootstrap over images; None: no common image.

    Images are drawn with replacement, the same ones for both; of each draw the mIoU of all drawn pixels is taken. The
    interval is of the images alone: another seed of the training is another network, and is not in it.

    Args:
        check: looks at a stop flag.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), percentile intervals.
    """
    there = set(b.names)
    names = [name for name in a.names if name in there]
    if not names:
        return None
    first, second = (one.taken(names).dense(num_classes).reshape(len(names), -1) for one in (a, b))
    generator = np.random.default_rng(seed)
    share = np.full(len(names), 1 / len(names))
    differences = []
    for start in range(0, resamples, CHUNK):
        check()
        weights = generator.multinomial(len(names), share, size=min(CHUNK, resamples - start)).astype(np.float64)
        differences += [_miou(y) - _miou(x) for x, y in zip(weights @ first, weights @ second, strict=True)]
    low, high = np.nanpercentile(differences, [2.5, 97.5])
    return Difference(_miou(second.sum(axis=0)) - _miou(first.sum(axis=0)), float(low), float(high), len(names))


def _miou(flat: np.ndarray) -> float:
    intersect, pred, label = flat.reshape(-1, len(AREAS)).T
    return miou({"intersect": intersect, "union": pred + label - intersect})
