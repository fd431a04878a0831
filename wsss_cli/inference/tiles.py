"""Masks of photographs by a trained network; those larger than a tile are made tile by tile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from wsss_cli.config.evaluation import EvalConfig
from wsss_cli.engine.context import Context
from wsss_cli.errors import UsageError
from wsss_cli.inference.network import Network
from wsss_cli.inference.predict import predict, window_starts

SMALLEST = 32  # pixels of a tile's side


@dataclass(frozen=True)
class Tiles:
    """Squares that a large photograph is cut into, each looked at as if it were a photograph.

    Attributes:
        side: pixels.
        overlap: pixels that neighbours share, below `side`.
    Raises:
        UsageError: the overlap is no smaller than a tile.
    """

    side: int
    overlap: int

    def __post_init__(self) -> None:
        if self.overlap >= self.side:
            raise UsageError(
                f"--overlap {self.overlap} is not below --tile {self.side}", f"for example --overlap {self.side // 8}"
            )

    def cut(self, height: int, width: int) -> bool:
        """Whether a photograph of this size is larger than a tile."""
        return max(height, width) > self.side

    def spans(self, length: int) -> list[tuple[int, int, int, int]]:
        """(start, end, first, last + 1) along a side of `length` pixels: what a tile sees, and which of it it decides.

        The last tile ends with the photograph. Of pixels that several see, the tile whose centre is nearest decides.
        """
        seen = [(start, start + side) for start, side in window_starts(length, self.side, self.side - self.overlap)]
        cuts = [0, *((end + start) // 2 for (_, end), (start, _) in pairwise(seen)), length]
        return [(*one, *cut) for one, cut in zip(seen, pairwise(cuts), strict=True)]


@dataclass(frozen=True)
class Segmented:
    """What a network says of a photograph.

    Attributes:
        mask: class numbers, uint8 [H, W].
        confidence: probability of what was predicted, uint8 [H, W], 255 = 1; None where it is not asked for.
    """

    mask: np.ndarray
    confidence: np.ndarray | None = None


def segment(
    network: Network,
    images: Sequence[np.ndarray],
    config: EvalConfig,
    ctx: Context,
    *,
    ms_flip: bool,
    confidence: bool = False,
    tiles: Tiles | None = None,
) -> Iterator[Segmented]:
    """Segment photographs of one size: whole, or tile by tile where they are larger than a tile.

    Of a photograph that is cut, nothing but its pixels and what is returned is held in full.

    Args:
        images: RGB, uint8 [H, W, 3].
        ms_flip: at all scales and mirrored.
    """
    mode = "ms_flip" if ms_flip else "single"
    shown: dict[str, Any] = {"single": not ms_flip, "ms_flip": ms_flip, "probabilities": confidence}

    def look(planes: Sequence[np.ndarray]) -> list[Segmented]:
        maps = predict(network.model, planes, config, ctx, network.preset.train.precision, **shown)
        scores = maps[f"{mode}_probabilities"] if confidence else [None] * len(planes)
        return [Segmented(mask, _sure(each)) for mask, each in zip(maps[mode], scores, strict=True)]

    height, width = images[0].shape[:2]
    if tiles is None or not tiles.cut(height, width):
        yield from look(images)
        return
    size = height, width
    whole = [Segmented(np.empty(size, np.uint8), np.empty(size, np.uint8) if confidence else None) for _ in images]
    for top, bottom, first, last in tiles.spans(height):
        for left, right, begin, end in tiles.spans(width):
            for one, part in zip(whole, look([image[top:bottom, left:right] for image in images]), strict=True):
                decided = slice(first - top, last - top), slice(begin - left, end - left)
                one.mask[first:last, begin:end] = part.mask[decided]
                if one.confidence is not None and part.confidence is not None:
                    one.confidence[first:last, begin:end] = part.confidence[decided]
    yield from whole


def _sure(scores: np.ndarray | None) -> np.ndarray | None:
    """The largest of class probabilities, float32 [K, H, W], as uint8 [H, W]; None of None."""
    if scores is None:
        return None
    sure: np.ndarray = np.rint(scores.max(axis=0) * 255).astype(np.uint8)
    return sure
