"""Weak to strong consistency, where nobody vouches for a label: strong views of a crop, and its features without half
of their channels, are to get the classes that its weak view is sure of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_cli.config.noise import ConsistencyConfig
from wsss_cli.labels import IGNORE
from wsss_cli.losses.pixels import at_size
from wsss_cli.noise.targets import valid_pixels
from wsss_cli.ranks.sums import alone, concatenated, total, total_count
from wsss_cli.ranks.who import here

GREY = (0.299, 0.587, 0.114)  # of red, green and blue
TO_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))
BLUR_RADIUS = 6  # pixels: three times the largest standard deviation
Draw = tuple[int, int, int]  # seed, step, part of the step's batch


@dataclass(frozen=True)
class View:
    """What is drawn for a strong view of each crop of the global batch; arrays [B].

    Attributes:
        brightness, contrast, saturation: factors; 1 leaves as it is.
        hue: turns of the colours; 0 leaves them.
        grey: colours are taken away.
        sigma: standard deviation of the blur, pixels; 0: none.
        box: rows and columns (top, bottom, left, right) that are those of another crop; int64 [B, 4], zeros: none.
        partner: which crop that is.
    """

    brightness: np.ndarray
    contrast: np.ndarray
    saturation: np.ndarray
    hue: np.ndarray
    grey: np.ndarray
    sigma: np.ndarray
    box: np.ndarray
    partner: np.ndarray

    def rows(self, part: slice) -> View:
        """The same of some of the crops."""
        return View(**{name: values[part] for name, values in vars(self).items()})


def draw_view(draw: Draw, number: int, count: int, size: tuple[int, int], cutmix: float) -> View:
    """Draw a strong view of each crop of a batch.

    Args:
        number: of the view; each has its own draws.
        count: crops of the global batch.
        size: height and width of a crop.
        cutmix: probability that a crop gets a rectangle of another one.
    Source: Yang et al. (UniMatch), CVPR 2023: with probability 0.8 brightness, contrast and saturation by 0.5 and hue
        by 0.25; grey with 0.2; blur with 0.5, standard deviation 0.1..2; a rectangle of 2..40 % of the crop, aspect
        ratio 0.3..1 / 0.3.
    """
    rng = np.random.default_rng((*draw, 1, number))
    jitter = rng.random(count) < 0.8
    factors = np.where(jitter, rng.uniform(0.5, 1.5, (3, count)), 1.0)
    hue = np.where(jitter, rng.uniform(-0.25, 0.25, count), 0.0)
    grey = rng.random(count) < 0.2
    sigma = np.where(rng.random(count) < 0.5, rng.uniform(0.1, 2.0, count), 0.0)
    mixed = (rng.random(count) < cutmix) & (count > 1)
    box = _boxes(rng, count, size) * mixed[:, None]
    partner = (np.arange(count) + rng.integers(1, max(count, 2))) % count
    return View(factors[0], factors[1], factors[2], hue, grey, sigma, box, partner)


def _boxes(rng: np.random.Generator, count: int, size: tuple[int, int]) -> np.ndarray:
    area = rng.uniform(0.02, 0.4, count) * size[0] * size[1]
    ratio = np.exp(rng.uniform(np.log(0.3), np.log(1 / 0.3), count))
    height = np.clip(np.round(np.sqrt(area * ratio)), 1, size[0]).astype(np.int64)
    width = np.clip(np.round(np.sqrt(area / ratio)), 1, size[1]).astype(np.int64)
    top = (rng.random(count) * (size[0] - height + 1)).astype(np.int64)
    left = (rng.random(count) * (size[1] - width + 1)).astype(np.int64)
    return np.stack([top, top + height, left, left + width], 1)


@torch.no_grad()
def strong_colours(image: Tensor, valid: Tensor, view: View) -> Tensor:
    """Change colours and blur, each crop by its own draws.

    Args:
        image: RGB, uint8 [B, H, W, 3].
        valid: bool [B, H, W], False where padded, where the result is 0.
    Returns:
        uint8 [B, H, W, 3].
    """
    x, inside = image.permute(0, 3, 1, 2).float(), valid[:, None]

    def each(values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.asarray(values, np.float32)).to(x.device)[:, None, None, None]

    shares = torch.tensor(GREY, device=x.device)[:, None, None]

    def grey(x: Tensor) -> Tensor:
        return (x * shares).sum(1, keepdim=True)

    x = (x * each(view.brightness)).clamp(0, 255)
    middle = (grey(x) * inside).sum((2, 3), keepdim=True) / inside.sum((2, 3), keepdim=True).clamp(min=1)
    x = torch.lerp(middle.expand_as(x), x, each(view.contrast)).clamp(0, 255)
    x = torch.lerp(grey(x).expand_as(x), x, each(view.saturation)).clamp(0, 255)
    turns = torch.from_numpy(_hue_matrices(view.hue)).to(x.device)
    with torch.autocast(x.device.type, enabled=False):  # bytes need more than bfloat16 has
        x = torch.einsum("bij,bjhw->bihw", turns, x).clamp(0, 255)
        x = torch.where(each(view.grey) > 0, grey(x), x)
        if (blurred := np.flatnonzero(view.sigma)).size:
            rows = torch.from_numpy(blurred).to(x.device)
            x[rows] = _blurred(x[rows], view.sigma[blurred])
    return (x * inside).round().to(torch.uint8).permute(0, 2, 3, 1)


def _hue_matrices(hue: np.ndarray) -> np.ndarray:
    """Of RGB, float32 [B, 3, 3]: brightness stays, the two axes of colour turn."""
    to = np.array(TO_YIQ)
    cos, sin = np.cos(2 * np.pi * hue), np.sin(2 * np.pi * hue)
    turn = np.zeros((len(hue), 3, 3))
    turn[:, 0, 0], turn[:, 1, 1], turn[:, 2, 2], turn[:, 1, 2], turn[:, 2, 1] = 1, cos, cos, -sin, sin
    matrices: np.ndarray = (np.linalg.inv(to) @ turn @ to).astype(np.float32)
    return matrices


def _blurred(x: Tensor, sigma: np.ndarray) -> Tensor:
    """Each image [3, H, W] with a Gaussian of its own; its border goes on outside."""
    reach = np.arange(-BLUR_RADIUS, BLUR_RADIUS + 1)
    kernel = np.exp(-(reach**2) / (2 * np.square(sigma)[:, None]))
    weight = torch.from_numpy((kernel / kernel.sum(1, keepdims=True)).astype(np.float32)).to(x.device)
    weight = weight.repeat_interleave(3, 0)[:, None, None]  # [3 B, 1, 1, taps]
    flat = F.pad(x.reshape(1, -1, *x.shape[-2:]), (BLUR_RADIUS,) * 4, mode="replicate")
    flat = F.conv2d(F.conv2d(flat, weight, groups=len(weight)), weight.transpose(2, 3), groups=len(weight))
    return flat.view_as(x)


def inside_boxes(box: np.ndarray, size: tuple[int, int], device: torch.device) -> Tensor:
    """Bool [B, H, W]: True in the rows and columns (top, bottom, left, right) of each crop's box, int64 [B, 4]."""
    top, bottom, left, right = torch.from_numpy(box).to(device).T[:, :, None]
    rows, columns = (torch.arange(side, device=device)[None] for side in size)
    inside: Tensor = ((rows >= top) & (rows < bottom))[:, :, None] & ((columns >= left) & (columns < right))[:, None]
    return inside


