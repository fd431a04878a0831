"""Early-learning label correction: labels of a class are replaced once its IoU curve flattens."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsss_cli.config.noise import UpdateConfig
from wsss_cli.labels import IGNORE
from wsss_cli.ranks.sums import total
from wsss_cli.ranks.who import here

LEAST_POINTS = 5  # two more than the curve has parameters
NEVER_LEARNED = 0.01  # a curve that stays below this IoU has no early phase of learning to end


class IouCurves:
    """IoU of the prediction with the initial pseudo label, for each class over training, and what has flattened.

    Training is cut into `points` parts; a part's confusion matrix, summed over its crops, gives each class one point.

    Attributes:
        corrected: bool [K] on the CPU: labels of these classes are replaced from now on.

    Args:
        num_classes: K, background included.
        iters: of the whole training.
        device: where predictions come from.
    Source: Liu et al. (ADELE), CVPR 2022.
    """

    def __init__(self, num_classes: int, config: UpdateConfig, iters: int, device: torch.device) -> None:
        self.num_classes, self.config = num_classes, config
        self.interval = iters // config.points
        self.confusion = torch.zeros(num_classes**2 + 1, dtype=torch.int64, device=device)  # the last one: ignored
        self.curves = torch.zeros((0, num_classes), dtype=torch.float64)
        self.corrected = torch.zeros(num_classes, dtype=torch.bool)
        self._table = torch.zeros(IGNORE + 1, dtype=torch.bool, device=device)

    def record(self, prediction: Tensor, label: Tensor) -> None:
        """Count a batch: predicted classes, int64 [B, h, w], and initial labels or 255, of the same shape."""
        label = label.long()
        index = torch.where(label == IGNORE, self.num_classes**2, label * self.num_classes + prediction).flatten()
        self.confusion.scatter_add_(0, index, torch.ones_like(index))

    def after_step(self, step: int) -> list[int]:
        """At the end of a part: add a point to each curve and return the classes that are corrected from here on."""
        if step % self.interval:
            return []
        matrix = total(self.confusion)[:-1].view(self.num_classes, self.num_classes).cpu().double()
        self.confusion.zero_()
        hits = matrix.diagonal()
        labelled = matrix.sum(1)
        iou = hits / (labelled + matrix.sum(0) - hits)
        iou[labelled == 0] = torch.nan  # no label of the class: nothing is known, whatever was predicted
        self.curves = torch.cat([self.curves, iou[None]])
        flat = [
            c
            for c in range(self.num_classes)
            if not self.corrected[c] and slope_drop(self.curves[:, c].numpy()) > self.config.slope_drop
        ]
        self._correct(flat)
        return flat

    def _correct(self, classes: list[int]) -> None:
        self.corrected[classes] = True
        self._table[: self.num_classes] = self.corrected.to(self._table.device)

    def replace(self, target: Tensor, probability: Tensor) -> tuple[Tensor, Tensor]:
        """Replace labels of corrected classes where the prediction is sure.

        Args:
            target: class indices or 255, int64 [B, H, W].
            probability: averaged prediction within the image's tags, float [B, K, H, W].
        Returns:
            (target, certainty): the new labels, and, float [B, H, W], the prediction's probability where a label became
            another one, else 1.
        """
        certainty, best = probability.max(1)
        replaced = self._table[target] & (certainty > self.config.threshold) & (best != target)
        return torch.where(replaced, best, target), torch.where(replaced, certainty, torch.ones_like(certainty))

    def state(self) -> dict[str, Tensor]:
        """All that the future depends on; asked of every rank, as the counts are those of all."""
        return {"confusion": total(self.confusion).clone(), "curves": self.curves, "corrected": self.corrected.clone()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a `state`."""
        self.confusion.copy_(state["confusion"])
        if here().rank:  # they were added up
            self.confusion.zero_()
        self.curves = state["curves"].clone()
        self._correct(torch.nonzero(state["corrected"]).flatten().tolist())


def slope_drop(iou: np.ndarray) -> float:
    """Share by which the slope of a fitted learning curve has dropped from the first point to the last.

    The curve is f(x) = a (1 - exp(-b x^c)), fitted by least squares to the points x = 1, 2, ...; the drop is
    1 - f'(T) / f'(1), in which a cancels.

    Args:
        iou: points in [0, 1], float64 [T]; NaN where the class was not seen, which leaves the point out.
    Returns:
        The drop, at most 1 (negative where the curve still gets steeper); NaN with fewer than five points, a class that
        was never learned, or no fit.
    Source: Liu et al. (ADELE), CVPR 2022: correct once |f'(1) - f'(t)| / |f'(1)| > r, r = 0.9.
    """
    from scipy.optimize import curve_fit  # half a second to import, for those alone who ask for it

    x, seen = np.arange(1, len(iou) + 1, dtype=np.float64), np.isfinite(iou)
    if seen.sum() < LEAST_POINTS or np.max(iou[seen]) < NEVER_LEARNED:
        return float("nan")

    def curve(x: np.ndarray, a: float, b: float, c: float) -> np.ndarray:
        return a * (1 - np.exp(-b * x**c))

    start = (min(float(np.max(iou[seen])), 0.999), 0.5, 0.5)
    try:
        (_, b, c), _ = curve_fit(curve, x[seen], iou[seen], start, bounds=((0.0, 1e-3, 0.05), (1.0, 20.0, 3.0)))
    except RuntimeError:  # no convergence
        return float("nan")
    return float(1 - x[-1] ** (c - 1) * np.exp(-b * (x[-1] ** c - 1)))
