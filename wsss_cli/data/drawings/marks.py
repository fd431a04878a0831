"""Marks that tools set on shapes, and that would change what these mean: they are not looked at, and so counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsss_cli.talk import say

MARKS = ("crowd", "iscrowd", "isgroupof", "ignore", "ignored", "difficult", "deleted", "outside", "isbbox")
INCOMPLETE = "not_exhaustive_category_ids"  # LVIS's, of an image on which not all of these are drawn


class Marks(Counter[str]):
    """How many shapes, or images, have each of the marks that are set."""

    def see(self, fields: Mapping[str, Any]) -> None:
        """Count the marks among the fields of a shape or an image: true or 1, also as text."""
        for name, value in fields.items():
            plain = name.lower().replace("_", "")
            self[name] += plain in MARKS and str(value).lower() in ("1", "1.0", "true", "yes")
        self[INCOMPLETE] += bool(fields.get(INCOMPLETE))

    def tell(self, path: Path) -> None:
        """Say which there are; nothing where there are none."""
        if self.total():
            which = ", ".join(f"{name} of {count:,}" for name, count in self.items() if count)
            say(f"{path.name}: not looked at: {which}; what is so marked is taken as all the rest")
