"""FILE:PART, where a weight file holds more than one network. Nothing here loads torch."""

from __future__ import annotations

from pathlib import Path


def split_choice(path: str | Path) -> tuple[Path, str]:
    """The file, and the part of it that is meant, of FILE or FILE:PART; empty: nothing is said of a part.

    A path that exists is a file, whatever its name; so is one of which nothing exists.
    """
    path = Path(path)
    file, _, part = str(path).rpartition(":")
    if file and part and not path.exists() and Path(file).is_file():
        return Path(file), part
    return path, ""
