"""Sums over all ranks. With one rank everything here gives back what it was given.

A loss is a mean over the global batch. Each rank computes its share: what its own part of the batch adds to the sum,
divided by what `total` says of all parts. Shares add up to the loss, and so do their gradients.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from wsss_cli.ranks.who import here, works_alone


def alone() -> bool:
    """Whether there are no other ranks."""
    return works_alone() or not dist.is_initialized()


def total(x: Tensor) -> Tensor:
    """Sum over ranks, without a gradient."""
    if alone():
        return x
    x = x.detach().clone()
    dist.all_reduce(x)
    return x


def total_count(count: int, device: torch.device) -> int:
    """Sum of a number over ranks."""
    return count if alone() else int(total(torch.tensor(count, device=device)))


def total_with_gradient(x: Tensor) -> Tensor:
    """Sum over ranks, through which gradients of all ranks flow back."""
    if alone():
        return x
    summed: Tensor = _Sum.apply(x)
    return summed


def shares(means: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """This rank's shares of means over the images of the global batch.

    Args:
        means: over this rank's images.
        count: how many those are.
    """
    if alone():
        return means
    part = count / total_count(count, next(iter(means.values())).device)
    return {name: mean * part for name, mean in means.items()}


def concatenated(x: Tensor) -> tuple[Tensor, slice]:
    """All ranks' rows in the order of ranks, and where this rank's are among them; only those have a gradient.

    Args:
        x: [N, ...]; N may differ between ranks.
    """
    if alone():
        return x, slice(0, len(x))
    ranks = here()
    counts = torch.zeros(ranks.world, dtype=torch.int64, device=x.device)
    counts[ranks.rank] = len(x)
    lengths = total(counts).tolist()
    padded = x.new_zeros((max(lengths), *x.shape[1:]))
    padded[: len(x)] = x.detach()
    parts = [torch.empty_like(padded) for _ in lengths]
    dist.all_gather(parts, padded)
    start = sum(lengths[: ranks.rank])
    rows = [part[:length] for part, length in zip(parts, lengths, strict=True)]
    rows[ranks.rank] = x
    return torch.cat(rows), slice(start, start + len(x))


def share_of_same(loss: Tensor) -> Tensor:
    """This rank's share of a loss that every rank has computed of all rows (see `concatenated`)."""
    return loss if alone() else loss - (1 - 1 / here().world) * loss.detach()


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous().clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        gradient = grads[0].contiguous().clone()
        dist.all_reduce(gradient)
        return gradient
