"""Ids of images: what can be one, and names that are meant for a known one."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath

from wsss_cli.errors import DataError
from wsss_cli.talk import counted

PLAIN_ID = re.compile(r"[^\x00-\x1f/.][^\x00-\x1f.]*(\.[^\x00-\x1f.]+)*")  # those that need no second look


def check_id(name: str, where: str) -> str:
    """The id itself, if files can be named after it.

    Raises:
        DataError: it is empty, absolute, holds '..' or a control character; `where` goes into the message.
    """
    if PLAIN_ID.fullmatch(name):
        return name
    parts = PurePosixPath(name).parts
    if not name or name.startswith("/") or ".." in parts or any(ord(char) < 32 for char in name):
        raise DataError(
            f"{where}: {name!r} cannot be an id",
            "ids become file names: relative, not empty, without '..' and control characters",
        )
    return name


def refuse_duplicates(ids: Iterable[str], where: str) -> None:
    """Refuse ids that occur more than once.

    Raises:
        DataError: naming the first few.
    """
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise DataError(
            f"{where}: {counted(len(twice), 'duplicate id')}: {', '.join(twice[:5])}{' ...' if len(twice) > 5 else ''}",
            "every id may occur once; a photograph's is its name without the ending: a.png and a.jpg share one",
        )


def nearest(word: str, known: Iterable[str]) -> str:
    """'did you mean ...? ', or nothing where no known word is close."""
    matches = difflib.get_close_matches(word, known, n=1)
    return f"did you mean '{matches[0]}'? " if matches else ""
