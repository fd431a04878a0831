"""The exponential moving average (EMA) of a network in training."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn


class Average:
    """A copy of a network whose weights follow it by an exponential moving average.

    Running means and variances of batch norm are averaged like weights; what counts (`num_batches_tracked`) is copied.

    Attributes:
        model: the copy, in evaluation mode, without gradients.

    Args:
        model: the network to follow, as it stands before the first iteration.
        decay: share of the average that an iteration keeps.
    Source: Tarvainen and Valpola, Mean teachers are better role models, NeurIPS 2017; min(1 - 1/(t + 1), decay) as in
        the released code: while the average is short it is the plain mean.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model: Any = copy.deepcopy(model).requires_grad_(False).eval()
        self.decay = decay

    @torch.no_grad()
    def follow(self, model: nn.Module, step: int) -> None:
        """Take in the weights and the running statistics of `model` after iteration `step` (counted from 1)."""
        rate = 1 - min(1 - 1 / (step + 1), self.decay)
        averages, values = self.model.state_dict(), model.state_dict()
        floats = [key for key, value in values.items() if value.is_floating_point()]
        # one launch for many tensors: one for each of some hundred takes a GPU's host milliseconds
        torch._foreach_lerp_([averages[key] for key in floats], [values[key] for key in floats], rate)
        for key in values.keys() - floats:
            averages[key].copy_(values[key])
