"""Bars, lines and matrices of a report, each with the table of its figures.

Colours: Okabe and Ito (2008), which colour-blind readers tell apart; lines differ in their dashes too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wsss_cli.report.html import Html, behind, join, node, table

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
DASHES = (None, "7 4", "2 3", "10 3 2 3", "4 2", "12 4", "1 2")
POINTS = 400  # of a line
MATRIX = 40  # classes, above which the greatest confusions are listed instead
LISTED = 30


@dataclass(frozen=True)
class Line:
    """A line of a chart; values that are None leave it out there."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]


def percent(value: float | None) -> str:
    """'75.93', or '-' where there is no value."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.2f}"


def bars(names: Sequence[str], series: Mapping[str, Sequence[float | None]], title: str, top: float = 100.0) -> Html:
    """Bars from 0 to `top` for each name, one for each of the series; None: no bar."""
    cells: list[Html] = []
    for place, name in enumerate(names):
        values = [each[place] for each in series.values()]
        fills = [
            node(
                "div", class_="fill", style=f"width:{100 * min(max(value or 0, 0), top) / top:.2f}%;background:{color}"
            )
            for value, color in zip(values, COLORS, strict=False)
        ]
        cells += [
            node("div", name, class_="name"),
            node("div", *fills, class_="track"),
            node("div", join(_lines([percent(value) for value in values])), class_="value"),
        ]
    key = legend([(name, color) for name, color in zip(series, COLORS, strict=False)]) if len(series) > 1 else None
    rows = [(name, *(percent(each[place]) for each in series.values())) for place, name in enumerate(names)]
    chart = join((key, node("div", *cells, class_="bars", role="img", aria_label=title)))
    return behind(chart, title, ("", *series), rows)


def _lines(texts: Sequence[str]) -> list[Html]:
    return [node("div", line) for line in texts]


def legend(entries: Sequence[tuple[str, str]]) -> Html:
    """Coloured squares with their names."""
    return node("div", *(node("span", node("i", style=f"background:{c}"), name) for name, c in entries), class_="key")


def chart(
    lines: Sequence[Line], title: str, x_name: str, y_name: str, mark: tuple[float, float, str] | None = None
) -> Html:
    """Lines over a common axis.

    Args:
        mark: a point that is named, (x, y, text).
    """
    lines = [thinned(line) for line in lines]
    points = [
        (x, y) for line in lines for x, y in zip(line.x, line.y, strict=True) if y is not None and math.isfinite(y)
    ]
    if not points:
        return node("p", f"{title}: nothing was measured", class_="soft")
    left, right, upper, lower = 76, 664, 16, 250
    x0, x1 = min(x for x, _ in points), max(x for x, _ in points)
    low, high = min(0.0, *(y for _, y in points)), max(y for _, y in points)
    ticks = steps(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - x0) / max(x1 - x0, 1e-12)
        up = (y - low) / max(high - low, 1e-12)
        return left + (right - left) * across, lower - (lower - upper) * up

    parts: list[Html] = []
    for tick in ticks:
        _, y = at(x0, tick)
        parts += [
            node("line", x1=left, x2=right, y1=f"{y:.1f}", y2=f"{y:.1f}", stroke="#d9dde3"),
            node("text", f"{tick:g}", x=left - 8, y=f"{y + 5:.1f}", text_anchor="end"),
        ]
    for tick in steps(x0, x1):
        if x0 <= tick <= x1:
            parts.append(node("text", f"{tick:g}", x=f"{at(tick, low)[0]:.1f}", y=lower + 20, text_anchor="middle"))
    for line, color, dash in zip(lines, COLORS, DASHES, strict=False):
        drawn = [at(x, y) for x, y in zip(line.x, line.y, strict=True) if y is not None and math.isfinite(y)]
        if len(drawn) == 1:  # no line
            parts.append(node("circle", cx=f"{drawn[0][0]:.1f}", cy=f"{drawn[0][1]:.1f}", r=4, fill=color))
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in drawn)
        parts.append(node("polyline", points=path, fill="none", stroke=color, stroke_width=2.2, stroke_dasharray=dash))
    if mark is not None:
        x, y = at(mark[0], mark[1])
        side = ("start", 10) if x < (left + right) / 2 else ("end", -10)
        parts += [
            node("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=5, fill=COLORS[0]),
            node("text", mark[2], x=f"{x + side[1]:.1f}", y=f"{max(y - 8, 14):.1f}", text_anchor=side[0]),
        ]
    parts.append(node("text", x_name, x=(left + right) / 2, y=lower + 42, text_anchor="middle"))
    drawing = node("svg", *parts, viewBox="0 0 680 300", role="img", aria_label=f"{title}: {y_name} over {x_name}")
    key = legend([(line.name, color) for line, color in zip(lines, COLORS, strict=False)])
    caption = title if y_name in title else f"{title} ({y_name})"
    return behind(join((node("figcaption", caption), key, drawing)), title, *_values(lines, x_name))


def _values(lines: Sequence[Line], x_name: str) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the table behind a chart: every x that a line has."""
    columns = [x_name, *(line.name for line in lines)]
    known = [dict(zip(line.x, line.y, strict=True)) for line in lines]
    places = sorted({x for line in lines for x in line.x})
    stride = max(1, -(-len(places) // 100))
    shown = places[::stride]
    if places and shown[-1] != places[-1]:
        shown.append(places[-1])
    rows = [[f"{x:g}", *("-" if (y := each.get(x)) is None else f"{y:.4g}" for each in known)] for x in shown]
    return columns, rows


def thinned(line: Line) -> Line:
    """A line of at most `POINTS` points: means of as many neighbours."""
    if len(line.x) <= POINTS:
        return line
    size = -(-len(line.x) // POINTS)
    xs, ys = [], []
    for start in range(0, len(line.x), size):
        values = [y for y in line.y[start : start + size] if y is not None and math.isfinite(y)]
        xs.append(line.x[min(start + size, len(line.x)) - 1])
        ys.append(sum(values) / len(values) if values else None)
    return Line(line.name, xs, ys)


def steps(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from at most `low` to at least `high`."""
    span = max(high - low, 1e-9)
    raw = span / about
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * number, 10) for number in range(first, max(last, first + 1) + 1)]


def matrix(confusion: np.ndarray, names: Sequence[str]) -> Html:
    """A confusion matrix, rows in per cent of the truth; of many classes the greatest confusions.

    Args:
        confusion: int [K+1, K+1], rows truth; what is outside the classes comes last.
    """
    k = len(names)
    counts = np.asarray(confusion, np.float64)[:k]
    share = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    if k > MATRIX:
        wrong = share[:, :k].copy()
        np.fill_diagonal(wrong, 0)
        order = np.argsort(wrong, axis=None)[::-1][:LISTED]
        pairs = [divmod(int(place), k) for place in order]
        rows = [(names[i], names[j], f"{wrong[i, j]:.1f}") for i, j in pairs if wrong[i, j] > 0]
        return table(("truth", "taken for", "% of the truth"), rows, left=2)
    outside = bool(counts[:, k].any())
    columns = [*names, *(["none"] if outside else [])]
    rows_ = []
    for i, name in enumerate(names):
        shown = share[i, : len(columns)]
        rows_.append([node("th", name, scope="row"), *(_shaded(value, i == j) for j, value in enumerate(shown))])
    head = node("tr", node("th", "truth ↓ prediction →"), *(node("th", name, class_="right") for name in columns))
    body = [node("tr", *row) for row in rows_]
    return node(
        "div",
        node("table", node("thead", head), node("tbody", *body)),
        class_="wide",
        tabindex=0,
        role="region",
        aria_label="confusion matrix",
    )


def _shaded(value: float, right: bool) -> Html:
    color = "0,114,178" if right else "213,94,0"
    strength = min(value, 100) / 100
    ink = "#fff" if strength > 0.55 else "#1d2129"
    style = f"background:rgba({color},{strength:.2f});color:{ink}"
    return node("td", f"{value:.1f}" if value >= 0.05 else "", class_="right", style=style)
