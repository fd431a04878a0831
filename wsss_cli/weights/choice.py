"""FILE:PART, where a weight file holds more than one network. Nothing here loads torch."""

from __future__ import annotations

import re
from pathlib import Path

from wsss_cli.talk import shell_word


def split_choice(path: str | Path) -> tuple[Path, str]:
    """The file, and the part of it that is meant, of FILE or FILE:PART; empty: nothing is said of a part.

    A path that exists is a file, whatever its name; so is one of which nothing exists.
    """
    path = Path(path)
    file, _, part = str(path).rpartition(":")
    if file and part and not path.exists() and Path(file).is_file():
        return Path(file), part
    return path, ""


def with_file(advice: str, file: str | Path) -> str:
    """A line with a file in place of each FILE, as a shell takes it: alone, in FILE:PART, or behind KEY=.

    Args:
        file: also FILE:PART; a part of that is FILE:PART/INNER.
    """
    inner = "/" if split_choice(file)[1] else ":"

    def word(match: re.Match[str]) -> str:
        return shell_word(match[0].replace("FILE:", f"{file}{inner}").replace("FILE", str(file)))

    return re.sub(r"\S*FILE\S*", word, advice)
