"""Photographs from disk."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from wsss_cli.errors import DataError

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def read_image(path: str | Path) -> np.ndarray:
    """Read an image as RGB, turned upright as its EXIF orientation says.

    Args:
        path: any format OpenCV decodes; grey and 16-bit images become 8-bit RGB, transparency is dropped.
    Returns:
        uint8 [H, W, 3], contiguous.
    Raises:
        DataError: missing, unreadable, or not decodable; the message names the file.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"cannot read image {path}: {error.strerror}", "check the path") from error
    return decode_image(data, str(path))


def decode_image(data: bytes, name: str) -> np.ndarray:
    """Decode the bytes of an image file to RGB, uint8 [H, W, 3]; `name` is for the error message.

    Raises:
        DataError: the bytes are not a whole image.
    """
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error:  # raised instead of None for some damaged headers, e.g. absurd sizes
        image = None
    if image is None or _cut_short(data):
        raise DataError(f"image {name} cannot be decoded", "replace the file, or take it out of the list")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _cut_short(data: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end mark: some releases of OpenCV fill what is missing with grey and go on."""
    if data.startswith(b"\x89PNG"):
        return b"IEND" not in data
    if not data.startswith(b"\xff\xd8"):
        return False
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] != b"\xda":  # skip segments; EXIF may hold a thumbnail
        at += 2 + int.from_bytes(data[at + 2 : at + 4]) if data[at + 1 : at + 2] != b"\xff" else 1
    return b"\xff\xd9" not in data[at:]
