"""Photographs from disk: one size (as shown, EXIF applied), one limit on pixels, plain files only."""

from __future__ import annotations

import io
import os
import stat
import warnings
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from wsss_cli.data.heif import AVIF, HEAD, HEIC, endings_read, is_heif
from wsss_cli.data.jpeg import START, decode_jpeg, jpeg_header, part_is_lost
from wsss_cli.data.remote import read_url, url_of
from wsss_cli.data.tiff import TIFF, has_straight_alpha, refuse_unshown, sample_bits, tiff_tags
from wsss_cli.errors import DataError, UsageError, WsssError
from wsss_cli.files import how_to_read
from wsss_cli.kinds import LOOKED_AT, UNTOLD, kind_of_file

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", *endings_read())
OTHER_ENDINGS = (
    ".jfif",
    ".jpe",
    ".gif",
    *(ending for ending in (*HEIC, *AVIF) if ending not in IMAGE_ENDINGS),
    *(".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".jxl", ".jxr"),
    ".mpo",
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".exr", ".psd"),
    *(".nii", ".gz", ".dcm", ".nrrd", ".mha", ".svs", ".ndpi", ".mrxs", ".czi"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2"),
)
"""Of photographs that are not read: whoever passes them over says so."""
MAX_PIXELS = 178_000_000
MAX_PIXELS_VARIABLE = "WSSS_MAX_PIXELS"
TURNED = "turned by EXIF, whose size does not tell which way up {0} are: taken as {1} on what is shown"
ORIENTATION = 0x0112  # the EXIF tag; 5..8 are those that change the sides
REPLACE = "replace the file, or take it out of the list"  # what helps with one that does not decode
JP2_HEADER = 512  # bytes in which the colours of such a file are said
PNG = b"\x89PNG\r\n\x1a\n"
TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")  # chunks that say nothing of pixels

warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # of damaged tags: who decodes it names it
Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit gives way to `check_pixels`
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # of TIFFs; what cannot be decoded is said here


def read_image(path: str | Path) -> np.ndarray:
    """Read an image as RGB, turned upright as its EXIF orientation says.

    Args:
        path: any format OpenCV decodes, and HEIC and AVIF where Pillow does; grey and 16-bit images become 8-bit RGB
            (the upper 8 bits), transparency is dropped, and of several pages or frames the first is taken.
    Returns:
        uint8 [H, W, 3], contiguous.
    Raises:
        DataError: missing, unreadable, no plain file, too many pixels, or not decodable; the message names the file.
    """
    return decode_image(read_plain_file(path), url_of(path) or str(path))


def decode_image(data: bytes, name: str) -> np.ndarray:
    """Decode the bytes of an image file to RGB, uint8 [H, W, 3]; `name` is for the error message.

    Raises:
        DataError: the bytes are not a whole image, one with too many pixels, one of 16 bits that is next to black, a
            TIFF that no photograph is, or one that needs what is not installed.
    """
    return decode_and_tell(data, name)[0]


def decode_and_tell(data: bytes, name: str) -> tuple[np.ndarray, str]:
    """As `decode_image`, and what libjpeg found wrong in a JPEG that has all its pixels; empty if nothing.

    Raises:
        DataError: as `decode_image`.
    """
    wrong = ""
    tags = tiff_tags(io.BytesIO(data))
    refuse_unshown(tags, f"image {name}")
    if data.startswith(START):
        image, wrong = _decode_jpeg(data, name)
    elif is_heif(data[:HEAD], name) or _is_sycc(data[:JP2_HEADER]) or has_straight_alpha(tags):
        image = _decode_with_pillow(data, name)
    else:
        image = _decode_with_opencv(data, name)
    bits = data[24] if data.startswith(PNG) else sample_bits(tags)
    if bits == 16 and image.max() <= 16:  # 4095 / 256, also rounded up
        raise DataError(
            f"image {name} has 16 bits a sample and none above a sixteenth of their range: all of it would be black",
            "is it of 8, 10 or 12 bits? stretch its values to 8 bits, or to 0..65535, and save it again",
        )
    return image, wrong


def _decode_jpeg(data: bytes, name: str) -> tuple[np.ndarray, str]:
    """As `decode_and_tell`; OpenCV decodes what TurboJPEG does not take, and says nothing of damage."""
    size, end, exif = jpeg_header(data)
    if size:
        check_pixels(*size, name)
    image, wrong = decode_jpeg(data) if end >= 0 else (None, "")
    if part_is_lost(data, wrong):
        raise DataError(f"image {name} is damaged within: {wrong}", f"{REPLACE}; if it looks right, save it anew")
    return (_decode_with_opencv(data, name), "") if image is None else (turn_upright(image, _orientation(exif)), wrong)


def _decode_with_opencv(data: bytes, name: str) -> np.ndarray:
    """As `decode_image`."""
    size, whole, orientation = _header(data)
    if size:
        check_pixels(*size, name)
    turns = cv2.IMREAD_COLOR if data.startswith(TIFF) else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), turns) if data else None
    except cv2.error:  # raised instead of None for some damaged headers, e.g. absurd sizes
        image = None
    if image is None or not whole:
        kind = UNTOLD if data.startswith(START) else kind_of_file(data[:LOOKED_AT])
        raise DataError(f"image {name} cannot be decoded{'' if kind == UNTOLD else f': it is {kind}'}", REPLACE)
    image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return image if data.startswith(TIFF) else turn_upright(image, orientation)


