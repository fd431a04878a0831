"""The photographs of a folder, by the names that tables give them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from wsss_cli.data.dataset import nearest
from wsss_cli.data.heif import how_to_read
from wsss_cli.data.images import IMAGE_ENDINGS, why_unread
from wsss_cli.data.sources.tags import without_suffix
from wsss_cli.data.texts import Index, Spool
from wsss_cli.errors import DataError
from wsss_cli.files import names_below
from wsss_cli.processes import check_stop


class Photographs:
    """The image files of a folder and below; links to folders are followed.

    A name is recognised with or without its suffix, with the folder before it, with backslashes, in other case, without
    the space around it, and in composed or decomposed letters (NFC, NFD), as long as it means one file.

    Attributes:
        names: of the files below the folder, in no order; '/' between folders. 16 bytes of each are held.

    Args:
        room: a folder where names may lie meanwhile; where it is not there, the nearest above it.
    """

    def __init__(self, folder: Path, room: Path) -> None:
        if not folder.is_dir():
            raise DataError(f"{folder} is no folder", "give the folder that holds the photographs")
        self.folder = folder
        self.names, self._others = Spool(room), Spool(room)
        for name in names_below(folder):
            check_stop()
            image = Path(name).suffix.lower() in IMAGE_ENDINGS and (folder / name).is_file()
            (self.names if image else self._others).append(name)
        self._written = Index(self.names, lambda name: (name,))
        self._used = bytearray(len(self.names))
        self._homes = {_folded(folder.name), _folded(folder.resolve().name)}

    def find(self, written: str, where: str) -> str | None:
        """The name of the file that is meant, None where there is none; `where` is for the message.

        Raises:
            DataError: the name means several files.
        """
        numbers = self._written.find(written)
        for key in (written, *self._readings(written)) if not numbers else ():
            numbers = self._other_forms.find(key)
            if len(numbers) > 1:
                names = sorted((self.names[number] for number in numbers), key=by_folders)
                raise DataError(
                    f"{where}: {written!r} may be {' or '.join(names)}", "write the name of the file as it is"
                )
            if numbers:
                break
        if not numbers:
            return None
        self._used[numbers[0]] = 1
        return self.names[numbers[0]]

    def unused(self) -> Iterator[str]:
        """Names that `find` has not returned."""
        return (name for name, used in zip(self.names, self._used, strict=True) if not used)

    @cached_property
    def _other_forms(self) -> Index:
        """Names by what may be written for them: made once a table does not have a name as it is."""
        return Index(self.names, _forms)

    @cached_property
    def _unread(self) -> Index:
        return Index(self._others, lambda name: (_folded(name),))

    def _readings(self, written: str) -> list[str]:
        """The name folded, and what follows the folder's own name in it."""
        parts = [part for part in _folded(written).split("/") if part not in ("", ".")]
        starts = [at + 1 for at, part in enumerate(parts) if part in self._homes]
        return ["/".join(parts[start:]) for start in (0, *starts) if parts[start:]]

    def why_missing(self, written: str) -> str:
        """Why there is no such photograph: a hint, empty where nothing is like it."""
        readable = ", ".join(IMAGE_ENDINGS)
        for key in self._readings(written):
            for number in self._unread.find(key):
                ending = Path(self._others[number]).suffix or "a file without an ending"
                if ending.lower() in IMAGE_ENDINGS:
                    return f"it is there, but {why_unread(self.folder / self._others[number])}"
                return f"it is there, but {ending} is not read; {how_to_read([ending]) or f'{readable} are'}"
        stem = _folded(without_suffix(written))
        same = [number for key in self._readings(without_suffix(written)) for number in self._other_forms.find(key)]
        if stem != _folded(written) and same:
            names = sorted({self.names[number] for number in same}, key=by_folders)
            return f"there is {' and '.join(names[:3])}"
        return nearest(written, self.names).strip()


def by_folders(name: str) -> list[str]:
    """The key by which names with '/' between folders are sorted as paths are."""
    return name.split("/")


def _forms(name: str) -> set[str]:
    plain = without_suffix(name)
    whole = {name, plain, _folded(name), _folded(plain)}
    return whole | {form.strip() for form in whole}  # as tables have them


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name.replace("\\", "/")).casefold()
