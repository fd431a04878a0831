"""Pictures for people: overlays, heat maps, sheets of examples, legends. Images are RGB, uint8 [H, W, 3]."""

from __future__ import annotations

import contextlib
import unicodedata
from collections.abc import Sequence
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
Color = tuple[int, int, int]
WIDEST = 8  # times its height, of a cell of a sheet: a file has a limit (JPEG 65,500 pixels)


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
    shades = np.arange(256.0)[:, None, None] * (1 - alpha)
    for index in np.flatnonzero(np.bincount(mask.ravel())).tolist():
        if index == 0 or (index >= len(colors) and index != ignore_index):
            continue
        color = np.array(UNDECIDED_COLOR if index == ignore_index else colors[index], np.float32)
        region = (mask == index).view(np.uint8)
        tinted = cv2.LUT(image, np.rint(shades + color * alpha).astype(np.uint8))
        cv2.copyTo(tinted, region, picture)
        if index != ignore_index:
            # Lighter than the tint, for VOC's colours are dark and so are many photographs.
            light = tuple(float(value) for value in color * 0.5 + 127.5)
            outlines, _ = cv2.findContours(region, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
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
    widths = [max(width, text_width(title, 17)) for width, title in zip(widths, titles, strict=True)]
    width = 2 * margin + sum(widths) + gap * (len(widths) - 1)
    strip = legend_strip(legend, width - 2 * margin)
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
                edge = canvas[top - 1 : top + cell_height + 1, start - 1 : start + cell.shape[1] + 1]
                edge[:] = PALE  # what is white at its edge, as a confidence map, would have none
                canvas[top : top + cell_height, start : start + cell.shape[1]] = cell
                if captions and (text := captions[number][column]):
                    shade = canvas[top : top + 20, start : start + min(text_width(text, 13) + 12, cell.shape[1])]
                    shade //= 4
                    texts.append(((start + 6, top + 10), text, 13, (255, 255, 255), "lm"))
        top += cell_height + gap
    canvas[top : top + len(strip), margin : margin + strip.shape[1]] = strip
    return write_texts(canvas, texts)


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
    """A cell of this height; a picture that would be much too wide is a strip in it."""
    width = max(1, round(image.shape[1] * height / image.shape[0]))
    if width > WIDEST * height:
        width = WIDEST * height
        strip = cv2.resize(
            image, (width, max(1, image.shape[0] * width // image.shape[1])), interpolation=cv2.INTER_AREA
        )
        cell = np.full((height, width, 3), PALE, np.uint8)
        top = (height - len(strip)) // 2
        cell[top : top + len(strip)] = strip
        return cell
    smaller = height < image.shape[0]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)


def legend_strip(entries: Sequence[tuple[str, Color]], width: int) -> np.ndarray:
    """Coloured squares with names, broken into lines, RGB [h, width, 3]; h is 0 without entries."""
    square, line, x, y = 14, 26, 0, 0
    places = []
    for name, color in entries:
        needed = square + 8 + text_width(name, 14) + 20
        if x and x + needed > width:
            x, y = 0, y + line
        places.append((x, y, name, color))
        x += needed
    strip = np.full((y + line + 4 if entries else 0, width, 3), 255, np.uint8)
    for x, y, _, color in places:
        strip[y + 6 : y + 6 + square, x : x + square] = color
    return write_texts(strip, [((x + square + 8, y + 6 + square / 2), name, 14, INK, "lm") for x, y, name, _ in places])


@cache
def _font(size: int) -> Any:
    # Pillow brings this one along; OpenCV's strokes are hard to read at this size.
    return ImageFont.load_default(size)


@cache
def _wide_font(size: int) -> Any:
    """A font of the machine with the letters of many languages; None: there is none."""
    for name in ("NotoSans-Regular.ttf", "DejaVuSans.ttf", "LiberationSans-Regular.ttf", "arial.ttf"):
        with contextlib.suppress(OSError):
            return ImageFont.truetype(name, size)
    return None


def _written(text: str, size: int) -> tuple[str, Any]:
    """A text as it can be drawn, and the font: Pillow's has no letters but those of ASCII."""
    if text.isascii():
        return text, _font(size)
    if font := _wide_font(size):
        return text, font
    plain = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return plain.encode("ascii", "replace").decode(), _font(size)


def text_width(text: str, size: int) -> int:
    """Pixels that a text takes."""
    text, font = _written(text, size)
    return int(np.ceil(font.getlength(text)))


def write_texts(canvas: np.ndarray, texts: Sequence[tuple[tuple[float, float], str, int, Color, str]]) -> np.ndarray:
    """Write (place, text, size, colour, anchor) on a copy."""
    if not canvas.size:
        return canvas
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    for place, text, size, color, anchor in texts:
        drawn, font = _written(text, size)
        draw.text(place, drawn, color, font, anchor)
    return np.asarray(picture).copy()
