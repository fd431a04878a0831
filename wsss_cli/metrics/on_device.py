"""The confusion matrix of label maps that lie on a GPU: counted there, brought to the CPU once."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class DeviceConfusion:
    """The counts of `metrics.confusion.Confusion`; adding to them waits for nothing.

    Integers, so the order of the additions changes nothing and the result is the same from run to run.
    """

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self.size = num_classes + 1
        self.pixels = 0  # those that are not counted, too
        self.cells = torch.zeros(self.size * self.size, dtype=torch.int64, device=device)

    def add(self, pred: Tensor, truth: Tensor, ignore_index: int = 255) -> None:
        """Count pixels.

        Args:
            pred: class indices, uint8 of any shape, on the device; K and more are outside the classes.
            truth: the same of the same shape; pixels equal to `ignore_index` are not counted.
        """
        outside = self.size - 1
        self.pixels += truth.numel()
        cell = truth.long().clamp_(max=outside).mul_(self.size).add_(pred.long().clamp_(max=outside))
        self.cells.scatter_add_(0, cell.flatten(), (truth != ignore_index).long().flatten())

    def matrix(self) -> np.ndarray:
        """int64 [K+1, K+1], rows truth, columns prediction; waits for the device."""
        return self.cells.cpu().numpy().reshape(self.size, self.size)
