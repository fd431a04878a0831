"""Label maps on disk: palette PNGs whose pixel values are class indices, 255 where there is no label."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from wsss_cli.data.images import ORIENTATION, PNG, check_pixels, max_pixels, open_picture
from wsss_cli.errors import DataError, WsssError
from wsss_cli.files import read_json, write_bytes, write_json
from wsss_cli.kinds import LOOKED_AT, kind_of_file
from wsss_cli.labels import IGNORE

BORDER_COLOR = (224, 224, 192)
AS_PNG = "make the mask anew, and save it as PNG"
PEEK = 8  # rows that tell whether others are filtered


def read_mask(path: str | Path) -> np.ndarray:
    """Read a label map.

    Args:
        path: a palette PNG, or an 8-bit (or 1-bit) grey one.
    Returns:
        Class indices, uint8 [H, W].
    Raises:
        DataError: missing, not decodable, a JPEG, a colour image without a palette, one that EXIF turns, one of several
            pages or frames, or a grey one of 2 or 4 bits a pixel: its values are stretched when it is read (1 to 85 or
            17, the highest to 255).
    """
    if not Path(path).is_file():
        what = "is no plain file" if Path(path).exists() else "is missing"
        raise DataError(f"mask {path} {what}", "check the path, or run `wsss prepare` again")
    try:
        if (indices := _plain_indices(Path(path))) is not None:
            return indices
        with open_picture(path) as image:
            check_pixels(image.height, image.width, f"mask {path}")
            if image.format in ("JPEG", "MPO"):
                raise DataError(f"{path} is a JPEG, whatever its name, which changes the numbers of pixels", AS_PNG)
            if image.mode not in ("P", "L", "1"):
                raise DataError(
                    f"{path} is a mask of mode {image.mode}, not of class indices",
                    "masks must be palette or 8-bit grey PNGs whose pixel values are class indices (255: no label)",
                )
            if image.mode == "L" and any(depth in str(tile[3]) for tile in image.tile for depth in ("L;2", "L;4")):
                raise DataError(
                    f"{path} is a grey mask of 2 or 4 bits a pixel, whose values programs stretch to 0..255",
                    "save it as a palette PNG, or as a grey one of 8 bits",
                )
            _refuse_turned(image, path)
            return np.array(image, dtype=np.uint8)
    except (WsssError, MemoryError):
        raise
    except PermissionError as error:
        raise DataError(f"cannot read mask {path}: {error.strerror}", "make it readable") from error
    except Exception as error:  # Pillow raises many types on a damaged file
        why = f"it is {_kind(Path(path))}" if isinstance(error, UnidentifiedImageError) else str(error)
        raise DataError(f"mask {path} cannot be decoded: {why}", "replace the file, or fetch it again") from error


def _refuse_turned(image: ImageFile.ImageFile, path: str | Path) -> None:
    """Refuse a label map that viewers show otherwise than it is stored, or of which they show one of several."""
    if image.getexif().get(ORIENTATION, 1) in range(2, 9):
        raise DataError(
            f"{path} is a mask that EXIF turns (orientation {image.getexif()[ORIENTATION]}), which masks are not",
            "make it anew as the photograph is shown, and save it without EXIF",
        )
    if getattr(image, "n_frames", 1) > 1:
        raise DataError(f"{path} is a mask of {image.n_frames} pages or frames", "save the one that is meant as PNG")  # type: ignore[attr-defined]


def _kind(path: Path) -> str:
    with path.open("rb") as file:
        return kind_of_file(file.read(LOOKED_AT))


def _plain_indices(path: Path) -> np.ndarray | None:
    """What a PNG holds that is as Pillow writes masks: 8 bits a pixel, of a palette or grey, no row filtered.

    Pillow takes three times as long. It has the last word: None is for another sort of file, or any doubt about one.

    Source: the PNG specification (W3C), third edition, sections 5, 9 and 10.
    """
    with path.open("rb") as file:
        if file.read(len(PNG)) != PNG:
            return None
        data = file.read()
    parts, at, chunk = [], 0, b""
    while chunk != b"IEND":
        chunk, end = data[at + 4 : at + 8], at + 8 + int.from_bytes(data[at : at + 4])
        if chunk in (b"", b"acTL", b"eXIf") or zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4]):
            return None
        if chunk == b"IDAT":
            parts.append(data[at + 8 : end])
        at = end + 4
    if len(data) < 29 or data[4:8] != b"IHDR":
        return None
    width, height, depth, color, *ways = struct.unpack(">IIBBBBB", data[8:21])
    whole = height * (width + 1)  # a byte before each row is its filter
    if (
        depth != 8
        or color not in (0, 3)
        or any(ways)
        or not 0 < width * height <= max_pixels()
        or (color and b"PLTE" not in data)
    ):
        return None
    inflate = zlib.decompressobj()
    raw = inflate.decompress(b"".join(parts), PEEK * (width + 1))
    if not any(raw[:: width + 1]):
        raw += inflate.decompress(inflate.unconsumed_tail, whole)
    if len(raw) != whole or not inflate.eof or any(raw[:: width + 1]):
        return None
    return np.frombuffer(raw, np.uint8).reshape(height, width + 1)[:, 1:].copy()


def check_values(mask: np.ndarray, num_classes: int, path: str | Path) -> None:
    """Refuse a label map with values that are no class.

    Args:
        mask: class indices, uint8 [H, W]; 255 is no label.
        path: for the message.
    Raises:
        DataError: a value is neither below `num_classes` nor 255.
    """
    wrong = (mask >= num_classes) & (mask != IGNORE)
    if wrong.any():
        raise DataError(
            f"{path} holds the value {int(mask[wrong].min())}; {num_classes} classes are 0..{num_classes - 1} (or 255)",
            "is the number of classes right, background included?",
        )


def write_mask(path: str | Path, mask: np.ndarray, colors: Sequence[tuple[int, int, int]]) -> None:
    """Write a label map as a palette PNG, whole or not at all.

    Args:
        path: where to; missing folders are made.
        mask: class indices, uint8 [H, W]; 255 is drawn in VOC's light border colour.
        colors: RGB of each class, 0..255; at most 255 classes.
    Raises:
        WriteError: the file cannot be written.
        ValueError: the mask is not uint8 [H, W].
    """
    write_bytes(Path(path), mask_png(mask, colors))


def mask_png(mask: np.ndarray, colors: Sequence[tuple[int, int, int]]) -> bytes:
    """The bytes of the palette PNG that `write_mask` writes.

    Raises:
        ValueError: the mask is not uint8 [H, W].
    """
    buffer = io.BytesIO()
    palette_image(mask, colors).save(buffer, "PNG")
    return buffer.getvalue()


def palette_image(mask: np.ndarray, colors: Sequence[tuple[int, int, int]]) -> Image.Image:
    """A label map, uint8 [H, W], with RGB of each class as its palette.

    Raises:
        ValueError: the mask is not uint8 [H, W].
    """
    if mask.dtype != np.uint8 or mask.ndim != 2:
        raise ValueError(f"a mask must be uint8 [H, W], not {mask.dtype} {list(mask.shape)}")
    table = np.zeros((256, 3), np.uint8)
    table[: len(colors)] = colors
    table[IGNORE] = BORDER_COLOR
    image = Image.fromarray(np.ascontiguousarray(mask)).convert("L")
    image.putpalette(table.tobytes())
    return image


def grey_png(values: np.ndarray) -> bytes:
    """The bytes of a grey PNG of 8 bits, without a palette, of uint8 [H, W]."""
    return cv2.imencode(".png", values)[1].tobytes()


def clear_other_masks(folder: Path, made_from: dict[str, Any]) -> None:
    """Remove the PNGs of a folder of made masks unless its stamp says that they were made from the same as now."""
    stamp = folder / "made.json"
    if stamp.is_file() and read_json(stamp) == made_from:
        return
    for stale in folder.glob("*.png"):
        stale.unlink()
    write_json(stamp, made_from)
