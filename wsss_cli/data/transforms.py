"""Training augmentation on uint8 arrays: random resize, crop, flip, colour distortion, padding.

Every random choice comes from the generator that is passed in, so a sample is a function of its seed. Normalisation is
not done here but in the network, on the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from wsss_cli.config.train import AugmentConfig
from wsss_cli.errors import DataError
from wsss_cli.labels import IGNORE
from wsss_cli.talk import sides

CROP_TRIES = 10
HUE, SATURATION = 0, 1  # channels of HSV
MEAN_COLOUR = (124, 116, 104)  # ImageNet mean, RGB: about 0 once normalised


def keep_ratio_size(h: int, w: int, long: int, short: int) -> tuple[int, int]:
    """Largest size of an [h, w] image that fits in long x short, whichever way it lies: (height, width).

    Source: mmcv `rescale_size`, with its rounding.
    """
    factor = min(max(long, short) / max(h, w), min(long, short) / min(h, w))
    return max(int(h * factor + 0.5), 1), max(int(w * factor + 0.5), 1)


def random_resize(
    image: np.ndarray, mask: np.ndarray, rng: np.random.Generator, augment: AugmentConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Resize to a random multiple of (base_long, base_short), keeping the aspect ratio.

    Args:
        image: uint8 [H, W, 3]; bilinear.
        mask: uint8 [H, W] or [H, W, 2]; nearest neighbour.
        rng: one uniform draw.
        augment: scale_min, scale_max, base_long, base_short.
    """
    ratio = rng.random() * (augment.scale_max - augment.scale_min) + augment.scale_min
    h, w = mask.shape[:2]
    h, w = keep_ratio_size(h, w, int(augment.base_long * ratio), int(augment.base_short * ratio))
    if (h, w) == mask.shape[:2]:
        return image, mask
    return cv2.resize(image, (w, h)), cv2.resize(mask, (w, h), interpolation=cv2.INTER_NEAREST)


