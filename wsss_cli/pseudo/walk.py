"""Random walks that spread CAM scores between pixels of high affinity (IRN, PSA)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_cli.config.affinity import IrnWalk, PsaWalk
from wsss_cli.kernels.backend import Backend, takes_triton
from wsss_cli.kernels.trials import Check, Pairs
from wsss_cli.processes import check_stop
from wsss_cli.pseudo.pairs import Offset, boundary_affinities, feature_affinities, half_disc


def random_walk(
    maps: Tensor, affinities: Tensor, offsets: Sequence[Offset], iterations: int, *, backend: Backend = "auto"
) -> Tensor:
    """Steps of a random walk, taken one after another: x <- x T.

    T_ij = a_ij / sum_k a_kj with a_ii = 1 and a_ij = a_ji, so every step makes a pixel the mean of itself and its
    neighbours, weighted by affinity: a constant map stays as it is, and sum_j d_j x_j with d_j = sum_k a_kj is kept.
    T has at most 2 len(offsets) + 1 values that are not 0 in a column (69 for radius 5); it is applied as a stencil
    that differs from pixel to pixel. T to the power of `iterations`, a dense matrix, is never made.

    Args:
        maps: float32 [C, H, W].
        affinities: a_ij >= 0 of the pixel i that a pair starts from and its neighbour j, float32 [len(offsets), H, W];
            0 where j lies off the grid.
        offsets: (dy, dx) of each pair, dy >= 0, as `half_disc` gives them.
        iterations: steps.
        backend: `kernels.walk` (triton) or torch; auto: the kernel on a CUDA device that has Triton.
    Returns:
        float32 [C, H, W].
    Source: Ahn et al. (IRN), CVPR 2019, and Ahn and Kwak (PSA), CVPR 2018, whose released code makes the dense power;
        same result up to rounding.
    """
    if takes_triton(backend, maps, TRIAL):
        from wsss_cli.kernels.walk import random_walk as fused  # here: not every machine has Triton

        return fused(maps, affinities, offsets, iterations)
    classes, height, width = maps.shape
    count = height * width
    taps = _taps(affinities, offsets)
    margin = max(distance for distance, _ in taps)
    now = maps.new_zeros(classes, count + 2 * margin)
    new = torch.zeros_like(now)
    now[:, margin : margin + count] = maps.reshape(classes, count)
    for _ in range(iterations):
        check_stop()
        out = new[:, margin : margin + count].zero_()
        for distance, weight in taps:
            out.addcmul_(weight, now[:, margin + distance : margin + distance + count])
        now, new = new, now
    return now[:, margin : margin + count].reshape(maps.shape)


def _taps(affinities: Tensor, offsets: Sequence[Offset]) -> list[tuple[int, Tensor]]:
    """(distance in memory, share [H * W]) of each neighbour of a pixel, both ways, and of the pixel itself.

    In memory the neighbour of a pixel at the end of a row is in the next row; but off the grid affinities are 0. Far
    neighbours come first and the pixel itself last: small terms are added to each other before they are added to large
    ones, else float32 would lose them, the same ones in every step.
    """
    _, height, width = affinities.shape
    distances, weights = [], []
    near_last = sorted(zip(offsets, affinities.flatten(1), strict=True), key=lambda pair: -math.hypot(*pair[0]))
    for (dy, dx), plane in near_last:
        if dy < height and abs(dx) < width:
            distance = dy * width + dx
            distances += [distance, -distance]
            weights += [plane, F.pad(plane, (distance, -distance))]
    shares = torch.stack([*weights, affinities.new_ones(height * width)])
    shares = (shares / shares.sum(0, dtype=torch.float64)).float()
    return list(zip([*distances, 0], shares.unbind(0), strict=True))


def irn_walk(cam: Tensor, edge: Tensor, step: IrnWalk) -> Tensor:
    """Spread CAMs, but not across boundaries.

    Args:
        cam: scores in [0, 1], float32 [C, H, W].
        edge: probability of a boundary in [0, 1], float32 [H, W].
    Returns:
        Scores in [0, 1], float32 [C, H, W]; the highest of all classes is 1.
    Source: IRN, `step/make_sem_seg_labels.py`: CAMs times (1 - edge), walk, divided by the maximum over all classes.
    """
    if not len(cam):
        return cam
    offsets = half_disc(step.radius)
    weights = boundary_affinities(edge, offsets) ** step.beta
    walked = random_walk(cam * (1.0 - edge), weights, offsets, step.iterations)
    return walked / walked.max().clamp(min=1e-5)


def psa_walk(cam: Tensor, features: Tensor, step: PsaWalk) -> Tensor:
    """Spread CAMs and a background score, and set them against each other.

    Args:
        cam: scores in [0, 1], float32 [C, H, W] at twice the resolution of `features`.
        features: float32 [D, ceil(H / 2), ceil(W / 2)].
    Returns:
        f_c / (f_c + f_background), in [0, 1], float32 [C, ceil(H / 2), ceil(W / 2)]: the class with the highest score
        is the highest of all, background included, exactly where it is above 1/2.
    Source: PSA, `infer_aff.py`: background (1 - max CAM)^alpha, average-pooled to the resolution of the features.
    """
    if not len(cam):
        return cam.new_zeros(0, *features.shape[1:])
    background = (1.0 - cam.amax(0, keepdim=True)) ** step.alpha
    scores = F.avg_pool2d(torch.cat([background, cam])[None], 2, ceil_mode=True)[0]
    offsets = half_disc(step.radius)
    weights = feature_affinities(features, offsets) ** step.beta
    walked = random_walk(scores, weights, offsets, step.iterations)
    return walked[1:] / (walked[1:] + walked[:1]).clamp(min=1e-12)


def _tried(device: torch.device, numbers: torch.Generator) -> Pairs:
    from wsss_cli.pseudo.pairs import half_disc

    offsets = half_disc(2)
    maps = torch.rand(2, 9, 10, generator=numbers).to(device)
    affinities = torch.rand(len(offsets), 9, 10, generator=numbers)
    for plane, (dy, dx) in zip(affinities, offsets, strict=True):  # none to neighbours off the grid
        plane[9 - dy :] = 0
        plane[:, 10 - dx if dx > 0 else 10 :] = 0
        plane[:, : max(-dx, 0)] = 0
    affinities = affinities.to(device)
    ours, plain = (random_walk(maps, affinities, offsets, 8, backend=way) for way in ("triton", "torch"))
    return [(ours, plain)]


TRIAL = Check("random walk", 1e-4, _tried)
