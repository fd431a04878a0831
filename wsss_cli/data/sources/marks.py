"""Marks that tools set on shapes, and that would change what these mean: they are not looked at, and so counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import Any

from wsss_cli.talk import counted

CROWD = "iscrowd"
MARKS = ("crowd", CROWD, "isgroupof", "ignore", "ignored", "difficult", "deleted", "outside", "isbbox")
INCOMPLETE = "not_exhaustive_category_ids"  # LVIS's, of an image on which not all of these are drawn


class Marks:
    """How many shapes, or images, have each of the marks that are set, and how many regions are upright rectangles."""

    def __init__(self) -> None:
        self.counts = Counter[str]()
        self.regions = self.upright = 0

    def see(self, fields: Mapping[str, Any], but: str = "") -> None:
        """Count the marks among the fields of a shape or an image: true or 1, also as text.

        Args:
            but: one that is looked at.
        """
        for name, value in fields.items():
            if _is_mark(name) and name != but and str(value).lower() in ("1", "1.0", "true", "yes"):
                self.counts[name] += 1
        if fields.get(INCOMPLETE):
            self.counts[INCOMPLETE] += 1
        if isinstance(attributes := fields.get("attributes"), dict):  # as CVAT has it in COCO's JSON
            self.see(attributes)

    def see_region(self, shape: Any) -> None:
        """Count a segmentation of COCO."""
        self.regions += 1
        self.upright += _is_upright(shape)

    def lines(self, name: str) -> list[str]:
        """What there is, in words: of marks, and of upright rectangles where they are half of all regions or more.

        Args:
            name: of the file.
        """
        lines = []
        if self.counts:
            which = ", ".join(f"{mark} of {count:,}" for mark, count in self.counts.items())
            lines.append(f"{name}: not looked at: {which}; what is so marked is taken as all the rest")
        if self.upright and 2 * self.upright >= self.regions:
            said = f"upright rectangles, as tools write boxes: {self.upright:,} of {counted(self.regions, 'region')}"
            lines.append(f"warning: {name}: {said}; of boxes wsss prepare labels --kind boxes makes labels")
        return lines


@cache
def _is_mark(name: str) -> bool:
    return name.lower().replace("_", "") in MARKS


def _is_upright(shape: Any) -> bool:
    """Whether a region is one polygon of four corners, whose sides are those of the photograph."""
    part = shape[0] if isinstance(shape, list) and len(shape) == 1 else ()
    if not isinstance(part, list) or len(part) not in (8, 10) or (len(part) == 10 and part[:2] != part[8:]):
        return False
    corners = list(zip(part[:8:2], part[1:8:2], strict=True))
    steps = [(a[0] == b[0], a[1] == b[1]) for a, b in zip(corners, corners[1:] + corners[:1], strict=True)]
    return steps in ([(True, False), (False, True)] * 2, [(False, True), (True, False)] * 2)
