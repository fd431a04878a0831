"""Lines over an axis as a picture: the charts of a page, for a terminal, a paper or a slide."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from wsss_cli.report.charts import COLORS, DASHES, Line, steps, thinned
from wsss_cli.report.pictures import GREY, INK, PALE, Color, legend_strip, write_texts

LEFT, RIGHT, TOP, BOTTOM = 76, 24, 44, 54  # margins, pixels
SHIFT = 4  # fractional bits of a place


def line_plot(lines: Sequence[Line], title: str, x_name: str, width: int = 900, height: int = 360) -> np.ndarray:
    """Lines over a common axis, in colours and dashes that differ, their names below.

    Args:
        lines: values that are None or not finite leave a line out there; longer ones than 400 points are thinned.
    Returns:
        RGB, uint8 [height + legend, width, 3].
    Raises:
        ValueError: no line has a value.
    """
    lines = [thinned(line) for line in lines]
    points = [point for line in lines for point in _finite(line)]
    if not points:
        raise ValueError(f"{title}: nothing was measured")
    x0, x1 = min(x for x, _ in points), max(x for x, _ in points)
    ticks = steps(min(0.0, *(y for _, y in points)), max(y for _, y in points))

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - x0) / max(x1 - x0, 1e-12)
        up = (y - ticks[0]) / max(ticks[-1] - ticks[0], 1e-12)
        return LEFT + (width - LEFT - RIGHT) * across, height - BOTTOM - (height - TOP - BOTTOM) * up

    canvas = np.full((height, width, 3), 255, np.uint8)
    texts: list[tuple[tuple[float, float], str, int, Color, str]] = [((LEFT, 22), title, 17, INK, "lm")]
    for tick in ticks:
        _draw(canvas, [at(x0, tick), at(x1, tick)], GREY if tick == 0 else PALE, 1)
        texts.append(((LEFT - 10, at(x0, tick)[1]), f"{tick:g}", 14, GREY, "rm"))
    for tick in steps(x0, x1):
        if x0 <= tick <= x1:
            texts.append(((at(tick, 0)[0], height - BOTTOM + 16), f"{tick:g}", 14, GREY, "mm"))
    texts.append((((LEFT + width - RIGHT) / 2, height - 16), x_name, 14, GREY, "mm"))
    for number, line in enumerate(lines):
        for part in _dashed([at(x, y) for x, y in _finite(line)], DASHES[number % len(DASHES)]):
            _draw(canvas, part, line_color(number), 2)
        for x, y in _finite(line) if len(_finite(line)) == 1 else ():
            cv2.circle(canvas, _fixed(at(x, y)), 4 << SHIFT, line_color(number), -1, cv2.LINE_AA, SHIFT)
    names = legend_strip([(line.name, line_color(number)) for number, line in enumerate(lines)], width - LEFT - RIGHT)
    below = np.full((len(names), width, 3), 255, np.uint8)
    below[:, LEFT : LEFT + names.shape[1]] = names
    return np.vstack([write_texts(canvas, texts), below])


def line_color(number: int) -> Color:
    """The colour of a line, RGB."""
    code = COLORS[number % len(COLORS)]
    return int(code[1:3], 16), int(code[3:5], 16), int(code[5:7], 16)


def _finite(line: Line) -> list[tuple[float, float]]:
    return [(x, y) for x, y in zip(line.x, line.y, strict=True) if y is not None and math.isfinite(y)]


def _dashed(places: Sequence[tuple[float, float]], dashes: str | None) -> list[list[tuple[float, float]]]:
    """A path in the pieces that are drawn of it; `dashes` are lengths on and off in turn, as in SVG."""
    if dashes is None or len(places) < 2:
        return [list(places)]
    path = np.asarray(places)
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(path, axis=0).T))])
    lengths = [2 * float(length) for length in dashes.split()]  # lines are wider than those of SVG
    pieces, start, turn = [], 0.0, 0
    while start < along[-1]:
        end = min(start + lengths[turn % len(lengths)], along[-1])
        if turn % 2 == 0:
            inside = along[(along > start) & (along < end)]
            stops = np.concatenate([[start], inside, [end]])
            xs, ys = (np.interp(stops, along, path[:, axis]) for axis in (0, 1))
            pieces.append(list(zip(xs.tolist(), ys.tolist(), strict=True)))
        start, turn = end, turn + 1
    return pieces


def _draw(canvas: np.ndarray, points: Sequence[tuple[float, float]], color: Color, thickness: int) -> None:
    places = [np.array([_fixed(point) for point in points], np.int32)]
    cv2.polylines(canvas, places, False, color, thickness, cv2.LINE_AA, SHIFT)


def _fixed(point: tuple[float, float]) -> tuple[int, int]:
    """Pixels with fractional bits, as OpenCV's `shift` takes them."""
    return round(point[0] * (1 << SHIFT)), round(point[1] * (1 << SHIFT))
