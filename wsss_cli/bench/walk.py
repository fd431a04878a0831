"""Random walk and PAR: the plain paths, the Triton kernels and the published ways."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_cli.bench.ceilings import add_share, measured_ceilings
from wsss_cli.bench.inputs import edge_map, pictures, score_maps
from wsss_cli.bench.measure import (
    Case,
    Measured,
    Row,
    Work,
    five_digits,
    make_rows,
    measure,
    report,
    require_choice,
    require_cuda,
)
from wsss_cli.config.affinity import IrnWalk
from wsss_cli.config.refine import ParStep
from wsss_cli.engine.context import Context
from wsss_cli.errors import UsageError
from wsss_cli.pseudo.pairs import Offset, boundary_affinities, half_disc
from wsss_cli.pseudo.par import RING, par
from wsss_cli.pseudo.walk import random_walk

SIZE = {"cuda": (375, 500), "cpu": (128, 160)}
DENSE_SECONDS = 20.0  # a dense power that would take longer is left out
Walk = tuple[Tensor, Tensor, list[Offset], int]


def bench_walk(
    ctx: Context,
    *,
    height: int = 0,
    width: int = 0,
    classes: int = 3,
    radius: int = IrnWalk().radius,
    iterations: int = IrnWalk().iterations,
    repeats: int = 3,
    seed: int = 0,
    data: str = "",
) -> dict[str, Any]:
    """Time IRN's random walk at stride 4 and PAR at half size, for one image whose tensors are on the device.

    Args:
        height, width: of the image; 0: 375 x 500 on a GPU, 128 x 160 on a CPU.
        classes: maps that walk; PAR has one more, for the background.
        radius, iterations: of the walk; PAR has its defaults.
        data: see `bench_inputs.pictures`.
    Returns:
        See `bench_measure.report`; rows also have 'max_difference' to the plain path of the same work.
    """
    height, width = height or SIZE[ctx.device.type][0], width or SIZE[ctx.device.type][1]
    picture = pictures(1, height, width, seed=seed, data=data)[0]
    scores = score_maps(picture.mask, classes + 1, seed)
    ceilings = measured_ceilings(ctx)

    grid = (-(-height // 4), -(-width // 4))
    edge = torch.from_numpy(edge_map(picture.mask, *grid, seed)).to(ctx.device)
    offsets = half_disc(radius)
    maps = _resized(scores[1:], grid, ctx)
    walk: Walk = (maps, boundary_affinities(edge, offsets) ** IrnWalk().beta, offsets, iterations)
    rows = _walk_rows(walk, ctx, repeats, ceilings)

    step, half = ParStep(), (max(height // 2, 1), max(width // 2, 1))
    image = torch.from_numpy(picture.image).to(ctx.device).permute(2, 0, 1)[None].float()
    image = F.interpolate(image, half, mode="area")
    rows += _par_rows(image, _resized(scores, half, ctx)[None], step, ctx, repeats, ceilings)
    return report(
        "walk",
        ctx,
        rows,
        settings={
            "height": height,
            "width": width,
            "classes": classes,
            "radius": radius,
            "iterations": iterations,
            "walk_grid": list(grid),
            "par_grid": list(half),
            "par_iterations": step.iterations,
            "par_dilations": list(step.dilations),
            "repeats": repeats,
            "seed": seed,
            "data": data,
        },
        ceilings=ceilings,
        ratio_to="torch, of the same work",
        notes=[
            "one image; affinities of the walk are given, those of PAR are part of it",
            "dense power: all pairs in one matrix to the power of the iterations, as the released IRN has it",
            "dilated convolutions: all neighbours in one tensor, as the released AFA and ToCo have it",
            "share: weights, maps in and maps out once an iteration, of the copy rate; above 1 where caches hold them",
        ],
    )


def _resized(planes: Any, size: tuple[int, int], ctx: Context) -> Tensor:
    return F.interpolate(torch.from_numpy(planes).to(ctx.device)[None], size, mode="bilinear")[0]


def _walk_rows(walk: Walk, ctx: Context, repeats: int, ceilings: dict[str, Any]) -> list[Row]:
    maps, _, offsets, iterations = walk
    cases = [
        Case("walk: torch", lambda: partial(random_walk, *walk)),
        Case("walk: triton", partial(_triton, random_walk, walk, {}, ctx)),
        Case("walk: dense power", partial(_prepared_dense, walk, ceilings, ctx)),
    ]
    timings = measure(cases, ctx, repeats=repeats, title="random walk")
    rows = make_rows(timings, units=1, unit="images_s", base="walk: torch")
    pixels = maps[0].numel()
    values = iterations * pixels * (2 * len(offsets) + 1 + 2 * len(maps))
    size = 2.0 * pixels**3 * _products(iterations)
    _add_shares(rows, 4 * values, ceilings)
    add_share(rows[2], size, "fp32_gflop_s", ceilings)
    _add_difference(rows, timings)
    return rows


def _par_rows(
    image: Tensor, planes: Tensor, step: ParStep, ctx: Context, repeats: int, ceilings: dict[str, Any]
) -> list[Row]:
    keywords = {"dilations": step.dilations, "iterations": step.iterations, "w1": step.w1, "w2": step.w2}
    cases = [
        Case("PAR: torch", lambda: partial(par, image, planes, **keywords)),  # type: ignore[arg-type]
        Case("PAR: triton", partial(_triton, par, (image, planes), keywords, ctx)),
        Case("PAR: dilated convolutions", lambda: partial(gathered_par, image, planes, step)),
    ]
    timings = measure(cases, ctx, repeats=repeats, title="PAR")
    rows = make_rows(timings, units=1, unit="images_s", base="PAR: torch")
    neighbours = len(RING) * len(step.dilations)
    values = step.iterations * image[0, 0].numel() * (neighbours + 2 * planes.shape[1])
    _add_shares(rows, 4 * values, ceilings)
    _add_difference(rows, timings)
    return rows


def _triton(function: Any, arguments: Sequence[Any], keywords: dict[str, Any], ctx: Context) -> Work:
    require_choice(function, "backend", "triton")
    require_cuda(ctx.device)
    return lambda: function(*arguments, **keywords, backend="triton")


def _add_shares(rows: Sequence[Row], size: float, ceilings: dict[str, Any]) -> None:
    for row in rows[:2]:  # the third works in another way
        add_share(row, size, "copy_gb_s", ceilings)


def _add_difference(rows: Sequence[Row], timings: Sequence[Measured]) -> None:
    plain = timings[0].result
    for row, one in zip(rows[1:], timings[1:], strict=True):
        if plain is not None and one.result is not None:
            row["max_difference"] = five_digits(float((one.result - plain).abs().max()))


def _products(power: int) -> int:
    """Matrix products that a power takes by squaring."""
    return power.bit_length() - 1 + power.bit_count() - 1


def _prepared_dense(walk: Walk, ceilings: dict[str, Any], ctx: Context) -> Work:
    pixels = walk[0][0].numel()
    seconds = 2 * pixels**3 * _products(walk[3]) / (ceilings["fp32_gflop_s"] * 1e9)
    if seconds > DENSE_SECONDS:
        raise UsageError(f"would take about {seconds:.0f} s: left out; give a smaller --height and --width")
    return lambda: dense_walk(*walk)


def dense_walk(maps: Tensor, affinities: Tensor, offsets: Sequence[Offset], iterations: int) -> Tensor:
    """The random walk as one matrix to the power of `iterations`; arguments and result as `random_walk`.

    Source: Ahn et al. (IRN), CVPR 2019: eq. 5-6 as its released code computes them.
    """
    classes, height, width = maps.shape
    count = height * width
    index = torch.arange(count, device=maps.device).reshape(height, width)
    matrix = torch.eye(count, device=maps.device)
    for (dy, dx), plane in zip(offsets, affinities, strict=True):
        rows, columns = slice(0, height - dy), slice(max(-dx, 0), width - max(dx, 0))
        here = index[rows, columns].flatten()
        there = here + dy * width + dx
        matrix[here, there] = matrix[there, here] = plane[rows, columns].flatten()
    power = torch.linalg.matrix_power(matrix / matrix.sum(0, keepdim=True), iterations)
    walked: Tensor = (maps.reshape(classes, count) @ power).reshape(maps.shape)
    return walked


def gathered_par(image: Tensor, planes: Tensor, step: ParStep) -> Tensor:
    """PAR with all neighbours of all planes in one tensor; arguments and result as `par`.

    Source: Ru et al., ToCo, CVPR 2023.
    """
    ring = torch.zeros(len(RING), 1, 3, 3, device=image.device)
    for number, (dy, dx) in enumerate(RING):
        ring[number, 0, dy + 1, dx + 1] = 1

    def gathered(maps: Tensor) -> Tensor:
        """[1, C, H, W] -> [C, N, H, W]."""
        single = maps.transpose(0, 1)
        taken = [F.conv2d(F.pad(single, (d, d, d, d), mode="replicate"), ring, dilation=d) for d in step.dilations]
        return torch.cat(taken, 1)

    colours = gathered(image)
    deviation = colours.std(1, keepdim=True)
    likeness = -(((colours - image.transpose(0, 1)) / (deviation + 1e-8) / step.w1) ** 2).mean(0)
    distance = torch.tensor([d * math.hypot(*o) for d in step.dilations for o in RING], device=image.device)
    position = -((distance / (distance.std() + 1e-8) / step.w1) ** 2)
    weights = (likeness.softmax(0) + step.w2 * position.softmax(0)[:, None, None]) / (1 + step.w2)
    for _ in range(step.iterations):
        planes = (gathered(planes) * weights).sum(1)[None]
    return planes
