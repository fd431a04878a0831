"""Pairs of neighbouring pixels, the paths between them, and their affinities."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

Offset = tuple[int, int]


def half_disc(radius: int) -> list[Offset]:
    """The (dy, dx) from a pixel to those neighbours nearer than `radius` that come after it in reading order.

    Each pair of neighbours has one of the two directions; 34 offsets for radius 5, 152 for radius 10.
    Source: IRN, `misc/indexing.py`.
    """
    reach = range(-radius + 1, radius)
    return [(dy, dx) for dy in range(radius) for dx in reach if (dy, dx) > (0, 0) and dy * dy + dx * dx < radius**2]


def path(offset: Offset) -> list[Offset]:
    """The pixels between (0, 0) and `offset`, both included: those of their rectangle nearer than 1 to the line.

    Source: IRN, `misc/indexing.py`.
    """
    dy, dx = offset
    columns = range(min(dx, 0), max(dx, 0) + 1)
    length = math.hypot(dy, dx)
    return [(y, x) for y in range(dy + 1) for x in columns if abs(dy * x - dx * y) < length]


def windows(offset: Offset, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of the pixels whose neighbour at `offset` (dy >= 0) lies on the grid."""
    dy, dx = offset
    left = max(-dx, 0)
    return slice(0, max(height - dy, 0)), slice(left, max(width - max(dx, 0), left))


def shifted(x: Tensor, window: tuple[slice, slice], step: Offset) -> Tensor:
    """View of `x` [..., H, W] at the pixels of a window, each moved by `step`."""
    (rows, columns), (dy, dx) = window, step
    return x[..., rows.start + dy : rows.stop + dy, columns.start + dx : columns.stop + dx]


def boundary_affinities(edge: Tensor, offsets: Sequence[Offset]) -> Tensor:
    """One minus the highest boundary on the way from a pixel to its neighbour.

    Args:
        edge: probability of a boundary in [0, 1], float [H, W].
        offsets: as `half_disc` gives them.
    Returns:
        Affinities in [0, 1], [len(offsets), H, W], at the pixel that a pair starts from; 0 where it ends off the grid.
    Source: Ahn et al. (IRN), CVPR 2019.
    """
    affinities = edge.new_zeros(len(offsets), *edge.shape)
    for plane, offset in zip(affinities, offsets, strict=True):
        window = windows(offset, *edge.shape)
        first, *others = path(offset)
        highest = shifted(edge, window, first)
        for step in others:
            highest = torch.maximum(highest, shifted(edge, window, step))
        plane[window] = 1.0 - highest
    return affinities


def feature_affinities(features: Tensor, offsets: Sequence[Offset]) -> Tensor:
    """exp(-mean_c |f_i - f_j|) of a pixel and its neighbour.

    Args:
        features: float [D, H, W].
        offsets: as `half_disc` gives them.
    Returns:
        Affinities in (0, 1], [len(offsets), H, W], at the pixel that a pair starts from; 0 where it ends off the grid.
    Source: Ahn and Kwak (PSA), CVPR 2018, with the mean over channels of the released code.
    """
    affinities = features.new_zeros(len(offsets), *features.shape[1:])
    for plane, offset in zip(affinities, offsets, strict=True):
        window = windows(offset, *features.shape[1:])
        distance = (shifted(features, window, (0, 0)) - shifted(features, window, offset)).abs().mean(0)
        plane[window] = torch.exp(-distance)
    return affinities
