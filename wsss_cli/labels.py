"""Label maps: the value that is no class, and the usual colours."""

from __future__ import annotations

from collections.abc import Sequence

IGNORE = 255
"""Not labelled: pixels that no loss and no score counts."""


def told_apart(one: Sequence[str], other: Sequence[str]) -> tuple[str, str]:
    """Two lists of classes that differ, in words: five names of each, among them the first that differs."""
    pairs = enumerate(zip(one, other, strict=False))
    first = next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))
    begin = min(first, 1) if first < 6 else first - 2

    def shown(names: Sequence[str]) -> str:
        parts = [*(["..."] if begin > 1 else []), *names[begin : begin + 5]]
        return ", ".join([*parts, *(["..."] if len(names) > begin + 5 else [])])

    return shown(one), shown(other)


def voc_palette(n: int) -> tuple[tuple[int, int, int], ...]:
    """The first `n` colours (RGB, 0..255) of the standard VOC colour map; colour 0 is black.

    Source: `VOClabelcolormap.m` of the PASCAL VOC devkit: the bits of the index, three at a time, from the top down.
    """
    colors = []
    for index in range(n):
        rgb = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                rgb[channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
        colors.append((rgb[0], rgb[1], rgb[2]))
    return tuple(colors)
