"""Pixel-adaptive refinement: scores spread to neighbours of like colour, on the CPU and the GPU alike."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_cli.kernels.backend import Backend, takes_triton
from wsss_cli.kernels.trials import Check, Pairs
from wsss_cli.processes import check_stop

RING = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


@torch.no_grad()
def par(
    image: Tensor,
    planes: Tensor,
    *,
    dilations: Sequence[int],
    iterations: int,
    w1: float,
    w2: float,
    backend: Backend = "auto",
) -> Tensor:
    """Replace each pixel by an average of its neighbours, weighted by likeness of colour, again and again.

    The neighbours are rings of 8 at the given distances (without the pixel itself); beyond the edge the image goes on
    with its outermost pixels. Planes do not mix. Memory: a few times the planes, and with torch one map for each
    neighbour: its weights, which are computed once.

    Args:
        image: RGB in [0, 255], float [B, 3, H, W].
        planes: scores or probabilities, float [B, C, H, W].
        dilations: distances of the rings, pixels.
        iterations: rounds.
        w1: width of the kernels, in standard deviations of the neighbours' colours (or distances).
        w2: weight of the position kernel beside the colour kernel.
        backend: `kernels.par` (triton) or torch; auto: the kernel on a CUDA device that has Triton.
    Returns:
        float [B, C, H, W]. Planes that sum to one over C still do: the weights of a pixel, 1 + w2 in sum as published,
        are divided by that.

    Source: Ru et al., ToCo, CVPR 2023, `model/PAR.py` (after AFA, CVPR 2022, eq. 8-10).
    """
    if takes_triton(backend, planes, TRIAL):
        from wsss_cli.kernels.par import par as fused  # here: not every machine has Triton

        position = _position(dilations, w1).tolist()
        return fused(image, planes, _offsets(dilations), position, iterations=iterations, w1=w1, w2=w2)
    weights = _affinity(image, dilations, w1, w2)
    for _ in range(iterations):
        check_stop()
        spread = torch.zeros_like(planes)
        for index, neighbour in enumerate(_neighbours(planes, dilations)):
            spread.addcmul_(weights[:, index : index + 1], neighbour)
        planes = spread
    return planes


def _affinity(image: Tensor, dilations: Sequence[int], w1: float, w2: float) -> Tensor:
    """Weights of the neighbours, float [B, N, H, W], which sum to one over N."""
    count = len(RING) * len(dilations)
    mean = sum(_neighbours(image, dilations), torch.zeros_like(image)) / count
    variance = torch.zeros_like(image)
    for neighbour in _neighbours(image, dilations):
        variance += (neighbour - mean) ** 2
    deviation = (variance / (count - 1)).sqrt()  # unbiased, of the neighbours alone
    colour = torch.stack(
        [
            -(((neighbour - image) / (deviation + 1e-8) / w1) ** 2).mean(1)
            for neighbour in _neighbours(image, dilations)
        ],
        dim=1,
    )
    position = _position(dilations, w1).to(image)
    return (colour.softmax(1) + w2 * position[None, :, None, None]) / (1 + w2)


def _offsets(dilations: Sequence[int]) -> list[tuple[int, int]]:
    """(dy, dx) of each neighbour, ring by ring."""
    return [(step * dy, step * dx) for step in dilations for dy, dx in RING]


def _position(dilations: Sequence[int], w1: float) -> Tensor:
    """Weights of the neighbours by their distances, float64 [N], which sum to one."""
    distance = torch.tensor([math.hypot(*offset) for offset in _offsets(dilations)], dtype=torch.float64)
    return (-((distance / (distance.std() + 1e-8) / w1) ** 2)).softmax(0)


def _neighbours(maps: Tensor, dilations: Sequence[int]) -> Iterator[Tensor]:
    """Views of [B, C, H, W] moved by each neighbour's offset, ring by ring; one at a time, never all in memory."""
    height, width = maps.shape[2:]
    reach = max(dilations)
    padded = F.pad(maps, (reach, reach, reach, reach), mode="replicate")
    for dy, dx in _offsets(dilations):
        top, left = reach + dy, reach + dx
        yield padded[:, :, top : top + height, left : left + width]


def _tried(device: torch.device, numbers: torch.Generator) -> Pairs:
    image = (255 * torch.rand(1, 3, 12, 13, generator=numbers)).to(device)
    planes = torch.rand(1, 3, 12, 13, generator=numbers).to(device)
    ours, plain = (
        par(image, planes, dilations=(1, 2), iterations=2, w1=0.3, w2=0.01, backend=way) for way in ("triton", "torch")
    )
    return [(ours, plain)]


TRIAL = Check("PAR", 1e-3, _tried)
