"""Folders that runs are made in."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from wsss_cli.errors import DataError
from wsss_cli.files import why_not_made


def make_folder(path: Path) -> None:
    """Make the folder of a run.

    Raises:
        DataError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _no_folder(path, why_not_made(path, error)) from error


def check_folder(path: Path) -> None:
    """Refuse a folder in which no run can be made, without making anything.

    Raises:
        DataError: a file is in its place, or nothing may be written there.
    """
    place = path.absolute()
    while not os.path.exists(place):  # noqa: PTH110 - pathlib's raises where a folder above is shut
        place = place.parent
    if not place.is_dir():
        raise _no_folder(path, f"{place} is no folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise _no_folder(path, os.strerror(errno.EACCES))


def _no_folder(path: Path, reason: str) -> DataError:
    return DataError(f"cannot create the run directory {path}: {reason}", "choose another place with --runs")
