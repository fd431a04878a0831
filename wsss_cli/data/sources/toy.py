"""Drawn photographs in the VOC layout, for demonstrations and tests without a download.

Every object is a body and a part. The part carries a pattern that only its class has; the body is drawn from a pool
that all classes share. A classifier needs the part alone, so its CAMs cover too little, as on real photographs.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from wsss_cli.data.dataset import Dataset, Sample, begin_dataset, write_dataset
from wsss_cli.data.masks import write_mask
from wsss_cli.errors import DataError, UsageError
from wsss_cli.files import write_bytes, write_text
from wsss_cli.labels import IGNORE, voc_palette
from wsss_cli.processes import check_stop

CLASSES = ("background", "ladybug", "zebrafish", "snail", "turtle", "bee")
TWO_CLASSES = 0.35  # share of images with objects of two classes
SPLITS = ("train", "val")

Color = tuple[int, int, int]
Rng = np.random.Generator


@dataclass(frozen=True)
class Drawing:
    """A drawn photograph: image uint8 RGB [S, S, 3], mask uint8 [S, S] (255 on outlines), labels sorted."""

    image: np.ndarray
    mask: np.ndarray
    labels: tuple[int, ...]


def prepare_toy(
    out: str | Path,
    *,
    images: int = 400,
    val: int | None = None,
    seed: int = 0,
    size: int = 128,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> Dataset:
    """Draw a data set; the same arguments give the same bytes.

    Args:
        out: directory to write.
        images: training images.
        val: validation images; a quarter of `images` if None.
        seed: an image depends on it, its split and its number alone, so a larger set begins with a smaller one.
        size: side of the square images, pixels.
        tick: called with (done, total) after every image.
    Raises:
        UsageError: a count or size out of range, or `out` has lists of other images.
        DataError: the disk is full.
    """
    counts = (images, max(1, images // 4) if val is None else val)
    if min(counts) < 1 or seed < 0 or not 32 <= size <= 2048:
        raise UsageError(
            f"cannot draw {counts[0]} + {counts[1]} images of {size} px with seed {seed}",
            "--images and --val must be at least 1, --seed at least 0, --size within 32..2048",
        )
    out, colors = Path(out), voc_palette(len(CLASSES))
    splits: dict[str, list[Sample]] = {}
    done = 0
    for split in SPLITS:
        _refuse_list_of_others(_list(out, split))
    begin_dataset(out)
    for split, count in zip(SPLITS, counts, strict=True):
        splits[split] = []
        for index in range(count):
            check_stop()
            name = f"{split}_{index:06d}"
            drawing = draw(seed, split, index, size)
            image, mask = out / "JPEGImages" / f"{name}.jpg", out / "SegmentationClass" / f"{name}.png"
            write_bytes(image, _jpeg(drawing.image))
            write_mask(mask, drawing.mask, colors)
            splits[split].append(Sample(name, image, mask, drawing.labels, (size, size)))
            done += 1
            tick(done, sum(counts))
        lines = "".join(f"{sample.id}\n" for sample in splits[split])
        write_text(_list(out, split), lines)
    return write_dataset(
        out,
        name="toy",
        classes=CLASSES,
        colors=colors,
        splits=splits,
        source=f"toy, seed {seed}, {size} px",
        protocol=[f"toy: {counts[0]:,} train, {counts[1]:,} val drawn images of {size} px, seed {seed}"],
        findings=[],
    )


def _list(out: Path, split: str) -> Path:
    return out / "ImageSets" / "Segmentation" / f"{split}.txt"


def _refuse_list_of_others(file: Path) -> None:
    """Refuse to write over a list that no drawn data set has, such as VOC's own."""
    try:
        first = file.read_text(encoding="utf-8", errors="replace").split("\n", 1)[0]
    except OSError:
        return
    if first and not first.startswith(tuple(f"{split}_" for split in SPLITS)):
        raise UsageError(f"{file} lists other images ({first[:40]}), and would be written over", "choose another --out")


def draw(seed: int, split: str, index: int, size: int = 128) -> Drawing:
    """Draw one photograph, a function of its arguments alone."""
    rng = np.random.default_rng([seed, SPLITS.index(split), index, size])
    count = 2 if rng.random() < TWO_CLASSES else 1
    labels = 1 + rng.permutation(len(CLASSES) - 1)[:count]
    image = _background(rng, size)
    mask = np.zeros((size, size), np.uint8)
    away = rng.uniform(0, 2 * math.pi)  # two objects stand on opposite sides of the middle
    for number, label in enumerate(labels):
        if count == 1:
            length, radius = rng.uniform(0.42, 0.62) * size, rng.uniform(0.0, 0.14) * size
        else:
            length, radius = rng.uniform(0.32, 0.42) * size, rng.uniform(0.25, 0.29) * size
        angle = away + math.pi * number
        center = (size / 2 + radius * math.cos(angle), size / 2 + radius * math.sin(angle))
        _draw_object(rng, image, mask, int(label), center, length)
    noise = rng.standard_normal(image.shape, np.float32) * rng.uniform(2.0, 6.0)
    image = np.clip(image + noise, 0, 255).astype(np.uint8)
    return Drawing(image, mask, tuple(sorted(int(label) for label in labels)))