def sure_classes(probability: Tensor, threshold: float) -> Tensor:
    """The most probable class of each pixel, int64 [B, H, W], 255 where its probability is below the threshold."""
    certainty, best = probability.max(1)
    return torch.where(certainty >= threshold, best, IGNORE)


def agreement(logits: Tensor, target: Tensor, counted: Tensor) -> Tensor:
    """Cross-entropy with the targets, summed and divided by how many pixels count, sure or not; this rank's share.

    Args:
        logits: float [B, K, h, w].
        target: classes, or 255 where the weak view is not sure, int64 [B, H, W].
        counted: bool [B, H, W], False where somebody vouches for a label, and where padded.
    Returns:
        A scalar, float32; 0 with a zero gradient where no pixel is sure.
    """
    target = torch.where(counted, target, IGNORE)
    cost = F.cross_entropy(at_size(logits, target), target, ignore_index=IGNORE, reduction="sum")
    loss: Tensor = cost / total(counted.sum()).clamp(min=1)
    return loss


class Consistency:
    """The term of a batch: weight * (half that of the strong views, their mean, and half that of the features).

    Without the features it is weight * that of the strong views.

    Args:
        channels: of the backbone's maps.
    Source: Yang et al. (UniMatch), CVPR 2023, after Sohn et al. (FixMatch), NeurIPS 2020. Here the weak view keeps to
        the tags and may be a teacher's, crops are mixed with others of the batch, and there is no half around it all.
    """

    def __init__(self, config: ConsistencyConfig, channels: Sequence[int]) -> None:
        self.config, self.channels = config, channels

    def factors(self, batch: dict[str, Any]) -> list[Tensor] | None:
        """Of the channels of each map, 0 or 2 with equal chances, [B, C]; None: features are not changed."""
        if not self.config.features:
            return None
        image = batch["image"]
        count, rows = _place(len(image), image.device)
        rng = np.random.default_rng((*batch["draw"], 0))
        drawn = [rng.integers(0, 2, (count, width)).astype(np.float32)[rows] * 2 for width in self.channels]
        return [torch.from_numpy(factors).to(image.device) for factors in drawn]

    def loss(
        self,
        batch: dict[str, Any],
        probability: Tensor,
        perturbed: Tensor | None,
        logits_of: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """Of a batch.

        Args:
            batch: 'image', RGB, uint8 [B, H, W, 3]; 'draw': seed, step, part of the step's batch; 'vouched': 0 where
                nobody vouches for a label, uint8 [B, H, W]; 'size': of what is not padding, int64 [B, 2].
            probability: of the weak view, [B, K, H, W].
            perturbed: logits of the features times `factors`.
            logits_of: from RGB, uint8 [B, H, W, 3], to logits.
        """
        image, target = batch["image"], sure_classes(probability, self.config.threshold)
        size = (int(image.shape[1]), int(image.shape[2]))
        count, rows = _place(len(image), image.device)
        valid = valid_pixels(batch["size"], *size)
        counted = (batch["vouched"] == 0) & valid
        codes = torch.stack([target.to(torch.uint8), counted.to(torch.uint8)], 1)
        every = concatenated(codes)[0] if self.config.cutmix else codes
        strong = torch.zeros((), device=image.device)
        for number in range(self.config.views):
            view = draw_view(batch["draw"], number, count, size, self.config.cutmix)
            mine = view.rows(rows)
            shown = strong_colours(image, valid, mine)
            its = codes
            if self.config.cutmix:
                inside = inside_boxes(mine.box, size, image.device)
                partner = torch.from_numpy(mine.partner).to(image.device)
                shown = torch.where(inside[..., None], concatenated(shown)[0][partner], shown)
                its = torch.where(inside[:, None], every[partner], codes)
            strong = strong + agreement(logits_of(shown), its[:, 0].long(), its[:, 1].bool())
        strong = strong / self.config.views
        if perturbed is None:
            return self.config.weight * strong
        return self.config.weight * 0.5 * (strong + agreement(perturbed, target, counted))


def _place(rows: int, device: torch.device) -> tuple[int, slice]:
    """(crops of the global batch, which of them are here)."""
    if alone():
        return rows, slice(0, rows)
    count = total_count(rows, device)
    part = here().part(count)
    return count, slice(part.start, part.stop)
