"""Pictures for people: overlays, heat maps, sheets of examples, threshold curves. Images are RGB, uint8 [H, W, 3]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from wsss_cli.files import write_bytes
from wsss_cli.labels import IGNORE

UNDECIDED_COLOR = (224, 224, 192)
ERRORS = ((0, 114, 178), (230, 159, 0), (204, 121, 167))  # missed, false, wrong class: Okabe and Ito (2008)
INK, GREY, PALE = (34, 34, 34), (120, 120, 120), (228, 228, 228)
CURVES = (("miou", "mIoU", (31, 119, 180)), ("fp", "FP", (214, 69, 65)), ("fn", "FN", (222, 143, 5)))
Color = tuple[int, int, int]


def overlay(
    image: np.ndarray, mask: np.ndarray, colors: Sequence[Color], alpha: float = 0.5, ignore_index: int = IGNORE
) -> np.ndarray:
    """Tint an image by class and draw the outlines; the background stays as it is.

    Args:
        image: RGB, uint8 [H, W, 3].
        mask: class indices, [H, W]; `ignore_index` is tinted pale. Another size is brought to that of the image.
        colors: RGB of each class.
        alpha: strength of the tint, 0..1.
    Returns:
        RGB, uint8 [H, W, 3].
    """
    height, width = image.shape[:2]
    if mask.shape != (height, width):
        mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)
    picture = image.copy()
    line = max(1, round(min(height, width) / 220))
    for index in (int(value) for value in np.unique(mask)):
        if index == 0 or (index >= len(colors) and index != ignore_index):
            continue
        color = np.array(UNDECIDED_COLOR if index == ignore_index else colors[index], np.float32)
        region = mask == index
        picture[region] = np.rint(image[region] * (1 - alpha) + color * alpha).astype(np.uint8)
        if index != ignore_index:
            # Lighter than the tint, for VOC's colours are dark and so are many photographs.
            light = tuple(float(value) for value in color * 0.5 + 127.5)
            outlines, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(picture, outlines, -1, light, line, cv2.LINE_AA)
    return picture


def heatmap(image: np.ndarray, cam: np.ndarray) -> np.ndarray:
    """Lay a class activation map over an image: low is dark blue and nearly clear, high is yellow and covers.

    The colours (viridis) grow lighter all the way, so that they order for every reader.

    Args:
        image: RGB, uint8 [H, W, 3].
        cam: scores in [0, 1], float [h, w], resized bilinearly.
    Returns:
        RGB, uint8 [H, W, 3].
    """
    height, width = image.shape[:2]
    scores = cv2.resize(np.nan_to_num(cam.astype(np.float32)), (width, height), interpolation=cv2.INTER_LINEAR)
    scores = np.clip(scores, 0.0, 1.0)
    colored = cv2.applyColorMap(np.rint(scores * 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1]
    weight = (0.25 + 0.4 * scores)[..., None]
    blended: np.ndarray = np.rint(image * (1 - weight) + colored * weight).astype(np.uint8)
    return blended


def error_map(image: np.ndarray, mask: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """What a mask has wrong, over a grey image: missed objects blue, false ones orange, wrong classes pink.

    Args:
        image: RGB, uint8 [H, W, 3].
        mask, truth: class indices, [h, w] each; 255 in the mask is background, in the truth not shown.
    Returns:
        RGB, uint8 [H, W, 3].
    """
    height, width = image.shape[:2]
    mask, truth = (cv2.resize(one, (width, height), interpolation=cv2.INTER_NEAREST) for one in (mask, truth))
    mask = np.where(mask == IGNORE, 0, mask)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    picture = np.repeat((grey // 2 + 110)[..., None], 3, axis=2)
    wrong = (mask != truth) & (truth != IGNORE)
    kinds = (wrong & (mask == 0), wrong & (truth == 0), wrong & (mask > 0) & (truth > 0))
    for where, color in zip(kinds, ERRORS, strict=True):
        picture[where] = color
    return picture


def grey_map(values: np.ndarray) -> np.ndarray:
    """Confidence, uint8 [H, W], as a picture: 0 black, 255 white; RGB, uint8 [H, W, 3]."""
    return np.repeat(values[..., None], 3, axis=2)


def sheet(
    rows: Sequence[Sequence[np.ndarray | None]],
    titles: Sequence[str],
    row_titles: Sequence[str] = (),
    legend: Sequence[tuple[str, Color]] = (),
    cell_height: int = 200,
    captions: Sequence[Sequence[str]] = (),
) -> np.ndarray:
    """A sheet of examples: a row each, a titled column for each kind of picture.

    Args:
        rows: RGB, uint8 [H, W, 3], scaled to `cell_height`; None leaves a cell empty.
        titles: one for each column.
        row_titles: small text above each row, e.g. image ids; none if empty.
        legend: (class name, colour) drawn at the bottom.
        captions: of each cell, written into its corner; none if empty.
    Returns:
        RGB, uint8 [H, W, 3].
    Raises:
        ValueError: a row has not a cell for each title.
    """
    if any(len(row) != len(titles) for row in rows):
        raise ValueError(f"every row needs {len(titles)} cells, one for each title")
    gap, margin, head, label = 8, 20, 34, 22 if row_titles else 0
    cells = [[None if cell is None else _scaled(cell, cell_height) for cell in row] for row in rows]
    columns = [[row[i] for row in cells] for i in range(len(titles))]
    widths = [max((cell.shape[1] for cell in column if cell is not None), default=cell_height) for column in columns]
    widths = [max(width, _text_width(title, 17)) for width, title in zip(widths, titles, strict=True)]
    width = 2 * margin + sum(widths) + gap * (len(widths) - 1)
    strip = _legend(legend, width - 2 * margin)
    height = margin + head + len(rows) * (label + cell_height + gap) + len(strip) + margin // 2
    canvas = np.full((height, width, 3), 255, np.uint8)
    texts: list[tuple[tuple[float, float], str, int, Color, str]] = []
    lefts = [margin + sum(widths[:i]) + gap * i for i in range(len(widths))]
    texts += [
        ((left + w / 2, margin + 8), title, 17, INK, "mm") for left, w, title in zip(lefts, widths, titles, strict=True)
    ]
    top = margin + head
    for number, row in enumerate(cells):
        if row_titles:
            texts.append(((margin, top + label / 2), row_titles[number], 13, GREY, "lm"))
        top += label
        for column, (left, room, cell) in enumerate(zip(lefts, widths, row, strict=True)):
            if cell is not None:
                start = left + (room - cell.shape[1]) // 2
                canvas[top : top + cell_height, start : start + cell.shape[1]] = cell
                if captions and (text := captions[number][column]):
                    shade = canvas[top : top + 20, start : start + min(_text_width(text, 13) + 12, cell.shape[1])]
                    shade //= 4
                    texts.append(((start + 6, top + 10), text, 13, (255, 255, 255), "lm"))
        top += cell_height + gap
    canvas[top : top + len(strip), margin : margin + strip.shape[1]] = strip
    return _write(canvas, texts)


def curve_png(curve: Mapping[str, Any], width: int = 800, height: int = 480) -> np.ndarray:
    """mIoU, FP and FN against the background threshold, the best threshold marked.

    Args:
        curve: what `stages.score.cam_curve` returns.
    Returns:
        RGB, uint8 [height, width, 3].
    """
    thresholds = curve["thresholds"]
    values = [value for key, _, _ in CURVES for value in curve[key] if value is not None]
    ceiling = max(10.0, 10.0 * np.ceil(max(values, default=10.0) / 10.0))
    left, right, top, bottom = 64, width - 84, 52, height - 60
    span = max(thresholds[-1] - thresholds[0], 1e-9)

    def at(threshold: float, value: float) -> tuple[float, float]:
        x = left + (right - left) * (threshold - thresholds[0]) / span
        return x, bottom - (bottom - top) * value / ceiling

    canvas = np.full((height, width, 3), 255, np.uint8)
    texts: list[tuple[tuple[float, float], str, int, Color, str]] = []
    for level in np.arange(0, ceiling + 1, 10 if ceiling <= 60 else 20):
        _line(canvas, [at(thresholds[0], level), at(thresholds[-1], level)], PALE, 1)
        texts.append(((left - 10, at(0, level)[1]), f"{level:.0f}", 14, GREY, "rm"))
    for tick in np.arange(np.ceil(thresholds[0] * 10), np.floor(thresholds[-1] * 10 + 1e-6) + 1) / 10:
        texts.append(((at(tick, 0)[0], bottom + 16), f"{tick:.1f}", 14, GREY, "mm"))
    _line(canvas, [at(thresholds[0], 0), at(thresholds[-1], 0)], GREY, 1)
    ends = []
    for key, name, color in CURVES:
        known = [(t, value) for t, value in zip(thresholds, curve[key], strict=True) if value is not None]
        if known:
            _line(canvas, [at(t, value) for t, value in known], color, 2)
            ends.append((at(*known[-1]), name, color))
    best = curve["best_threshold"]
    peak = at(best, curve["best"]["miou"])
    _line(canvas, [(round(peak[0]), bottom), (round(peak[0]), peak[1])], CURVES[0][2], 1)  # whole pixels stay sharp
    cv2.circle(canvas, _fixed(peak), 5 << 4, CURVES[0][2], -1, cv2.LINE_AA, 4)
    texts.append(((left, 24), f"best mIoU {curve['best']['miou']:.2f} at threshold {best:.2f}", 18, INK, "lm"))
    texts.append((((left + right) / 2, height - 18), "background threshold", 15, GREY, "mm"))
    texts.append(((14, 24), "%", 15, GREY, "lm"))
    y = -np.inf
    for (x, end), name, color in sorted(ends, key=lambda item: item[0][1]):
        y = max(end, y + 18)  # names of lines that end together stand below each other
        texts.append(((x + 10, y), name, 15, color, "lm"))
    return _write(canvas, texts)


def write_picture(path: str | Path, rgb: np.ndarray) -> None:
    """Write RGB, uint8 [H, W, 3], whole or not at all: as JPEG where the name ends so, else as PNG.

    Raises:
        WriteError: the file cannot be written.
    """
    write_bytes(Path(path), encoded(rgb, jpeg=Path(path).suffix.lower() in (".jpg", ".jpeg")))


def encoded(rgb: np.ndarray, *, jpeg: bool = False) -> bytes:
    """RGB, uint8 [H, W, 3], as the bytes of a PNG, or of a JPEG of quality 85."""
    options = [cv2.IMWRITE_JPEG_QUALITY, 85] if jpeg else []
    _, data = cv2.imencode(".jpg" if jpeg else ".png", np.ascontiguousarray(rgb[..., ::-1]), options)
    return data.tobytes()


def _scaled(image: np.ndarray, height: int) -> np.ndarray:
    width = max(1, round(image.shape[1] * height / image.shape[0]))
    smaller = height < image.shape[0]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)


def _legend(entries: Sequence[tuple[str, Color]], width: int) -> np.ndarray:
    """Coloured squares with names, broken into lines, RGB [h, width, 3]; h is 0 without entries."""
    square, line, x, y = 14, 26, 0, 0
    places = []
    for name, color in entries:
        needed = square + 8 + _text_width(name, 14) + 20
        if x and x + needed > width:
            x, y = 0, y + line
        places.append((x, y, name, color))
        x += needed
    strip = np.full((y + line + 4 if entries else 0, width, 3), 255, np.uint8)
    for x, y, _, color in places:
        strip[y + 6 : y + 6 + square, x : x + square] = color
    return _write(strip, [((x + square + 8, y + 6 + square / 2), name, 14, INK, "lm") for x, y, name, _ in places])


def _line(canvas: np.ndarray, points: Sequence[tuple[float, float]], color: Color, thickness: int) -> None:
    cv2.polylines(
        canvas, [np.array([_fixed(point) for point in points], np.int32)], False, color, thickness, cv2.LINE_AA, 4
    )


def _fixed(point: tuple[float, float]) -> tuple[int, int]:
    """Pixels with four fractional bits, as OpenCV's `shift` takes them."""
    return round(point[0] * 16), round(point[1] * 16)


@cache
def _font(size: int) -> Any:
    # Pillow brings this one along; OpenCV's strokes are hard to read at this size.
    return ImageFont.load_default(size)


def _text_width(text: str, size: int) -> int:
    return int(np.ceil(_font(size).getlength(text)))


def _write(canvas: np.ndarray, texts: Sequence[tuple[tuple[float, float], str, int, Color, str]]) -> np.ndarray:
    """Write (place, text, size, colour, anchor) on a copy."""
    if not canvas.size:
        return canvas
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    for place, text, size, color, anchor in texts:
        draw.text(place, text, color, _font(size), anchor)
    return np.asarray(picture).copy()
