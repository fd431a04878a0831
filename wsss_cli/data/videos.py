"""Videos, decoded by OpenCV's FFmpeg one frame at a time, in order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from wsss_cli.data.images import check_pixels, refuse_special_file
from wsss_cli.errors import DataError

VIDEO_ENDINGS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm")
OTHER_VIDEOS = (".wmv", ".mpg", ".mpeg", ".mpv", ".ts", ".mts", ".m2ts", ".vob", ".flv", ".3gp", ".ogv")  # not read
COUNTED = (".mp4", ".m4v", ".mov", ".avi")  # that say how many frames they have; of others that is an estimate
IN_A_ROW = 250  # frames that do not decode; behind as many the video is at its end
BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")  # that an MP4 or QuickTime file may begin with

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # read when OpenCV first opens a video; FFmpeg writes to stderr


@dataclass(frozen=True)
class Video:
    """A video that decodes.

    Attributes:
        frames: the number of the last one that decodes, from 1; some before it may not.
        size: (height, width) of the first one that decodes.
        missing: frames that it says it has beside these; of Matroska and WebM as many as its length makes, where these
            are more than a tenth of all; not known where not all are counted.
    """

    path: Path
    frames: int
    size: tuple[int, int]
    missing: int = 0


def is_video(path: str | Path) -> bool:
    """Whether a name ends as a video's does."""
    return Path(path).suffix.lower() in VIDEO_ENDINGS


def open_video(path: Path, most: int, check: Callable[[], object]) -> Video:
    """Count the frames of a video by decoding it once: what files say of themselves is often an estimate.

    Args:
        most: frames to count at most.
        check: called for each frame; what it raises ends the work.
    Raises:
        DataError: no video, one that is cut off, or too many pixels.
    """
    if is_cut_off(path):
        raise DataError(f"video {path} is cut off: its end is missing", "copy or download it again")
    size, frames = (0, 0), 0
    for number, capture in _decoded(path, check):
        if size == (0, 0):
            pixels = _pixels(capture, path)
            size = (0, 0) if pixels is None else (pixels.shape[0], pixels.shape[1])
        frames = min(number, most)
        if number >= most:
            return Video(path, frames, size)
    said = _frames_said(path)
    missing = max(said - frames, 0)
    return Video(path, frames, size, missing if path.suffix.lower() in COUNTED or 10 * missing > said else 0)


def _frames_said(path: Path) -> int:
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        return int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    finally:
        capture.release()


def frames_of(path: Path, numbers: Iterable[int], check: Callable[[], object]) -> Iterator[np.ndarray | None]:
    """Frames of a video as RGB, uint8 [H, W, 3], turned upright as the video says; ends where the video ends.

    Args:
        numbers: of the frames, from 1, ascending.
        check: called for each frame that is decoded.
    Returns:
        Those; None for one that does not decode while a later one does.
    Raises:
        DataError: none decodes, or it has too many pixels.
    """
    wanted = iter(numbers)
    number = next(wanted, None)
    if number is None:
        return
    for at, capture in _decoded(path, check):
        while number is not None and number <= at:
            yield _pixels(capture, path) if number == at else None
            number = next(wanted, None)
        if number is None:
            return


def _decoded(path: Path, check: Callable[[], object]) -> Iterator[tuple[int, cv2.VideoCapture]]:
    """The numbers of the frames that decode, from 1, each with what holds it. One that does not has a number, too:
    OpenCV fails once for it, as it does at the end, and goes on with the next."""
    refuse_special_file(path)
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    at = failed = 0
    try:
        while failed < IN_A_ROW:
            check()
            if capture.grab():
                at, failed = at + failed + 1, 0
                yield at, capture
            else:
                failed += 1
        if at == 0:
            raise DataError(f"video {path} cannot be decoded", "is it a video? play it, or save it anew as MP4")
    finally:
        capture.release()


def _pixels(capture: cv2.VideoCapture, path: Path) -> np.ndarray | None:
    """The frame that is held; None where it cannot be had."""
    decoded, frame = capture.retrieve()
    if not decoded:
        return None
    check_pixels(frame.shape[0], frame.shape[1], f"video {path}")
    return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


def is_cut_off(path: Path) -> bool:
    """Whether a file says that it is longer than it is: FFmpeg decodes what is there of some, and says nothing.

    Source: ISO/IEC 14496-12 (boxes of MP4 and QuickTime), Microsoft RIFF (AVI), RFC 8794 (EBML, of Matroska and WebM).
    """
    refuse_special_file(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(16)
        if head[:4] == b"RIFF":
            return 8 + int.from_bytes(head[4:8], "little") > size + 1  # some leave the last filling byte out
        if head[:4] == b"\x1a\x45\xdf\xa3":
            start, length = _element(head[4:], 4)
            file.seek(start + length)
            start, length = _element(file.read(12)[4:], start + length + 4)
            return start + length > size
        at = 0
        while head[4:8].isalnum() if at else head[4:8] in BOXES:
            length = int.from_bytes(head[:4])
            length = int.from_bytes(head[8:16]) if length == 1 else length
            if length < 8:  # 0: it reaches to the end
                return length != 0
            at += length
            file.seek(at)
            head = file.read(16)
        return at > size


def _element(data: bytes, at: int) -> tuple[int, int]:
    """Where the content of an EBML element begins, and its length; 0 where it is not known.

    Args:
        data: what follows its identifier.
        at: its place in the file.
    """
    first = data[0] if data else 0
    bytes_of_it = 9 - first.bit_length() if first else 1
    value = int.from_bytes(data[:bytes_of_it]) & ((1 << 7 * bytes_of_it) - 1)
    return at + bytes_of_it, 0 if value == (1 << 7 * bytes_of_it) - 1 else value