def _is_sycc(head: bytes) -> bool:
    """Whether a file is JPEG 2000 of luma and chroma (ISO 15444-1, I.5.3.3), which OpenCV takes for another YUV."""
    box = head.find(b"colr\1") if head[4:8] == b"jP  " else -1
    return box >= 0 and head[box + 7 : box + 11] == b"\0\0\0\x12"


def _decode_with_pillow(data: bytes, name: str) -> np.ndarray:
    """As `decode_image`. pillow-heif and TIFF: turned when loaded, and EXIF says so then; AVIF is as EXIF says."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            check_pixels(image.height, image.width, name)
            return turn_upright(np.array(image.convert("RGB")), _size_and_orientation(image)[1])
    except (MemoryError, WsssError):
        raise
    except Exception as error:  # as in `stored_size`
        raise DataError(f"image {name} cannot be decoded", REPLACE) from error


def image_size(path: str | Path) -> tuple[int, int]:
    """Height and width of a photograph as it is shown (and as `read_image` returns it), from its header alone.

    Raises:
        DataError: missing, no plain file, or not an image.
    """
    return shown(*stored_size(path))


def shown(stored: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Height and width as an EXIF orientation (1..8) shows them."""
    return (stored[1], stored[0]) if orientation >= 5 else stored


def stored_size(path: str | Path) -> tuple[tuple[int, int], int]:
    """Height and width of an image file as its pixels are stored, and its EXIF orientation, 1..8 (1: upright).

    Raises:
        DataError: as `image_size`.
    """
    url = url_of(path)
    if not url:
        refuse_special_file(path)
    try:
        with io.BytesIO(read_url(url)) if url else Path(path).open("rb") as file:
            head = file.read(LOOKED_AT)
            if head.startswith(PNG):
                file.seek(len(PNG))
                size, orientation = _png_size_and_orientation(file)
            else:
                is_heif(head[:HEAD], url or str(path))
                file.seek(0)
                refuse_unshown(tiff_tags(file), url or str(path))
                file.seek(0)
                with Image.open(file) as image:
                    size, orientation = _size_and_orientation(image)
    except (MemoryError, WsssError):
        raise
    except Exception as error:  # Pillow raises many types on a damaged file
        why = f"it is {kind_of_file(head)}" if isinstance(error, UnidentifiedImageError) else str(error)
        raise DataError(
            f"{url or path} cannot be read as an image: {why}", "replace the file, or fetch it again"
        ) from error
    if 0 in size:  # one that Pillow knows by its first bytes alone, such as HDF5
        raise DataError(
            f"{url or path} cannot be read as an image: it says {size[1]}x{size[0]} pixels", "replace the file"
        )
    return size, orientation


