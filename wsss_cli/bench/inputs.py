"""What benchmarks work on: drawn photographs, or those of a data set, and score maps around their masks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from wsss_cli.config.schema import DatasetConfig, Preset
from wsss_cli.data.dataset import Sample, open_dataset
from wsss_cli.data.images import read_image
from wsss_cli.data.masks import read_mask, write_mask
from wsss_cli.data.sources.toy import draw
from wsss_cli.errors import DataError
from wsss_cli.files import write_bytes
from wsss_cli.labels import voc_palette


@dataclass(frozen=True)
class Picture:
    """Image uint8 RGB [H, W, 3], mask uint8 [H, W] (255: ignored), class indices of its tags."""

    image: np.ndarray
    mask: np.ndarray
    labels: tuple[int, ...]


def pictures(count: int, height: int, width: int, *, seed: int, data: str = "") -> list[Picture]:
    """Photographs of one size, functions of the arguments alone.

    Args:
        data: data set directory whose train split they come from, resized; where an image has no mask it is all
            background. Empty: they are drawn.
    """
    if data:
        return [_resized(_read(sample), height, width) for sample in split_samples(data, count)]
    drawings = [draw(seed, "train", index, max(height, width)) for index in range(count)]
    cut = (slice((max(height, width) - height) // 2, None), slice((max(height, width) - width) // 2, None))
    return [
        Picture(
            np.ascontiguousarray(drawing.image[cut][:height, :width]),
            np.ascontiguousarray(drawing.mask[cut][:height, :width]),
            drawing.labels,
        )
        for drawing in drawings
    ]


def split_samples(data: str, count: int) -> list[Sample]:
    """The first samples of a data set's train split.

    Raises:
        DataError: it has none.
    """
    samples = list(open_dataset(data).split(DatasetConfig(path=data).train)[:count])
    if not samples:
        raise DataError(f"{data} has no images in its train split")
    return samples


def stored_samples(
    folder: Path, count: int, height: int, width: int, *, seed: int, data: str = ""
) -> tuple[list[Sample], int]:
    """(samples on disk, classes): those of a data set as they are, or drawn ones, written as JPEG and PNG."""
    if data:
        return split_samples(data, count), open_dataset(data).num_classes
    samples, colors = [], voc_palette(21)
    for index, picture in enumerate(pictures(count, height, width, seed=seed)):
        image, mask = folder / f"{index:05d}.jpg", folder / f"{index:05d}.png"
        quality = [cv2.IMWRITE_JPEG_QUALITY, 95]
        _, encoded = cv2.imencode(".jpg", cv2.cvtColor(picture.image, cv2.COLOR_RGB2BGR), quality)
        write_bytes(image, encoded.tobytes())
        write_mask(mask, picture.mask, colors)
        samples.append(Sample(f"{index:05d}", image, mask, picture.labels))
    return samples, 21


def _read(sample: Sample) -> Picture:
    image = read_image(sample.image)
    mask = read_mask(sample.mask) if sample.mask is not None else np.zeros(image.shape[:2], np.uint8)
    return Picture(image, mask, sample.labels)


def _resized(picture: Picture, height: int, width: int) -> Picture:
    image = cv2.resize(picture.image, (width, height), interpolation=cv2.INTER_AREA)
    mask = cv2.resize(picture.mask, (width, height), interpolation=cv2.INTER_NEAREST)
    return replace(picture, image=image, mask=mask)


def score_maps(mask: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Probabilities of `count` labels, float32 [count, H, W]: blurred, noisy versions of the mask.

    Labels that the mask does not have are noise; mask values outside of the labels are background.
    """
    height, width = mask.shape
    rng = np.random.default_rng(seed)
    inside = np.where(mask < count, mask, 0)
    sigma = max(height, width) / 25
    planes = []
    for label in range(count):
        blurred = cv2.GaussianBlur((inside == label).astype(np.float32), (0, 0), sigma)
        coarse = rng.uniform(-1, 1, (max(height // 8, 2), max(width // 8, 2))).astype(np.float32)
        noise = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        planes.append(5 * blurred + 0.7 * noise)
    exponential = np.exp(np.stack(planes))
    probabilities: np.ndarray = exponential / exponential.sum(0)
    return probabilities


def edge_map(mask: np.ndarray, height: int, width: int, seed: int) -> np.ndarray:
    """Probability of a boundary, float32 [height, width]: the outlines of a mask, blurred, and some noise."""
    outline = cv2.morphologyEx(np.where(mask == 255, 0, mask), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    soft = cv2.GaussianBlur((outline > 0).astype(np.float32), (0, 0), 2.0)
    small = cv2.resize(soft, (width, height), interpolation=cv2.INTER_AREA)
    noise = np.float32(0.1) * np.random.default_rng(seed).random(small.shape, np.float32)
    scores: np.ndarray = np.clip(small / max(float(small.max()), 1e-6) * 0.9 + noise, 0, 1)
    return scores


def untrained(preset: Preset) -> Preset:
    """The preset with random weights in its networks: nothing is fetched."""
    bare = {"weights": "none"}
    backbone = preset.classifier.backbone.model_copy(update=bare)
    classifier = preset.classifier.model_copy(update={"backbone": backbone, "weights": ""})
    train = preset.train.model_copy(update={"backbone": preset.train.backbone.model_copy(update=bare), "init": ""})
    return preset.model_copy(update={"classifier": classifier, "train": train})
