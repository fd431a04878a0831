"""A label map on its way to another tool."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Outgoing:
    """A photograph and its label map.

    Attributes:
        name: of the photograph, by which its id is told again.
        mask: class indices and 255, uint8 [H, W].
    """

    id: str
    name: str
    image: Path
    mask: np.ndarray


@dataclass(frozen=True)
class Palette:
    """Names and colours (RGB, 0..255) of the classes, the background first."""

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]

    def hexadecimal(self, at: int) -> str:
        """#rrggbb of a class."""
        return "#{:02x}{:02x}{:02x}".format(*self.colors[at])