def turn_upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels [H, W, ...] as stored, turned as an EXIF orientation (1..8) says: what `read_image` does to a photograph.

    Source: CIPA DC-008 (EXIF), tag Orientation: where row 0 and column 0 are to be seen.
    """
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(pixels[::rows, ::columns])


def check_pixels(height: int, width: int, name: str) -> None:
    """Refuse an image that takes too much memory, before it is decoded.

    Raises:
        DataError: it has more pixels than $WSSS_MAX_PIXELS, or 178 million.
    """
    limit = max_pixels()
    if height * width > limit:
        raise DataError(
            f"{name} has {width}x{height} pixels, {height * width:,}; the limit is {limit:,}",
            f"make it smaller, or raise the limit: {MAX_PIXELS_VARIABLE}={height * width} (30 bytes of memory each)",
        )


def max_pixels() -> int:
    """The most pixels that an image may have.

    Raises:
        UsageError: $WSSS_MAX_PIXELS is no whole number above 0.
    """
    text = os.environ.get(MAX_PIXELS_VARIABLE, "")
    if not text:
        return MAX_PIXELS
    if not text.isdecimal() or len(text) > 18 or int(text) < 1:
        raise UsageError(f"{MAX_PIXELS_VARIABLE}={text} is no number of pixels", f"for example {MAX_PIXELS}")
    return int(text)


def read_plain_file(path: str | Path) -> bytes:
    """The bytes of a file, or of what a URL names (`data/remote.py`).

    Raises:
        DataError: it is missing or unreadable, or a pipe, a device or a folder, which reading could hang on.
    """
    if url := url_of(path):
        return read_url(url)
    refuse_special_file(path)
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"cannot read image {path}: {error.strerror}", how_to_read(error)) from error


def refuse_special_file(path: str | Path) -> None:
    """Refuse a path that does not lead to a plain file.

    Raises:
        DataError: saying what it is.
    """
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116  # a path takes longer to make
    except OSError as error:
        raise DataError(f"cannot read image {path}: {error.strerror}", how_to_read(error)) from error
    if not stat.S_ISREG(mode):
        raise DataError(f"{path} is no image but {_kind(mode)}", "take it out of the list")


def _kind(mode: int) -> str:
    return "a folder" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"


def why_unread(path: Path) -> str:
    """What a path is that has the name of a photograph and is no file: for the end of a message."""
    try:
        return f"is {_kind(path.stat().st_mode)}"
    except OSError as error:
        return (
            "is a link to a file that is not there" if path.is_symlink() else f"cannot be looked at: {error.strerror}"
        )


def _header(data: bytes) -> tuple[tuple[int, int] | None, bool, int]:
    """Stored height and width, None where they cannot be told; whether a JPEG or PNG has its end mark; orientation.

    Some releases of OpenCV fill what is missing at the end with grey and go on; some turn WebP, and take an EXIF
    orientation of other types than a short one for what it is not.
    """
    try:
        if data.startswith(PNG):
            stored, orientation = _png_size_and_orientation(io.BytesIO(data[len(PNG) :]))
            return stored, b"IEND" in data, orientation
        if data.startswith(START):
            size, end, exif = jpeg_header(data)
            return size, end >= 0, _orientation(exif)
        with Image.open(io.BytesIO(data)) as image:
            stored, orientation = _size_and_orientation(image)
            return stored, True, orientation
    except MemoryError:
        raise
    except Exception:  # as in `stored_size`
        return None, not data.startswith(PNG), 1


def open_picture(path: str | Path) -> ImageFile.ImageFile:
    """An image file as Pillow opens it, a PNG without its texts and colour profile: Pillow refuses long ones.

    Raises many types: those of Pillow, and `OSError`.
    """
    with Path(path).open("rb") as file:
        if file.read(len(PNG)) != PNG:
            return Image.open(path)
        parts = [PNG]
        while len(head := file.read(8)) == 8:
            rest = int.from_bytes(head[:4]) + 4  # with the check sum
            if head[4:] in TEXTS:
                file.seek(rest, io.SEEK_CUR)
            else:
                parts += (head, file.read(rest))
    return Image.open(io.BytesIO(b"".join(parts)))


def _png_size_and_orientation(file: BinaryIO) -> tuple[tuple[int, int], int]:
    """As `_size_and_orientation`, of a PNG that is read up to behind its signature; EXIF may lie behind the pixels."""
    head = file.read(25)  # length, name, 13 bytes, check sum
    width, height = int.from_bytes(head[8:12]), int.from_bytes(head[12:16])
    if head[:8] != b"\0\0\0\x0dIHDR" or not width or not height:
        raise ValueError("its header is damaged")
    while len(head := file.read(8)) == 8 and head[4:] != b"eXIf":
        file.seek(int.from_bytes(head[:4]) + 4, io.SEEK_CUR)  # past the chunk and its check sum
    exif = file.read(int.from_bytes(head[:4])) if head[4:] == b"eXIf" else b""
    return (height, width), _orientation(b"Exif\0\0" + exif)


def _orientation(data: bytes) -> int:
    """The orientation that EXIF says, 1..8. XMP's is not heeded: no decoder turns an image by it."""
    exif = Image.Exif()
    try:
        exif.load(data)
        orientation = exif.get(ORIENTATION, 1)
    except Exception:  # damaged EXIF turns nothing; Pillow raises many types on it
        return 1
    return orientation if orientation in range(1, 9) else 1


def _size_and_orientation(image: Image.Image) -> tuple[tuple[int, int], int]:
    """Stored height and width, and the orientation in EXIF."""
    if image.format == "TIFF":  # some releases of Pillow give the size as shown
        tags = image.tag_v2  # type: ignore[attr-defined]
        orientation = tags.get(ORIENTATION, 1)
        return (int(tags[257]), int(tags[256])), orientation if orientation in range(1, 9) else 1
    return (image.height, image.width), _orientation(image.info.get("exif") or b"")
