"""Label maps on disk: palette PNGs whose pixel values are class indices, 255 where there is no label."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from wsss_cli.data.images import check_pixels, open_picture
from wsss_cli.errors import DataError, WsssError
from wsss_cli.files import read_json, write_bytes, write_json
from wsss_cli.labels import IGNORE

BORDER_COLOR = (224, 224, 192)


def read_mask(path: str | Path) -> np.ndarray:
    """Read a label map.

    Args:
        path: a palette PNG, or an 8-bit (or 1-bit) grey one.
    Returns:
        Class indices, uint8 [H, W].
    Raises:
        DataError: missing, not decodable, a colour image without a palette, or a grey one of 2 or 4 bits a pixel:
            its values are stretched when it is read (1 to 85 or 17, the highest to 255).
    """
    if not Path(path).is_file():
        what = "is no plain file" if Path(path).exists() else "is missing"
        raise DataError(f"mask {path} {what}", "check the path, or run `wsss prepare` again")
    try:
        with open_picture(path) as image:
            check_pixels(image.height, image.width, f"mask {path}")
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
            return np.array(image, dtype=np.uint8)
    except (WsssError, MemoryError):
        raise
    except PermissionError as error:
        raise DataError(f"cannot read mask {path}: {error.strerror}", "make it readable") from error
    except Exception as error:  # Pillow raises many types on a damaged file
        raise DataError(f"mask {path} cannot be decoded: {error}", "replace the file, or fetch it again") from error


def check_values(mask: np.ndarray, num_classes: int, path: str | Path) -> None:
    """Refuse a label map with values that are no class.

    Args:
        mask: class indices, uint8 [H, W]; 255 is no label.
        path: for the message.
    Raises:
        DataError: a value is neither below `num_classes` nor 255.
    """
    wrong = mask[(mask >= num_classes) & (mask != IGNORE)]
    if wrong.size:
        raise DataError(
            f"{path} holds the value {int(wrong.min())}; {num_classes} classes are 0..{num_classes - 1} (or 255)",
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
