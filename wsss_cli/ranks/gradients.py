"""Gradients of all ranks, averaged as they come (torch's DistributedDataParallel)."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from wsss_cli.ranks.sums import alone

Losses = Callable[[dict[str, Any]], dict[str, Tensor]]


class _Losses(nn.Module):
    """A model and its losses as one forward pass, however often the losses call the model."""

    def __init__(self, model: nn.Module, losses: Losses) -> None:
        super().__init__()
        self.model, self.losses = model, losses

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        return self.losses(batch)


def spread_losses(model: nn.Module, losses: Losses) -> Losses:
    """The losses of a model, whose gradients then are the mean over ranks; alone they stay what they are."""
    if alone():
        return losses
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # broadcast_buffers is what older versions of torch call it
        spread: Losses = DistributedDataParallel(
            _Losses(model, losses), broadcast_buffers=False, gradient_as_bucket_view=True
        )
    # Weights of one input channel have two writings of the same strides, which torch takes for two layouts.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides", category=UserWarning)
    return spread


def summed_later(losses: Losses, later: bool) -> AbstractContextManager[Any]:
    """Within it gradients are not averaged yet, where another part of the batch follows."""
    if later and isinstance(losses, DistributedDataParallel):
        return losses.no_sync()
    return contextlib.nullcontext()
