"""Mean field with exact Gaussian kernels: all pairs of pixels at full resolution, images of any sizes at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from wsss_cli.crf.order import SCALE, kd_order, pixel_features
from wsss_cli.kernels.trials import Check, Pairs
from wsss_cli.processes import check_stop

Sums = Callable[[Tensor], Tensor]  # [N, columns] -> K times it, [N, columns], for the pixels of all images
CHUNK = 2**24  # pairs that the sums over all pairs hold at once


@torch.no_grad()
def mean_field(
    images: Sequence[Tensor],
    unaries: Sequence[Tensor],
    *,
    gauss_sxy: float,
    gauss_compat: float,
    bilateral_sxy: float,
    bilateral_srgb: float,
    bilateral_compat: float,
    iterations: int,
    tolerance: float | None = None,
) -> list[Tensor]:
    """Posteriors of images; see `crf.dense_crf`, whose terms these are.

    The spatial kernel of a whole grid is a product of one of rows and one of columns: two small matrices. The bilateral
    kernel is summed over pairs of pixels.

    Args:
        images: RGB, uint8 [H, W, 3] each, all on one device.
        unaries: negative log-probabilities, float [S, K, H, W] each, of S labellings that share the image's kernels;
            the same S for all images, any K; all of one type, that of the work.
        tolerance: None sums over every pair in that type, in torch; a number sums by the Triton kernel, float16 values
            and float32 sums, and leaves out pairs of tiles whose kernel is nowhere above it.
    Returns:
        Q, [S, K, H, W] each, of the type of `unaries`.
    """
    sizes = [image.shape[:2] for image in images]
    count = max(unary.shape[1] for unary in unaries)
    energy = torch.cat([_rows(unary, count) for unary in unaries])  # [N, S, count]
    spatial = _spatial(sizes, gauss_sxy, energy) if gauss_compat > 0 else None
    bilateral: Sums | None = None
    if bilateral_compat > 0:
        features = [pixel_features(image, bilateral_sxy, bilateral_srgb) for image in images]
        bilateral = _all_pairs(features, energy.dtype) if tolerance is None else _tiled(features, tolerance)
        ones = energy.new_ones(len(energy), 1)
        bilateral = _normalised(bilateral, (bilateral(ones) + 1e-20).rsqrt())
    shape, probabilities = energy.shape, (-energy).softmax(2)
    for _ in range(iterations):
        check_stop()
        now, logits = probabilities.reshape(len(energy), -1), -energy
        if spatial is not None:
            logits = logits + gauss_compat * spatial(now).view(shape)
        if bilateral is not None:
            logits = logits + bilateral_compat * bilateral(now).view(shape)
        probabilities = logits.softmax(2)
    posteriors, start = [], 0
    for (height, width), unary in zip(sizes, unaries, strict=True):
        rows = probabilities[start : start + height * width, :, : unary.shape[1]]
        posteriors.append(rows.permute(1, 2, 0).reshape(*unary.shape[:2], height, width))
        start += height * width
    return posteriors


def _rows(unary: Tensor, count: int) -> Tensor:
    """[S, K, H, W] -> [H * W, S, count]; labels that the image lacks have infinite energy, so probability 0."""
    rows = unary.flatten(2).permute(2, 0, 1)
    return torch.nn.functional.pad(rows, (0, count - rows.shape[2]), value=torch.inf)


def _normalised(sums: Sums, norm: Tensor) -> Sums:
    return lambda values: norm * sums(norm * values)


def _spatial(sizes: Sequence[tuple[int, ...]], sxy: float, like: Tensor) -> Sums:
    """Sums of the symmetrically normalised spatial kernel; exact, by rows and columns."""
    kernels = {side: _line(side, sxy, like) for size in sizes for side in size}

    def sums(values: Tensor) -> Tensor:
        summed, start = [], 0
        with _full_precision(values):
            for height, width in sizes:
                grid = values[start : start + height * width].view(height, width, -1)
                grid = (kernels[height] @ grid.flatten(1)).view_as(grid).transpose(0, 1)
                grid = (kernels[width] @ grid.flatten(1)).view_as(grid).transpose(0, 1)
                summed.append(grid.flatten(0, 1))
                start += height * width
        return torch.cat(summed)

    return sums


def _line(side: int, sxy: float, like: Tensor) -> Tensor:
    """Normalised kernel of a line of `side` pixels, [side, side]."""
    place = torch.arange(side, dtype=torch.float64, device=like.device) / sxy
    kernel = torch.exp(-0.5 * (place[:, None] - place) ** 2)
    norm = kernel.sum(1).rsqrt()
    return (norm[:, None] * kernel * norm).to(like.dtype)


class _full_precision:
    """On a GPU, no TF32 in products of float32: a spatial kernel has few terms, whose rounding would be seen."""

    def __init__(self, values: Tensor) -> None:
        self.cuda = values.is_cuda

    def __enter__(self) -> None:
        if self.cuda:
            self.before = torch.backends.cuda.matmul.allow_tf32
            torch.backends.cuda.matmul.allow_tf32 = False

    def __exit__(self, *error: object) -> None:
        if self.cuda:
            torch.backends.cuda.matmul.allow_tf32 = self.before


def _all_pairs(features: Sequence[Tensor], dtype: torch.dtype) -> Sums:
    """Sums of the bilateral kernel over every pair, a few rows at a time; time grows with the square of the pixels."""
    points = [(SCALE * rows).to(dtype) for rows in features]

    def sums(values: Tensor) -> Tensor:
        summed, start = [], 0
        for rows in points:
            of_image = values[start : start + len(rows)]
            for chunk in rows.split(max(CHUNK // len(rows), 1)):
                check_stop()
                squared = torch.zeros(len(chunk), len(rows), dtype=dtype, device=rows.device)
                for dim in range(rows.shape[1]):
                    squared.add_((chunk[:, None, dim] - rows[None, :, dim]).square_())
                summed.append(squared.neg_().exp2_() @ of_image)
            start += len(rows)
        return torch.cat(summed)

    return sums


def _tiled(features: Sequence[Tensor], tolerance: float) -> Sums:
    """Sums of the bilateral kernel over near pairs of tiles, by the Triton kernel."""
    from wsss_cli.kernels.crf import gaussian_sums, near_tiles

    order = kd_order(features)
    near = near_tiles(order.boxes, order.images, tolerance)
    sizes = [len(points) for points in features]
    owner = torch.repeat_interleave(torch.tensor(sizes)).to(order.source.device, non_blocking=True)

    def sums(values: Tensor) -> Tensor:
        columns = values.shape[1]
        width = next((size for size in (16, 32) if columns <= size), -(-columns // 64) * 64)
        rows = values.new_zeros(len(order.source), width, dtype=torch.float16)
        # of each image, so that float16 holds small values, too, and those of an image whatever goes with it
        largest = torch.stack([part.amax() for part in values.split(sizes)])
        scale = largest.clamp(min=torch.finfo(values.dtype).tiny)[owner, None]
        rows[:, :columns] = (values / scale).half()[order.source] * order.real[:, None]
        return gaussian_sums(order.features, order.centres, rows, near)[order.place, :columns] * scale

    return sums


def _tried(device: torch.device, numbers: torch.Generator) -> Pairs:
    image = torch.randint(0, 256, (10, 12, 3), generator=numbers, dtype=torch.uint8).to(device)
    energy = torch.rand(1, 3, 10, 12, generator=numbers).to(device)
    kernels = {"gauss_sxy": 3.0, "gauss_compat": 3.0, "bilateral_sxy": 20.0, "bilateral_srgb": 15.0}
    kernels |= {"bilateral_compat": 10.0}
    ours, plain = (
        mean_field([image], [energy], **kernels, iterations=2, tolerance=tolerance)[0] for tolerance in (3e-4, None)
    )
    return [(ours, plain)]


TRIAL = Check("dense CRF", 1e-2, _tried)
