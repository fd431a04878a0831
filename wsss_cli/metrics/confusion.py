"""The confusion matrix from which every score comes: exact integers, added up image by image."""

from __future__ import annotations

import numpy as np

from wsss_cli.errors import DataError

FEW = 1 << 15  # pixels of an image, up to which a table of what each value means is quicker than 256 x 256 counts


class Confusion:
    """Counts of (truth, prediction) over pixels, exact at any number of images.

    `matrix` is int64 [K+1, K+1], rows truth, columns prediction; the last row and column hold what lies outside 0..K-1.
    """

    def __init__(self, num_classes: int) -> None:
        if num_classes < 1:
            raise ValueError(f"num_classes must be positive, not {num_classes}")
        self.num_classes = num_classes
        self.matrix = np.zeros((num_classes + 1, num_classes + 1), np.int64)

    def add(self, pred: np.ndarray, truth: np.ndarray, ignore_index: int = 255) -> None:
        """Count the pixels of one image.

        Args:
            pred: class indices, any integer type, [H, W].
            truth: class indices, any integer type, [H, W]; pixels equal to `ignore_index` are not counted at all.
        Raises:
            DataError: the two differ in shape.
        """
        if pred.shape != truth.shape:
            raise DataError(
                f"prediction is {size_text(pred.shape)} and truth is {size_text(truth.shape)} (height x width)",
                "both must have the size of the image",
            )
        if pred.dtype == truth.dtype == np.uint8:
            self.matrix += self._bytes(pred, truth, ignore_index)
            return
        scored = truth != ignore_index
        size = self.num_classes + 1
        cell = self._index(truth[scored]) * size + self._index(pred[scored])
        self.matrix += np.bincount(cell, minlength=size * size).reshape(size, size)

    def _bytes(self, pred: np.ndarray, truth: np.ndarray, ignore_index: int) -> np.ndarray:
        """The counts of uint8 images: one pass over the pixels, whatever the classes."""
        if truth.size <= FEW and self.num_classes < 255:
            return self._few(pred, truth, ignore_index)
        pairs = np.left_shift(truth, 8, dtype=np.intp)
        pairs |= pred
        counts = np.bincount(pairs.ravel(), minlength=1 << 16).reshape(256, 256)
        if 0 <= ignore_index < 256:
            counts[ignore_index] = 0
        k = min(self.num_classes, 256)
        folded = np.zeros_like(self.matrix)
        folded[:k, :k] = counts[:k, :k]
        folded[-1, :k] += counts[k:, :k].sum(axis=0)
        folded[:k, -1] += counts[:k, k:].sum(axis=1)
        folded[-1, -1] += counts[k:, k:].sum()
        return folded

    def _few(self, pred: np.ndarray, truth: np.ndarray, ignore_index: int) -> np.ndarray:
        """The counts of small uint8 images, of fewer than 255 classes."""
        size = self.num_classes + 1
        column = np.minimum(np.arange(256), self.num_classes)
        row = size * column
        if 0 <= ignore_index < 256:
            row[ignore_index] = size * size  # a row more, which is dropped
        cell = row.take(truth)
        cell += column.take(pred)
        counts = np.bincount(cell.ravel(), minlength=size * size)[: size * size]
        return counts.reshape(size, size)

    def merge(self, other: Confusion) -> None:
        """Add the counts of another matrix with the same classes.

        Raises:
            ValueError: it has other classes.
        """
        if other.num_classes != self.num_classes:
            raise ValueError(f"cannot merge {other.num_classes} classes into {self.num_classes}")
        self.matrix += other.matrix

    def areas(self) -> dict[str, np.ndarray]:
        """Pixel counts of each class: `intersect`, `union`, `pred`, `label`, int64 [K] each.

        A truth outside the classes is in no `label`, but what is predicted there counts in `pred` and so in `union`; a
        prediction outside the classes is in no `pred`, but the truth there counts in `label`.

        Source: `IoUMetric` of MMSegmentation 1.2.2, which adds up in float32.
        """
        k = self.num_classes
        intersect = self.matrix.diagonal()[:k].copy()
        pred = self.matrix[:, :k].sum(axis=0)
        label = self.matrix[:k].sum(axis=1)
        return {"intersect": intersect, "union": pred + label - intersect, "pred": pred, "label": label}

    def _index(self, values: np.ndarray) -> np.ndarray:
        if values.dtype.kind not in "uib":
            raise TypeError(f"class indices must be integers, not {values.dtype}")
        index = values.astype(np.intp)
        index[index < 0] = self.num_classes
        return np.minimum(index, self.num_classes, out=index)


def size_text(shape: tuple[int, ...]) -> str:
    """'375x500' for the shape (375, 500)."""
    return "x".join(str(side) for side in shape)
