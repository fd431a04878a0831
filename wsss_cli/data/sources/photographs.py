"""The photographs of a folder, by the names that tables give them."""

from __future__ import annotations

import unicodedata
from functools import cached_property
from pathlib import Path

from wsss_cli.data.dataset import nearest
from wsss_cli.data.images import IMAGE_ENDINGS
from wsss_cli.data.sources.tags import without_suffix
from wsss_cli.errors import DataError
from wsss_cli.files import files_below
from wsss_cli.processes import check_stop


class Photographs:
    """The image files of a folder and below; links to folders are followed.

    A name is recognised with or without its suffix, with the folder before it, with backslashes, in other case, and in
    composed or decomposed letters (NFC, NFD), as long as it means one file.

    Attributes:
        paths: file by name below the folder, sorted; '/' between folders.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise DataError(f"{folder} is no folder", "give the folder that holds the photographs")
        self.folder = folder
        self.paths: dict[str, Path] = {}
        self.others: dict[str, str] = {}
        for path in sorted(files_below(folder)):
            check_stop()
            name = path.relative_to(folder).as_posix()
            if path.suffix.lower() in IMAGE_ENDINGS and path.is_file():
                self.paths[name] = path
            else:
                self.others[_folded(name)] = path.suffix
        self._homes = {_folded(folder.name), _folded(folder.resolve().name)}

    def find(self, written: str, where: str) -> str | None:
        """The name of the file that is meant, None where there is none; `where` is for the message.

        Raises:
            DataError: the name means several files.
        """
        if written in self.paths:
            return written
        for key in (written, *self._readings(written)):
            meant = self._other_forms.get(key, [])
            if len(meant) > 1:
                raise DataError(
                    f"{where}: {written!r} may be {' or '.join(meant)}", "write the name of the file as it is"
                )
            if meant:
                return meant[0]
        return None

    @cached_property
    def _other_forms(self) -> dict[str, list[str]]:
        """Names by what may be written for them: made once a table does not have a name as it is."""
        forms: dict[str, list[str]] = {}
        for name in self.paths:
            for key in {name, without_suffix(name), _folded(name), _folded(without_suffix(name))}:
                forms.setdefault(key, []).append(name)
        return forms

    def _readings(self, written: str) -> list[str]:
        """The name folded, and what follows the folder's own name in it."""
        parts = [part for part in _folded(written).split("/") if part not in ("", ".")]
        starts = [at + 1 for at, part in enumerate(parts) if part in self._homes]
        return ["/".join(parts[start:]) for start in (0, *starts) if parts[start:]]

    def why_missing(self, written: str) -> str:
        """Why there is no such photograph: a hint, empty where nothing is like it."""
        for key in self._readings(written):
            if key in self.others:
                ending = self.others[key] or "a file without an ending"
                return f"it is there, but {ending} is not read; {', '.join(IMAGE_ENDINGS)} are"
        return nearest(written, self.paths).strip()


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name.replace("\\", "/")).casefold()
