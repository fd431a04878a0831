"""CAMs on disk: the tagged classes only, quantised to 8 bits, compressed; at most 60 KiB an image."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np

from wsss_cli.errors import DataError
from wsss_cli.files import write_bytes

LIMIT = 60 * 1024


KEYS = ("cam", "classes", "size")
FORM = (
    "cam [C, h, w] (bytes, or floats in 0..1), classes [C] from 1 on, and size [height, width], as wsss cam writes them"
)


def write_cam(path: Path, cam: np.ndarray, classes: tuple[int, ...], size: tuple[int, int]) -> int:
    """Store the CAMs of one image. Where they exceed 60 KiB they are halved in size until they fit.

    Args:
        cam: scores in [0, 1], float [C, h, w]; C may be 0 (an image without tags).
        classes: class index of each map, 1 .. K-1.
        size: (height, width) of the image, pixels.
    Returns:
        Bytes written.
    Raises:
        DataError: scores are not finite; a byte would be made of them without a word.
    """
    if not np.isfinite(cam).all():
        raise DataError(
            f"the CAMs for {path.name} are not finite",
            "the classifier diverged, or its numbers leave the range of its precision: take another, or precision fp32",
        )
    maps = np.rint(np.clip(cam, 0.0, 1.0) * 255.0).astype(np.uint8)
    data = _pack(maps, classes, size)
    while len(data) > LIMIT and min(maps.shape[1:]) > 1:
        halved = (max(maps.shape[2] // 2, 1), max(maps.shape[1] // 2, 1))
        maps = np.stack([cv2.resize(plane, halved, interpolation=cv2.INTER_AREA) for plane in maps])
        data = _pack(maps, classes, size)
    write_bytes(path, data)
    return len(data)


def _pack(maps: np.ndarray, classes: tuple[int, ...], size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, cam=maps, classes=np.asarray(classes, np.int32), size=np.asarray(size, np.int32))
    return buffer.getvalue()


def read_cam(path: Path) -> tuple[np.ndarray, tuple[int, ...], tuple[int, int]]:
    """Read what `write_cam` stored.

    Returns:
        (scores in [0, 1], float32 [C, h, w]; class indices; (height, width) of the image).
    Raises:
        DataError: the file is missing, damaged or one of another program; its scores are neither bytes nor floats
            in [0, 1]; a class stands there twice; rows and columns are those of the image swapped.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            names, held = stored.files, {key: stored[key] for key in KEYS if key in stored.files}
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing", "run `wsss cam` for this data set") from error
    except MemoryError:
        raise
    except Exception as error:  # NumPy, zipfile and zlib raise many types on a damaged file
        raise DataError(
            f"{path} is not a CAM file: {npz_fault(error)}", "remove it and run `wsss cam` again"
        ) from error
    if len(held) < len(KEYS):
        raise DataError(f"{path} is not a CAM file: it holds {', '.join(names) or 'nothing'}", FORM)
    cam, classes, size = (held[key] for key in KEYS)
    if cam.ndim != 3 or len(cam) != len(classes) or size.shape != (2,):
        raise DataError(
            f"{path}: cam {list(cam.shape)}, classes {list(classes.shape)} and size {list(size.shape)} do not fit",
            FORM,
        )
    indices, (height, width) = _whole(classes, path), _whole(size, path)
    if len(set(indices)) < len(indices):
        raise DataError(f"{path} has several maps of one class: {', '.join(map(str, indices))}", FORM)
    if height != width and cam.shape[1:] == (width, height):
        raise DataError(
            f"{path}: the maps have {width} rows and {height} columns, their image the other way round",
            "are rows and columns swapped?",
        )
    return _scores(cam, path), indices, (height, width)


def npz_fault(error: Exception) -> str:
    """Why a file cannot be read as .npz, without NumPy's advice to unpickle it, which would run code in it."""
    text = str(error)
    if "Object arrays" in text:
        return "it holds Python objects, which are not loaded"
    return "it is no .npz archive" if "pickle" in text else text


def _whole(numbers: np.ndarray, path: Path) -> tuple[int, ...]:
    try:
        whole = tuple(int(number) for number in numbers)
    except (TypeError, ValueError, OverflowError):  # texts, no numbers
        whole = ()
    if len(whole) < len(numbers) or any(number != exact for number, exact in zip(whole, numbers, strict=True)):
        raise DataError(f"{path}: {', '.join(map(str, numbers))} are no whole numbers", FORM)
    return whole


def _scores(cam: np.ndarray, path: Path) -> np.ndarray:
    """Scores in [0, 1], float32: bytes are quantised ones, floats are taken as they are."""
    if cam.dtype == np.uint8:
        return cam.astype(np.float32) / 255.0
    if not np.issubdtype(cam.dtype, np.floating):
        raise DataError(f"{path} holds scores of type {cam.dtype}", "store bytes (0..255) or floats in 0..1")
    low, high = (float(cam.min()), float(cam.max())) if cam.size else (0.0, 0.0)
    if not (low >= 0.0 and high <= 1.0):  # a value that is no number is neither
        known = low >= 0.0 and np.isfinite(high)
        first = "" if known else "set what is below 0 or no finite number to 0, then "
        raise DataError(f"{path} holds scores from {low:g} to {high:g}", f"{first}divide each map by its maximum: 0..1")
    return cam.astype(np.float32)


def upsample(cam: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear resize of [C, h, w] to [C, height, width], half-pixel centres."""
    if not len(cam):
        return np.zeros((0, *size), np.float32)
    return np.stack([cv2.resize(plane, (size[1], size[0]), interpolation=cv2.INTER_LINEAR) for plane in cam])