def _jpeg(image: np.ndarray) -> bytes:
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 95])
    if not done:
        raise DataError("OpenCV cannot encode JPEG", "install opencv-python-headless anew")
    return data.tobytes()


def _color(rng: Rng, saturation: tuple[float, float], value: tuple[float, float]) -> Color:
    """A colour of random hue, RGB in 0..255."""
    rgb = colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))
    return (round(255 * rgb[0]), round(255 * rgb[1]), round(255 * rgb[2]))


def _blobs(rng: Rng, size: int, cells: int) -> np.ndarray:
    """Smooth noise in -1..1, float32 [size, size], with about `cells` bumps a side."""
    coarse = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)


def _ramp(size: int, angle: float) -> np.ndarray:
    """A plane that rises from about -0.7 to 0.7 in the direction `angle`, float32 [size, size]."""
    line = np.arange(size, dtype=np.float32) / size - 0.5
    return line[None] * math.cos(angle) + line[:, None] * math.sin(angle)


def _background(rng: Rng, size: int) -> np.ndarray:
    """Dull clutter, float32 RGB [size, size, 3]: a gradient, clouds, then shapes and lines, some of them patterned."""
    first = np.array(_color(rng, (0.0, 0.22), (0.25, 0.9)), np.float32)
    second = np.array(_color(rng, (0.0, 0.22), (0.25, 0.9)), np.float32)
    share = np.clip(_ramp(size, rng.uniform(0, 2 * math.pi)) + 0.5 + 0.4 * _blobs(rng, size, 6), 0, 1)[..., None]
    image: np.ndarray = (
        first * (1 - share) + second * share + 22 * _blobs(rng, size, int(rng.integers(12, 40)))[..., None]
    )
    for _ in range(int(rng.integers(7, 16))):
        color = _color(rng, (0.0, 0.25), (0.15, 0.95))
        center, radius = rng.uniform(0, size, 2), rng.uniform(0.04, 0.22) * size
        alpha = np.zeros((size, size), np.uint8)
        if rng.random() < 0.3:
            ends = rng.integers(0, size, (2, 2))
            cv2.line(alpha, ends[0].tolist(), ends[1].tolist(), 255, max(1, size // 64), cv2.LINE_AA)
        else:
            cv2.fillPoly(alpha, [_outline(rng, center, radius)], 255, cv2.LINE_AA, shift=4)
        paint: np.ndarray | Color = color
        if rng.random() < 0.4:  # patterns in dull colours: a pattern alone does not make a class
            pattern = _pattern(int(rng.integers(0, 5)), size, center, radius, rng.uniform(0, math.pi))
            paint = _two_tone(pattern, color, _color(rng, (0.0, 0.25), (0.15, 0.95)))
        _paint(image, alpha, paint)
    for _ in range(int(rng.integers(3, 9))):  # specks as bright as bodies: a colour alone does not make an object
        spot = rng.integers(0, size, 2).tolist()
        cv2.circle(image, spot, int(rng.integers(1, max(2, size // 50) + 1)), _color(rng, (0.5, 1), (0.5, 1)), -1)
    return image


def _outline(rng: Rng, center: np.ndarray, radius: float) -> np.ndarray:
    """A random closed shape, int32 [n, 2] in sixteenths of a pixel."""
    corners = int(rng.integers(3, 10))
    turn = rng.uniform(0, 2 * math.pi) + np.arange(corners) * (2 * math.pi / corners)
    reach = radius * rng.uniform(0.6, 1.2, corners)
    points = np.stack([center[0] + reach * np.cos(turn), center[1] + reach * np.sin(turn)], 1)
    return (points * 16).astype(np.int32)


def _paint(image: np.ndarray, alpha: np.ndarray, paint: np.ndarray | Color) -> None:
    """Lay `paint` (a colour or float32 [S, S, 3]) over the image where alpha (uint8) is set; in place."""
    top, left, height, width = _box(alpha)
    here = (slice(top, top + height), slice(left, left + width))
    share = alpha[here][..., None].astype(np.float32) / 255
    over = paint[here] if isinstance(paint, np.ndarray) else np.array(paint, np.float32)
    image[here] += share * (over - image[here])


def _box(alpha: np.ndarray) -> tuple[int, int, int, int]:
    left, top, width, height = cv2.boundingRect(alpha)
    return top, left, height, width


def _pattern(kind: int, size: int, center: tuple[float, float] | np.ndarray, radius: float, angle: float) -> np.ndarray:
    """One of five patterns about a centre, bool [size, size], scaled to the radius of what wears it."""
    line = np.arange(size, dtype=np.float32)
    x, y = (line[None] - float(center[0])) / radius, (line[:, None] - float(center[1])) / radius
    u, v = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    match kind:
        case 0:
            return (_phase(u * 1.7 + 0.5) - 0.5) ** 2 + (_phase(v * 1.7 + 0.5) - 0.5) ** 2 < 0.075  # dots
        case 1:
            return _phase(v * 2.6) < 0.5  # thin stripes
        case 2:
            return _phase(np.sqrt(x * x + y * y) * 2.4) < 0.5  # rings
        case 3:
            return (_phase(u * 1.3) < 0.5) ^ (_phase(v * 1.3) < 0.5)  # checkers
        case _:
            return _phase(u * 1.5) < 0.5  # broad bars


def _phase(value: np.ndarray) -> np.ndarray:
    fraction: np.ndarray = value - np.floor(value)
    return fraction


def _two_tone(pattern: np.ndarray, on: Color, off: Color) -> np.ndarray:
    return np.array([off, on], np.float32)[pattern.astype(np.uint8)]


# class by class: colour on and off the pattern (RGB), and the form of the part (width and height over its radius)
PARTS: tuple[tuple[Color, Color, tuple[float, float]], ...] = (
    ((25, 15, 15), (215, 35, 30), (1.0, 1.0)),  # ladybug: black dots on a red wing case
    ((25, 45, 150), (225, 235, 245), (0.85, 1.2)),  # zebrafish: thin blue stripes on a white fin
    ((120, 60, 25), (240, 185, 120), (1.05, 1.05)),  # snail: brown rings on a sand shell
    ((25, 85, 45), (135, 200, 70), (1.2, 0.95)),  # turtle: two greens in checkers
    ((35, 30, 20), (250, 205, 30), (0.9, 1.1)),  # bee: broad black bars on yellow
)


def _draw_object(
    rng: Rng, image: np.ndarray, mask: np.ndarray, label: int, center: tuple[float, float], length: float
) -> None:
    """Draw body and part into image and mask, in place; nothing of the body depends on the label."""
    size = mask.shape[0]
    angle = rng.uniform(0, 2 * math.pi)
    ahead = np.array([math.cos(angle), math.sin(angle)])
    long_axis, short_axis = 0.40 * length, 0.40 * length * rng.uniform(0.66, 0.86)
    body = np.zeros((size, size), np.uint8)
    hull = np.array(center) - ahead * 0.12 * length
    _ellipse(body, hull, (long_axis, short_axis), angle)
    for along in (-0.5, 0.3):  # two pairs of legs
        for side in (-1, 1):
            foot = hull + ahead * along * long_axis + side * np.array([-ahead[1], ahead[0]]) * short_axis
            _ellipse(body, foot, (0.30 * short_axis, 0.16 * length * 0.6), angle)
    _paint(image, body, _body_paint(rng, size))

    on, off, form = PARTS[label - 1]
    radius = length * rng.uniform(0.20, 0.235)
    middle = hull + ahead * (long_axis + 0.10 * length)
    part = np.zeros((size, size), np.uint8)
    _ellipse(part, middle, (radius * form[0], radius * form[1]), angle)
    pattern = _pattern(label - 1, size, middle, radius, angle)
    _paint(image, part, _two_tone(pattern, on, off) * np.float32(rng.uniform(0.85, 1.1)))

    inside = (np.maximum(body, part) > 127).astype(np.uint8)
    outside = cv2.dilate(inside, np.ones((3, 3), np.uint8)) - inside
    mask[inside > 0] = label
    mask[outside > 0] = IGNORE


def _ellipse(alpha: np.ndarray, center: np.ndarray, axes: tuple[float, float], angle: float) -> None:
    turn = np.linspace(0, 2 * math.pi, 40, endpoint=False)
    u, v = axes[0] * np.cos(turn), axes[1] * np.sin(turn)
    x = center[0] + u * math.cos(angle) - v * math.sin(angle)
    y = center[1] + u * math.sin(angle) + v * math.cos(angle)
    cv2.fillPoly(alpha, [(np.stack([x, y], 1) * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)


def _body_paint(rng: Rng, size: int) -> np.ndarray:
    """A saturated colour with one of four mild textures, float32 [size, size, 3]."""
    color = np.array(_color(rng, (0.55, 0.9), (0.5, 0.95)), np.float32)
    kind = int(rng.integers(0, 4))
    if kind == 0:
        change = _ramp(size, rng.uniform(0, 2 * math.pi))
    elif kind == 1:
        change = _blobs(rng, size, int(rng.integers(5, 10)))
    elif kind == 2:
        change = np.sin(_ramp(size, rng.uniform(0, 2 * math.pi)) * rng.uniform(50, 90))
    else:
        change = _blobs(rng, size, size // 3)
    return color * (1 + np.float32(rng.uniform(0.08, 0.16)) * change[..., None])
