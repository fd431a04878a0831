"""Boxes as partial label maps: background outside all of them, their inside left open or told by a dense CRF."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from wsss_cli.config.base import CrfConfig
from wsss_cli.crf import dense_crf
from wsss_cli.data.drawings.shapes import Shape, box_edges
from wsss_cli.errors import DataError
from wsss_cli.labels import IGNORE

Fill = Literal["crf", "none"]
CENTRE = 0.2  # share of a box's pixels around its middle that are taken for its class
SURE = 0.95  # probability of what is taken for known, in the unary
CERTAIN = 0.9  # posterior from which on a pixel inside gets its label


def box_labels(image: np.ndarray, boxes: Sequence[tuple[Shape, int]], fill: Fill) -> np.ndarray:
    """A partial label map from boxes.

    Outside all boxes is background. Inside, 'none' says nothing. 'crf' runs the dense CRF on unaries of 0.95 for the
    background outside and for the class in the middle fifth of each box, and of one half each for background and class
    between; where boxes overlap the smaller one is in front. A pixel inside gets the label whose posterior is 0.9 or
    more, else 255, and so do those of a box in which the CRF leaves no pixel of its class.

    Args:
        image: RGB, uint8 [H, W, 3].
        boxes: each with its class index, or 255: nothing is said inside.
    Returns:
        Class indices and 255, uint8 [H, W].
    Raises:
        DataError: a box holds no pixel, or is one of the background.

    Source: Papandreou et al., ICCV 2015, 'Bbox-Seg' (CRF between a fixed outside and a fixed centre of 20 %, smaller
    boxes in front); Khoreva et al., CVPR 2017 (what stays unsure is ignored).
    """
    size = image.shape[0], image.shape[1]
    edges = [(*box_edges(shape, size), label) for shape, label in boxes]
    for (shape, label), _ in zip(boxes, edges, strict=True):
        if not label:
            raise DataError(f"{shape.where}: a box of the background", "what is outside all boxes is background")
    front = np.zeros(size, np.uint8)  # the class of the box in front, 0 outside all of them
    centre = np.zeros(size, bool)
    for top, bottom, left, right, label in sorted(edges, key=lambda box: -(box[1] - box[0]) * (box[3] - box[2])):
        front[top:bottom, left:right] = label
        centre[top:bottom, left:right] = False
        centre[_middle(top, bottom), _middle(left, right)] = True
    labels = np.where(front > 0, np.uint8(IGNORE), np.uint8(0))
    classes = [int(value) for value in np.unique(front) if value not in (0, IGNORE)]
    if fill == "none" or not classes:
        return labels
    posterior = dense_crf(image, -np.log(_prior(front, centre, classes)), **CrfConfig().model_dump(), backend="lattice")
    values = np.array([0, *classes], np.uint8)
    sure = (posterior.max(axis=0) >= CERTAIN) & (front > 0) & (front != IGNORE)
    labels[sure] = values[posterior.argmax(axis=0)[sure]]
    for top, bottom, left, right, label in edges:
        inside = labels[top:bottom, left:right]
        if not (inside == label).any():
            inside[front[top:bottom, left:right] == label] = IGNORE
    return labels


def _middle(first: int, end: int) -> slice:
    """The middle of a side, so that both make `CENTRE` of a box; a pixel at least."""
    length = max(round((end - first) * CENTRE**0.5), 1)
    start = first + (end - first - length) // 2
    return slice(start, start + length)


def _prior(front: np.ndarray, centre: np.ndarray, classes: Sequence[int]) -> np.ndarray:
    """Probabilities of background and classes before the CRF, float32 [1 + C, H, W]."""
    prior = np.full((1 + len(classes), *front.shape), (1 - SURE) / len(classes), np.float32)
    prior[0][front == 0] = SURE
    prior[0][front == IGNORE] = 1 / (1 + len(classes))
    for plane, label in zip(prior[1:], classes, strict=True):
        plane[front == IGNORE] = 1 / (1 + len(classes))
        plane[(front == label) & centre] = SURE
        between = (front == label) & ~centre
        plane[between] = prior[0][between] = 0.5
    return prior
