"""Boundary IoU: the overlap of what lies close to the contours of prediction and truth."""

from __future__ import annotations

import cv2
import numpy as np

NEIGHBOURS = np.ones((3, 3), np.uint8)


class Boundary:
    """Pixel counts close to the contours, int64 [K] each: `intersect` and `union`, added up image by image.

    Close is within `ratio` times the diagonal of the image, at least one pixel, on the inner side of a contour; the
    edge of the image is a contour too. Pixels whose truth is 255 belong to no class, neither in truth nor in
    prediction: what a void band hides is not scored.

    Source: Cheng et al., "Boundary IoU", CVPR 2021, eq. 3, ratio 0.02; counts are added up over images, as for IoU.
    """

    def __init__(self, num_classes: int, ratio: float = 0.02) -> None:
        self.num_classes, self.ratio = num_classes, ratio
        self.intersect = np.zeros(num_classes, np.int64)
        self.union = np.zeros(num_classes, np.int64)

    def add(self, pred: np.ndarray, truth: np.ndarray, ignore_index: int = 255) -> None:
        """Count one image: class indices, uint8 [H, W] each."""
        width = max(1, round(self.ratio * float(np.hypot(*truth.shape))))
        scored = truth != ignore_index
        present = np.union1d(np.unique(pred[scored]), np.unique(truth[scored]))
        for index in present[present < self.num_classes]:
            near = [_band((labels == index) & scored, width) for labels in (pred, truth)]
            self.intersect[index] += int((near[0] & near[1]).sum())
            self.union[index] += int((near[0] | near[1]).sum())

    def merge(self, other: Boundary) -> None:
        """Add the counts of another one with the same classes."""
        self.intersect += other.intersect
        self.union += other.union

    def iou(self) -> np.ndarray:
        """Boundary IoU of each class, float64 [K], NaN for a class in neither truth nor prediction."""
        undefined = np.full(self.num_classes, np.nan)
        iou: np.ndarray = np.divide(self.intersect, self.union, out=undefined, where=self.union > 0)
        return iou


def _band(region: np.ndarray, width: int) -> np.ndarray:
    """Pixels of a region, bool [H, W], from which at most `width` steps (8 neighbours) lead out of it."""
    if not region.any():
        return region
    inner = cv2.erode(
        region.view(np.uint8), NEIGHBOURS, iterations=width, borderType=cv2.BORDER_CONSTANT, borderValue=0
    )
    band: np.ndarray = region & (inner == 0)
    return band