def random_crop(
    image: np.ndarray, mask: np.ndarray, rng: np.random.Generator, size: int, cat_max_ratio: float
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a random window of at most size x size (views of the input).

    Up to 10 windows are checked: taken is the first that holds two classes or more, none of which covers
    `cat_max_ratio` of the pixels that are not 255. An 11th is taken unchecked. With a ratio of 1 nothing is checked.

    Args:
        image: uint8 [H, W, 3].
        mask: uint8 [H, W] or [H, W, 2], of which the first channel is looked at.
        rng: two integer draws for each window, row first.
    """
    h, w = mask.shape[:2]
    rows, columns = max(h - size, 0) + 1, max(w - size, 0) + 1

    def window() -> tuple[slice, slice]:
        top = int(rng.integers(0, rows))
        left = int(rng.integers(0, columns))
        return slice(top, top + size), slice(left, left + size)

    taken = window()
    if cat_max_ratio < 1.0:
        for _ in range(CROP_TRIES):
            if _mixed(mask[taken], cat_max_ratio):
                break
            taken = window()
    return image[taken], mask[taken]


def _mixed(mask: np.ndarray, cat_max_ratio: float) -> bool:
    counts = cv2.calcHist([mask], [0], None, [256], [0, 256]).ravel()[:IGNORE]
    return bool((counts > 0).sum() > 1 and counts.max() < cat_max_ratio * counts.sum())


def flip(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mirror left and right: image uint8 [H, W, 3], mask uint8 [H, W] or [H, W, 2]."""
    return cv2.flip(image, 1), cv2.flip(mask, 1)


@dataclass(frozen=True)
class Distortion:
    """The drawn parameters of one colour distortion; None leaves a step out.

    Attributes:
        brightness: added to every channel, -32..32.
        contrast: factor on every channel, 0.5..1.5.
        contrast_last: contrast comes after hue instead of before saturation.
        saturation: factor on S, 0.5..1.5.
        hue: added to H, which is in 0..179 (two degrees a step), -18..17.
    """

    brightness: float | None = None
    contrast: float | None = None
    contrast_last: bool = False
    saturation: float | None = None
    hue: int | None = None


def draw_distortion(rng: np.random.Generator) -> Distortion:
    """Draw a colour distortion: each of the four steps with probability 1/2, contrast first or last alike."""
    brightness, contrast, saturation, hue, last = (bool(v) for v in rng.integers(0, 2, 5))
    return Distortion(
        brightness=float(rng.uniform(-32.0, 32.0)) if brightness else None,
        contrast=float(rng.uniform(0.5, 1.5)) if contrast else None,
        contrast_last=last,
        saturation=float(rng.uniform(0.5, 1.5)) if saturation else None,
        hue=int(rng.integers(-18, 18)) if hue else None,
    )


def photometric(image: np.ndarray, draws: Distortion) -> np.ndarray:
    """Brightness, contrast, saturation and hue on 8 bits.

    Each step rounds to uint8 (towards zero), so each is a table of 256 entries and neighbours can share one.

    Args:
        image: uint8 RGB [H, W, 3]; not changed.
        draws: what to do.
    Returns:
        uint8 RGB [H, W, 3]; the input itself when nothing is to be done.
    Source: MMSegmentation 1.2.2 `PhotoMetricDistortion`, byte for byte given its draws.
    """
    identity = np.arange(256, dtype=np.uint8)
    table = identity
    if draws.brightness is not None:
        table = _linear(table, 1.0, draws.brightness)
    if draws.contrast is not None and not draws.contrast_last:
        table = _linear(table, draws.contrast, 0.0)
    if table is not identity:
        image = cv2.LUT(image, table)
    if draws.saturation is not None:
        image = _in_hsv(image, SATURATION, _linear(identity, draws.saturation, 0.0))
    if draws.hue is not None:
        image = _in_hsv(image, HUE, ((identity.astype(np.int64) + draws.hue) % 180).astype(np.uint8))
    if draws.contrast is not None and draws.contrast_last:
        image = cv2.LUT(image, _linear(identity, draws.contrast, 0.0))
    return image


def _linear(table: np.ndarray, factor: float, offset: float) -> np.ndarray:
    changed: np.ndarray = np.clip(table.astype(np.float32) * factor + offset, 0, 255).astype(np.uint8)
    return changed


def _in_hsv(image: np.ndarray, channel: int, table: np.ndarray) -> np.ndarray:
    """Look up one channel of HSV: half the time of a look-up in tables of all three."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    plane = cv2.extractChannel(hsv, channel)
    hsv = cv2.insertChannel(cv2.LUT(plane, table), hsv, channel)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB, dst=hsv)


def pad_to(
    image: np.ndarray, mask: np.ndarray, size: int, fill: int = 0, mask_fill: int = IGNORE
) -> tuple[np.ndarray, np.ndarray]:
    """Pad at the right and at the bottom to size x size; what is larger stays as it is.

    Args:
        image: uint8 [H, W, 3], padded with `fill` in each channel.
        mask: uint8 [H, W], padded with `mask_fill`.
    """
    bottom, right = max(size - mask.shape[0], 0), max(size - mask.shape[1], 0)
    if not bottom and not right:
        return image, mask
    constant = cv2.BORDER_CONSTANT
    image = cv2.copyMakeBorder(image, 0, bottom, 0, right, constant, value=(fill, fill, fill))
    return image, cv2.copyMakeBorder(mask, 0, bottom, 0, right, constant, value=mask_fill)


class TrainSample(NamedTuple):
    """A square crop for training, padded at the right and at the bottom; all arrays contiguous.

    Attributes:
        image: RGB, uint8 [crop, crop, 3], 0 where padded.
        mask: class indices or 255, uint8 [crop, crop], 255 where padded.
        size: rows and columns that are not padding.
        confidence: uint8 [crop, crop], 255 = certain, 0 where padded; None where none was given.
        vouched: uint8 [crop, crop], 1 where somebody vouches for the label, 0 where padded; None where none was given.
    """

    image: np.ndarray
    mask: np.ndarray
    size: tuple[int, int]
    confidence: np.ndarray | None
    vouched: np.ndarray | None


def train_sample(
    image: np.ndarray,
    mask: np.ndarray,
    rng: np.random.Generator,
    augment: AugmentConfig,
    crop: int,
    confidence: np.ndarray | None = None,
    vouched: np.ndarray | None = None,
) -> TrainSample:
    """One training sample of a segmentation network: resize, crop, flip, distort, pad.

    Args:
        image: uint8 RGB [H, W, 3].
        mask: class indices or 255, uint8 [H, W].
        rng: source of every random choice.
        augment: ratios and probabilities.
        crop: side of the result.
        confidence: of the mask, uint8 [H, W]; resized bilinearly. It has no say in which crop is taken.
        vouched: 1 where somebody vouches for the mask, uint8 [H, W]; it goes wherever the mask goes.
    Raises:
        DataError: image, mask, confidence and what is vouched for differ in size.
    Source: the training pipeline of MMSegmentation 1.2.2 for VOC12Aug.
    """
    if image.shape[:2] != mask.shape:
        raise DataError(
            f"image is {sides(image.shape[:2])}, its mask {sides(mask.shape)}",
            "masks must have the size of their images",
        )
    if confidence is not None:
        if confidence.shape != mask.shape:
            raise DataError(
                f"mask is {sides(mask.shape)}, its confidence map {sides(confidence.shape)}",
                "make both anew with `wsss pseudo`",
            )
        image = np.dstack([image, confidence])  # a fourth channel goes wherever the colours go
    if vouched is not None:
        if vouched.shape != mask.shape:
            raise DataError(
                f"mask is {sides(mask.shape)}, the labels of its photograph {sides(vouched.shape)}",
                "add the labels again (wsss prepare labels), and make the masks anew",
            )
        mask = np.dstack([mask, vouched])
    image, mask = random_resize(image, mask, rng, augment)
    image, mask = random_crop(image, mask, rng, crop, augment.cat_max_ratio)
    if rng.random() < augment.flip:
        image, mask = flip(image, mask)
    image, trust = (image, None) if confidence is None else (np.ascontiguousarray(image[..., :3]), image[..., 3])
    if augment.photometric:
        image = photometric(image, draw_distortion(rng))
    height, width = mask.shape[:2]
    if vouched is not None:
        vouched = np.ascontiguousarray(pad_to(image, mask[..., 1], crop, mask_fill=0)[1])
        mask = mask[..., 0]
    if trust is not None:
        trust = np.ascontiguousarray(pad_to(image, trust, crop, mask_fill=0)[1])
    image, mask = pad_to(image, mask, crop)
    return TrainSample(np.ascontiguousarray(image), np.ascontiguousarray(mask), (height, width), trust, vouched)


@dataclass(frozen=True)
class _Framing:
    """A size, perhaps a mirror image, and a window of it at a place in a square frame."""

    height: int
    width: int
    mirrored: bool
    window: tuple[slice, slice]
    place: tuple[slice, slice]


def _draw_framing(
    size: tuple[int, ...], rng: np.random.Generator, crop: int, resize_min: float, resize_max: float
) -> _Framing:
    h, w = size
    factor = rng.uniform(resize_min, resize_max) * crop / max(h, w)
    h, w = max(int(h * factor + 0.5), 1), max(int(w * factor + 0.5), 1)
    mirrored = bool(rng.random() < 0.5)
    from_y, to_y, rows = _place(h, crop, rng)
    from_x, to_x, columns = _place(w, crop, rng)
    window = slice(from_y, from_y + rows), slice(from_x, from_x + columns)
    return _Framing(h, w, mirrored, window, (slice(to_y, to_y + rows), slice(to_x, to_x + columns)))


def _framed(
    array: np.ndarray, framing: _Framing, crop: int, method: int, fill: int | tuple[int, int, int]
) -> np.ndarray:
    array = cv2.resize(array, (framing.width, framing.height), interpolation=method)
    window = array[framing.window]
    window = cv2.flip(window, 1) if framing.mirrored else window
    if window.shape[:2] == (crop, crop):
        return np.ascontiguousarray(window)
    frame = np.empty((crop, crop, *array.shape[2:]), np.uint8)
    frame[:] = fill
    frame[framing.place] = window
    return frame


def classifier_sample(
    image: np.ndarray, rng: np.random.Generator, crop: int, resize_min: float, resize_max: float
) -> np.ndarray:
    """One training sample of a classifier: random size, flip, and a random window or a random place in the frame.

    Args:
        image: uint8 RGB [H, W, 3].
        rng: source of every random choice.
        crop: side of the result.
        resize_min, resize_max: range of the long side as a fraction of `crop`.
    Returns:
        uint8 RGB [crop, crop, 3], contiguous; the mean colour of ImageNet where there is no image.
    Source: Ahn et al. (IRN), CVPR 2019, released code: resize by the long side and crop into a frame.
    """
    framing = _draw_framing(image.shape[:2], rng, crop, resize_min, resize_max)
    return _framed(image, framing, crop, cv2.INTER_LINEAR, MEAN_COLOUR)


def affinity_sample(
    image: np.ndarray,
    label: np.ndarray,
    rng: np.random.Generator,
    crop: int,
    resize_min: float,
    resize_max: float,
    stride: int,
) -> tuple[np.ndarray, np.ndarray]:
    """One training sample of an affinity network: as `classifier_sample`, with the label on the network's grid.

    Args:
        image: uint8 RGB [H, W, 3].
        label: class indices or 255, uint8 [H, W].
        rng, crop, resize_min, resize_max: as for `classifier_sample`.
        stride: image pixels a grid pixel.
    Returns:
        image uint8 [crop, crop, 3] and label uint8 [ceil(crop / stride), ceil(crop / stride)], the value at the middle
        of each grid pixel; 255 where there is no image.
    """
    framing = _draw_framing(image.shape[:2], rng, crop, resize_min, resize_max)
    frame = _framed(label, framing, crop, cv2.INTER_NEAREST, IGNORE)
    side = -(-crop // stride)
    middle = ((np.arange(side) + 0.5) * crop / side).astype(np.intp)
    picture = _framed(image, framing, crop, cv2.INTER_LINEAR, MEAN_COLOUR)
    return picture, np.ascontiguousarray(frame[np.ix_(middle, middle)])


def _place(length: int, frame: int, rng: np.random.Generator) -> tuple[int, int, int]:
    """A random overlap of an image side and a frame side: (start in the image, start in the frame, length)."""
    slack = int(rng.integers(0, abs(length - frame) + 1))
    return (slack, 0, frame) if length >= frame else (0, slack, length)
