"""What is counted of a set of predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from wsss_cli.labels import IGNORE
from wsss_cli.metrics.boundary import Boundary
from wsss_cli.metrics.confusion import Confusion
from wsss_cli.metrics.scores import number, summary
from wsss_cli.scoring.by_image import AREAS, ClassAreas, class_areas


class Counts:
    """What is counted of a set of predictions: the confusion and, where asked for, what lies close to contours.

    Attributes:
        pixels: of all images, those that are 255 in the truth too.
        images: what single images added, by id, of those that were named.
    """

    def __init__(self, num_classes: int, boundary: bool = False) -> None:
        self.confusion = Confusion(num_classes)
        self.boundary = Boundary(num_classes) if boundary else None
        self.pixels = 0
        self.images: dict[str, ClassAreas] = {}

    def add(self, pred: np.ndarray, truth: np.ndarray) -> None:
        """Count one image: class indices, uint8 [H, W] each; 255 in the truth is not scored."""
        self.confusion.add(pred, truth, IGNORE)
        self.pixels += truth.size
        if self.boundary:
            self.boundary.add(pred, truth, IGNORE)

    def name(self, image: str) -> None:
        """Remember the counts, which are of one image, as those of that image."""
        self.images = {image: class_areas(self.confusion.matrix)}

    def merge(self, other: Counts) -> None:
        """Add the counts of another one."""
        self.confusion.merge(other.confusion)
        self.pixels += other.pixels
        self.images |= other.images
        if self.boundary and other.boundary:
            self.boundary.merge(other.boundary)

    def state(self) -> dict[str, Any]:
        """The counts as JSON holds them."""
        counts: dict[str, Any] = {"confusion": self.confusion.matrix.tolist(), "pixels": self.pixels}
        counts["images"] = {name: [there.tolist(), table.tolist()] for name, (there, table) in self.images.items()}
        if self.boundary:
            counts |= {"intersect": self.boundary.intersect.tolist(), "union": self.boundary.union.tolist()}
        return counts

    def load_state(self, state: dict[str, Any]) -> None:
        """Take the counts of `state` in place of those counted so far."""
        self.confusion.matrix = np.array(state["confusion"], np.int64)
        self.pixels = int(state["pixels"])
        self.images = {
            name: (np.array(there, np.int16), np.array(table, np.int32).reshape(-1, len(AREAS)))
            for name, (there, table) in state["images"].items()
        }
        if self.boundary:
            self.boundary.intersect = np.array(state["intersect"], np.int64)
            self.boundary.union = np.array(state["union"], np.int64)

    def scores(self, names: Sequence[str] | None = None) -> dict[str, Any]:
        """What is reported, ready for JSON.

        Returns:
            `metrics.scores.summary`; `confusion`, [K+1][K+1]; `unscored_share` of all pixels, in 0..1: those that are
            255 in the truth; `biou` of each class and `mbiou`, per cent, if counted.
        """
        scores = {**summary(self.confusion.areas(), names), "confusion": self.confusion.matrix.tolist()}
        scores["unscored_share"] = 1 - int(self.confusion.matrix.sum()) / max(self.pixels, 1)
        if self.boundary:
            each = 100 * self.boundary.iou()
            scores["biou"] = [number(value) for value in each]
            scores["mbiou"] = number(float(np.nanmean(each))) if not np.isnan(each).all() else None
        return scores
