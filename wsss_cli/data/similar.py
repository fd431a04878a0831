"""Photographs that occur twice: equal files by a hash of their bytes, look-alikes by a hash of their content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

NEAR = 3
"""Bits of 64 in which hashes of look-alikes differ at most. Of the 3,078,921 pairs of 2,482 unlike photographs of VOC
none differs in fewer than 5; copies at half the size or at JPEG quality 30 do in at most 3 in 98 of 100 cases."""
BANDS = NEAR + 1  # of 16 bits: hashes that differ in 3 bits have at least one of four bands in common
BLANK = 16  # grey levels; a photograph whose thumbnail spans fewer has a hash of noise


@dataclass(frozen=True)
class Signatures:
    """Of each row of a split: 25 bytes, whatever the photographs are.

    Attributes:
        content: of the file's bytes, uint64 [N] (64 bits of SHA-256).
        place: of the file's path, uint64 [N].
        picture: `picture_hash`, uint64 [N].
        state: uint8 [N]; 0 could not be read, 1 blank (`picture` says nothing), 2 sound.
    """

    content: np.ndarray
    place: np.ndarray
    picture: np.ndarray
    state: np.ndarray

    @classmethod
    def empty(cls, count: int) -> Signatures:
        """Those of `count` photographs that could not be read."""
        content, place, picture = (np.zeros(count, np.uint64) for _ in range(3))
        return cls(content, place, picture, np.zeros(count, np.uint8))


class Member(NamedTuple):
    """A row of a split."""

    split: str
    row: int


class LookAlike(NamedTuple):
    """A photograph, the one most like it, in how many bits they differ, and how many are as near as NEAR."""

    member: Member
    other: Member
    bits: int
    near: int


def short_hash(data: bytes) -> int:
    """The first 64 bits of SHA-256. Two of 100,000 different files share them with a chance of 3 in 10^10."""
    return int.from_bytes(hashlib.sha256(data).digest()[:8])


def picture_hash(image: np.ndarray) -> tuple[int, bool]:
    """64 bits, one for each pixel of a grey 9x8 thumbnail, set where it is brighter than the one to its left.

    Copies at another size, quality or brightness have nearly the same bits; mirrored, turned and cropped ones do not.

    Args:
        image: RGB, uint8 [H, W, 3].
    Returns:
        (the bits; whether the photograph is blank and they say nothing).
    Source: the "difference hash" of N. Krawetz, "Kind of Like That", 2013.
    """
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (9, 8), interpolation=cv2.INTER_AREA)
    brighter = grey[:, 1:] > grey[:, :-1]
    return int.from_bytes(np.packbits(brighter).tobytes()), int(grey.max()) - int(grey.min()) < BLANK


def equal_files(signatures: dict[str, Signatures]) -> Iterator[list[Member]]:
    """Groups of rows, of all splits, whose files have the same bytes."""
    splits, rows = _rows(signatures, list(signatures))
    content = np.concatenate([signatures[name].content for name in signatures])
    readable = np.concatenate([signatures[name].state for name in signatures]) > 0
    splits, rows, content = splits[readable], rows[readable], content[readable]
    order = np.argsort(content, kind="stable")
    _, starts, counts = np.unique(content[order], return_index=True, return_counts=True)
    names = list(signatures)
    for start, count in zip(starts[counts > 1], counts[counts > 1], strict=True):
        yield [Member(names[splits[at]], int(rows[at])) for at in order[start : start + count]]


def look_alikes(
    signatures: dict[str, Signatures], many: list[str], few: list[str], check: Callable[[], object]
) -> Iterator[LookAlike]:
    """Photographs of the splits `few` that differ in at most NEAR bits from one of `many`, but not in no byte.

    Only those are compared that share one of four bands of 16 bits, which all such pairs do. Blank ones are left out.

    Args:
        check: called now and then; what it raises ends the work.
    """
    (splits, rows), (few_splits, few_rows) = _rows(signatures, many), _rows(signatures, few)
    content, picture, sound = _joined(signatures, many)
    few_content, few_picture, few_sound = _joined(signatures, few)
    (sound_many,), (sound_few,) = np.nonzero(sound), np.nonzero(few_sound)
    if not len(sound_many) or not len(sound_few):
        return
    content, picture = content[sound_many], picture[sound_many]
    bands = [_Band(picture, number) for number in range(BANDS)]
    for count, at in enumerate(sound_few):
        if count % 256 == 0:
            check()
        near = np.unique(np.concatenate([band.sharing(few_picture[at]) for band in bands]))
        bits = np.bitwise_count(picture[near] ^ few_picture[at])
        close = (bits <= NEAR) & (content[near] != few_content[at])
        if close.any():
            best = near[close][np.argmin(bits[close])]
            other = sound_many[best]
            yield LookAlike(
                Member(few[few_splits[at]], int(few_rows[at])),
                Member(many[splits[other]], int(rows[other])),
                int(bits[close].min()),
                len(np.unique(content[near[close]])),
            )


class _Band:
    """Hashes sorted by 16 of their bits."""

    def __init__(self, pictures: np.ndarray, number: int) -> None:
        self.shift = np.uint64(16 * number)
        keys = self._keys(pictures)
        self.order = np.argsort(keys, kind="stable")
        self.keys = keys[self.order]

    def _keys(self, pictures: np.ndarray) -> np.ndarray:
        keys: np.ndarray = (pictures >> self.shift).astype(np.uint16)
        return keys

    def sharing(self, picture: np.uint64) -> np.ndarray:
        """Indices of the hashes that have these bits like `picture`."""
        key = self._keys(np.asarray(picture))
        shared: np.ndarray = self.order[np.searchsorted(self.keys, key) : np.searchsorted(self.keys, key, "right")]
        return shared


def _rows(signatures: dict[str, Signatures], names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Of all rows of some splits: the number of the split in `names`, and the row in it."""
    counts = [len(signatures[name].content) for name in names]
    rows = [np.arange(count, dtype=np.int32) for count in counts]
    return np.repeat(np.arange(len(names)), counts), np.concatenate([*rows, np.zeros(0, np.int32)])


def _joined(signatures: dict[str, Signatures], names: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Contents, pictures, and whether they can be compared, of all rows of some splits."""
    none = Signatures.empty(0)
    parts = [*(signatures[name] for name in names), none]
    content, picture = np.concatenate([p.content for p in parts]), np.concatenate([p.picture for p in parts])
    return content, picture, np.concatenate([p.state for p in parts]) == 2
