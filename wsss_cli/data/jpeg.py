"""JPEG by libjpeg-turbo: what its header says, and pixels together with what was found damaged among them."""

from __future__ import annotations

import re

import numpy as np
import simplejpeg

START, END = b"\xff\xd8", b"\xff\xd9"
LOST = ("premature end", "bad Huffman code", "instead of RST")
"""In libjpeg's words for data of which a part cannot be decoded: the rest of the image is grey or noise."""
LEFT_OVER = re.compile(r"(\d+) extraneous bytes before marker 0x(..)")
LEFT_OVER_MOST = 7  # some encoders write a few bytes too many; after a damaged byte it is tens to thousands


def jpeg_header(data: bytes) -> tuple[tuple[int, int] | None, int, bytes]:
    """Stored height and width, None where they cannot be told; where the end mark is, or -1; EXIF, empty if none.

    Segments are skipped, as EXIF may hold a thumbnail with marks of its own.
    """
    at, size, exif = 2, None, b""
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] != b"\xda":
        mark = data[at + 1 : at + 2]
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4]) if mark != b"\xff" else at + 1
        if b"\xc0" <= mark <= b"\xcf" and mark not in b"\xc4\xc8\xcc":  # start of frame: precision, height, width
            size = int.from_bytes(data[at + 5 : at + 7]), int.from_bytes(data[at + 7 : at + 9])
        elif mark == b"\xe1" and not exif and data[at + 4 : at + 10] == b"Exif\0\0":
            exif = data[at + 4 : end]
        at = end
    return size, data.find(END, at), exif


def decode_jpeg(data: bytes) -> tuple[np.ndarray | None, str]:
    """The pixels of a JPEG, and what libjpeg found wrong with it, in its words; empty if nothing.

    Returns:
        uint8 [H, W, 3], RGB as stored (EXIF turns nothing), equal to what OpenCV decodes; None of what TurboJPEG does
        not take, as CMYK.
    """
    wrong = ""
    for strict in (True, False):
        try:
            return simplejpeg.decode_jpeg(data, "RGB", strict=strict), wrong
        except ValueError as error:
            wrong = wrong or str(error)
    return None, wrong


def part_is_lost(data: bytes, wrong: str) -> bool:
    """Whether what is wrong with a JPEG, as `decode_jpeg` returns it, says that pixels are not those that were saved.

    Data that is left over when all pixels are there was read from a wrong place on. Not so where it is one byte again
    and again, with which some cameras fill up.
    """
    if words := LEFT_OVER.search(wrong):
        count, end = int(words[1]), jpeg_header(data)[1] if words[2] == "d9" else 0
        return count > LEFT_OVER_MOST and not (end and len(set(data[end - count : end])) == 1)
    return any(part in wrong for part in LOST)
