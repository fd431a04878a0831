"""TIFFs: what their tags say, read without the pixels, and those that are no photographs to any decoder here.

Source: TIFF 6.0, sections 2 and 18 to 20, whose names and numbers of tags these are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, BinaryIO

from PIL.TiffImagePlugin import ImageFileDirectory_v2

from wsss_cli.errors import DataError

TIFF = (b"II*\0", b"MM\0*", b"II+\0")  # the last a BigTIFF; Pillow reads none of its other order
BITS, SAMPLES, EXTRA_SAMPLES, FORMAT = 258, 277, 338, 339
SUBFILE, SUB_PAGES = 254, 330  # NewSubfileType, SubIFDs
SMALLER = 1  # of the bits of a page's kind: a smaller copy of another one
NEXT = -1  # beside the tags: where the next page begins, 0 if nowhere
STRAIGHT_ALPHA = 2  # of the extra samples: colours are not multiplied by it
SIGNED, FLOAT = 2, 3  # of the sample formats
SAVE = "save it with one or three bands of 8 or 16 bits: gdal_translate -ot Byte -scale {0} IN OUT"


def tiff_tags(file: BinaryIO) -> Mapping[int, Any]:
    """The tags of the first page of a TIFF, by number, and `NEXT`; none of another kind of file, or a damaged one."""
    head = file.read(8)
    if not head.startswith(TIFF):
        return {}
    try:
        head += file.read(8) if b"+" in head[2:4] else b""
        tags = ImageFileDirectory_v2(head)
        file.seek(tags.next)
        tags.load(file)
        return {**tags, NEXT: tags.next}
    except MemoryError:
        raise
    except Exception:  # Pillow raises many types on a damaged file; whoever decodes it names it
        return {}


def numbers_of(tags: Mapping[int, Any], tag: int, default: int) -> tuple[int, ...]:
    """The whole numbers of a tag, or the one that it has where the file lacks it."""
    value = tags.get(tag, default)
    numbers = value if isinstance(value, tuple) else (value,)
    return tuple(number for number in numbers if isinstance(number, int)) or (default,)


def sample_bits(tags: Mapping[int, Any]) -> int:
    """Bits of a sample of a TIFF; 8 without tags."""
    return max(numbers_of(tags, BITS, 1)) if tags else 8


def has_straight_alpha(tags: Mapping[int, Any]) -> bool:
    """Whether the colours of a TIFF are not multiplied by its transparency, which OpenCV does then."""
    return STRAIGHT_ALPHA in numbers_of(tags, EXTRA_SAMPLES, 0)


def refuse_unshown(tags: Mapping[int, Any], name: str) -> None:
    """Refuse a TIFF whose pixels have no one way to be shown; what has no tags passes.

    Raises:
        DataError: saying why: samples that are floating-point, have a sign or more than 16 bits, more than four bands,
            or two of 16 bits; or a first page that is a smaller copy of another one, as raw files of cameras have it.
    """
    smaller = numbers_of(tags, SUBFILE, 0)[0] & SMALLER
    if smaller and (tags.get(SUB_PAGES) or tags.get(NEXT)):
        why = f"{name} is a TIFF whose first page is a smaller copy of another one, as raw files (DNG, NEF) have it"
        raise DataError(why, "save the photograph itself as JPEG or as a TIFF of one page")
    bits, bands, forms = max(numbers_of(tags, BITS, 1)), numbers_of(tags, SAMPLES, 1)[0], numbers_of(tags, FORMAT, 1)
    if FLOAT in forms:
        why = "floating-point samples, whose range nothing tells"
    elif SIGNED in forms:
        why = "samples with a sign, whose range nothing tells"
    elif bits > 16:
        why = f"samples of {bits} bits"
    elif bands > 4 or (bands == 2 and bits > 8):
        why = f"{bands} bands of {bits} bits, and nothing tells which are red, green and blue"
    else:
        return
    raise DataError(f"{name} is a TIFF with {why}", SAVE.format("-b 1 -b 2 -b 3" if bands > 2 else "-b 1"))
