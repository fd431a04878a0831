"""Label maps: the value that is no class, and the usual colours."""

from __future__ import annotations

IGNORE = 255
"""Not labelled: pixels that no loss and no score counts."""


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
