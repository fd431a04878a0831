"""Predictions of an image counted against its true mask, in worker processes too. Nothing here loads torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wsss_cli.config.base import CrfConfig
from wsss_cli.crf import dense_crf
from wsss_cli.crf.dense import Backend
from wsss_cli.scoring.counts import Counts

if TYPE_CHECKING:
    from wsss_cli.metrics.on_device import DeviceConfusion


@dataclass(frozen=True)
class Prediction:
    """What is to be counted of an image.

    Attributes:
        truth: uint8 [H, W].
        labels: of each mode that is counted here, uint8 [H, W].
        counted: of each mode that is counted on the device, the counts of the image.
        image, probabilities: for a CRF, uint8 [H, W, 3] and float32 [K, H, W].
    """

    truth: np.ndarray
    labels: dict[str, np.ndarray]
    counted: dict[str, DeviceConfusion]
    image: np.ndarray | None = None
    probabilities: np.ndarray | None = None


@dataclass(frozen=True)
class Counting:
    """What is counted of an image; sent to worker processes where there is a CRF.

    Attributes:
        refined: the mode of the labels after the CRF, where there is one.
    """

    num_classes: int
    boundary: bool
    refined: str = ""
    crf: CrfConfig | None = None
    backend: Backend = "lattice"

    def __call__(self, prediction: Prediction) -> dict[str, Counts]:
        counts = {mode: Counts(self.num_classes, self.boundary) for mode in prediction.labels}
        for mode, labels in prediction.labels.items():
            counts[mode].add(labels, prediction.truth)
        for mode, there in prediction.counted.items():
            counts[mode] = Counts(self.num_classes)
            counts[mode].confusion.matrix += there.matrix()
            counts[mode].pixels += there.pixels
        if self.crf is not None and prediction.image is not None and prediction.probabilities is not None:
            unary = -np.log(np.clip(prediction.probabilities, 1e-5, 1.0))
            posterior = dense_crf(prediction.image, unary, **self.crf.model_dump(), backend=self.backend)
            counts[self.refined] = Counts(self.num_classes, self.boundary)
            counts[self.refined].add(posterior.argmax(0).astype(np.uint8), prediction.truth)
        return counts
