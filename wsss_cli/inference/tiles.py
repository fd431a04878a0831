"""Masks of photographs by a trained network; those larger than a tile are made tile by tile."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
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
        scores: probabilities of all classes, uint8 [K, H, W], 255 = 1; None where they are not asked for.
    """

    mask: np.ndarray
    confidence: np.ndarray | None = None
    scores: np.ndarray | None = None


def segment(
    network: Network,
    images: Sequence[np.ndarray],
    config: EvalConfig,
    ctx: Context,
    wanted: Container[str] = (),
    *,
    ms_flip: bool,
    tiles: Tiles | None = None,
) -> Iterator[Segmented]:
    """Segment photographs of one size: whole, or tile by tile where they are larger than a tile.

    Of a photograph that is cut, nothing but its pixels and what is returned is held in full.

    Args:
        images: RGB, uint8 [H, W, 3].
        wanted: beside masks: 'confidence', 'soft' (the scores of all classes).
        ms_flip: at all scales and mirrored.
    """
    mode, confidence, soft = "ms_flip" if ms_flip else "single", "confidence" in wanted, "soft" in wanted
    shown: dict[str, Any] = {"single": not ms_flip, "ms_flip": ms_flip, "probabilities": confidence or soft}

    def look(planes: Sequence[np.ndarray]) -> Iterator[Segmented]:
        maps = predict(network.model, planes, config, ctx, network.preset.train.precision, **shown)
        for at, mask in enumerate(maps[mode]):
            scores = maps[f"{mode}_probabilities"][at] if confidence or soft else mask
            yield Segmented(mask, _bytes(scores.max(axis=0)) if confidence else None, _bytes(scores) if soft else None)

    height, width = images[0].shape[:2]
    if tiles is None or not tiles.cut(height, width):
        yield from look(images)
        return
    whole: list[dict[str, np.ndarray]] = [{} for _ in images]
    for top, bottom, first, last in tiles.spans(height):
        for left, right, begin, end in tiles.spans(width):
            for maps, part in zip(whole, look([image[top:bottom, left:right] for image in images]), strict=True):
                for name, values in vars(part).items():
                    if values is not None:
                        if name not in maps:
                            maps[name] = np.empty((*values.shape[:-2], height, width), np.uint8)
                        decided = values[..., first - top : last - top, begin - left : end - left]
                        maps[name][..., first:last, begin:end] = decided
    yield from (Segmented(**maps) for maps in whole)


def _bytes(scores: np.ndarray) -> np.ndarray:
    """Probabilities as uint8, 255 = 1."""
    rounded: np.ndarray = np.rint(scores * 255).astype(np.uint8)
    return rounded
