"""Label maps of a folder, taken together: those that can hardly be meant as they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsss_cli.errors import DataError
from wsss_cli.labels import IGNORE
from wsss_cli.talk import counted


@dataclass
class LabelMaps:
    """What the label maps of a folder say, counted one after another.

    Attributes:
        folder: for messages.
        whole: they are whole masks, which may do without 255.
        count: how many were seen.
        full: of these, without any 255.
        silent: of 255 alone.
        bare: of 0 and 255, though the photograph shows a class.
    """

    folder: Path
    whole: bool
    count: int = 0
    full: int = 0
    silent: int = 0
    bare: int = 0

    def see(self, labels: np.ndarray, *, shows: bool) -> None:
        """Count a label map.

        Args:
            labels: class indices and 255, uint8 [H, W].
            shows: the photograph has a tag, or no photograph has one.
        """
        there = np.bincount(labels.ravel(), minlength=IGNORE + 1) > 0
        self.count += 1
        self.full += not there[IGNORE]
        if there[IGNORE] and not there[1:IGNORE].any():
            self.silent += not there[0]
            self.bare += bool(there[0]) and shows

    def refuse_odd(self) -> None:
        """Refuse label maps that all say no class, or, of labels that are no whole masks, all say something everywhere.

        Raises:
            DataError: with what 0 and 255 mean.
        """
        if self.count and self.silent + self.bare == self.count:
            held = "0 and 255 only" if self.bare else "255 only"
            raise DataError(
                f"{self.folder}: {self._maps()} {held}: are objects 255?",
                "write class indices: 0 background, 1, 2, ... the classes; 255 where nothing is said",
            )
        if self.count and not self.whole and self.full == self.count:
            raise DataError(
                f"{self.folder}: {self._maps()} no 255: all that is not drawn would be background",
                "write 255 where nothing is said, as 0 is the background; of whole masks, --kind mask",
            )

    def _maps(self) -> str:
        return "its one label map holds" if self.count == 1 else f"all {self.count:,} label maps hold"

    def lines(self) -> list[str]:
        """What is said of some that are odd beside others that are not."""
        lines = []
        if self.full and not self.whole:
            lines.append(f"{self.full:,} of {counted(self.count, 'label map')} hold no 255: all the rest is background")
        if odd := self.silent + self.bare:
            lines.append(f"{odd:,} of {counted(self.count, 'label map')} hold 255 and no class")
        return lines
