"""Files appear whole or not at all: write beside the target, flush to disk, rename over it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from wsss_cli.errors import DataError, UsageError, WriteError


def at_home(path: str) -> str:
    """A path whose first part is ~ below the user's home folder, any other as it is: shells leave it behind a '='.

    Raises:
        UsageError: there is no home folder.
    """
    if path != "~" and not path.startswith("~/"):
        return path
    try:
        return str(Path(path).expanduser())
    except RuntimeError:
        raise UsageError(f"{path}: where ~ is cannot be told, as $HOME is not set", "write the path whole") from None


def why_not_made(path: Path, error: OSError) -> str:
    """Why a folder could not be made: of a link to nothing the system says that it is there."""
    if path.is_symlink() and not path.exists():
        return f"it is a link to {path.readlink()}, which is not there"
    return str(error.strerror)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file in the folder of `path`; on leaving without an error it takes the place of `path`.

    Raises:
        WriteError: the disk is full, or the folder cannot be written; nothing is left behind.
    """
    path = Path(path)
    partial = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:80]}.", suffix=".part")
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(partial).chmod(0o666 & ~_umask())
        Path(partial).replace(path)
        partial = None
    except OSError as error:
        reason = error.strerror or str(error)
        hint = "free space or choose another folder, then run again"
        raise WriteError(f"cannot write {path}: {reason}", hint) from error
    finally:
        if partial is not None:
            with contextlib.suppress(OSError):
                Path(partial).unlink()


ENDS = {".png": b"IEND\xaeB`\x82", ".npz": b"PK\x05\x06"}  # ISO/IEC 15948, 11.2.5; APPNOTE.TXT of PKWARE, 4.3.16


def is_cut_off(path: Path) -> bool:
    """Whether a file that is there is empty, or a PNG or NPZ without its end, as a copy that broke off leaves it."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 4096))  # programs may write more behind the end
            return not size or ENDS.get(path.suffix, b"") not in file.read()
    except OSError:
        return False  # whoever reads it says why


def refuse_unwritable(file: Path, hint: str = "choose another place") -> None:
    """See, before work begins whose result is to be `file`, that it can be written. Nothing is made.

    Args:
        hint: what helps where it cannot.
    Raises:
        UsageError: it is a folder.
        WriteError: the folder that it is to lie in cannot be made or written.
    """
    if Path(file).is_dir():
        raise UsageError(f"{file} is a folder", "give the name of a file, in it or elsewhere")
    place = next(above for above in Path(file).absolute().parents if os.path.lexists(above))
    try:
        tempfile.TemporaryFile(dir=place, prefix=".", suffix=".part").close()
    except OSError as error:
        raise WriteError(f"cannot write {file}: {place}: {error.strerror}", hint) from error


def remove_temporaries(folder: Path) -> None:
    """Remove what killed work has left half written. Nobody else may be at work in the folder."""
    pending = [str(folder)]
    while pending:
        with contextlib.suppress(OSError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                inside = entry.is_dir(follow_symlinks=False)
                if entry.name.startswith(".") and entry.name.endswith(".part"):
                    if inside:
                        shutil.rmtree(entry.path, ignore_errors=True)
                    else:
                        Path(entry.path).unlink(missing_ok=True)
                elif inside:
                    pending.append(entry.path)


def unnamed_file(folder: Path) -> BinaryIO:
    """An empty file without a name, to write and to read: gone with this process, however that ends.

    Args:
        folder: where it takes room; where it is not there yet, in the nearest one above it that is, and where that
            cannot be written, in the one for temporary files.
    Raises:
        WriteError: nothing can be written in either.
    """
    place = Path(folder).absolute()
    place = next(above for above in (place, *place.parents) if above.is_dir())
    reason: OSError | None = None
    for room in (place, None):
        try:
            return cast("BinaryIO", tempfile.TemporaryFile(dir=room, prefix=".", suffix=".part"))
        except OSError as error:
            reason = reason or error
    said = reason.strerror or str(reason) if reason else ""
    raise WriteError(f"cannot write {place}: {said}", "free space or choose another folder") from reason


def files_below(folder: Path) -> Iterator[Path]:
    """All that a folder and those below it hold but folders, in no order: files, pipes, links that lead nowhere.

    Links to folders are followed, but for those to a folder that they lie in, which would have no end.

    Raises:
        DataError: a folder cannot be read.
    """
    return (Path(folder) / name for name in names_below(folder))


def names_below(folder: Path) -> Iterator[str]:
    """What `files_below` says, as names below the folder, with '/' between folders: texts take less than paths.

    Raises:
        DataError: a folder cannot be read.
    """
    pending: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    while pending:
        above, ways = pending.pop()
        place = Path(folder) / above
        try:
            status = place.stat()
            if (status.st_dev, status.st_ino) in ways:
                continue
            ways |= {(status.st_dev, status.st_ino)}
            with os.scandir(place) as entries:
                for entry in entries:
                    if _is_folder(entry):
                        pending.append((f"{above}{entry.name}/", ways))
                    else:
                        yield above + entry.name
        except OSError as error:
            hint = "make it readable, or move it elsewhere"
            raise DataError(f"cannot read the folder {place}: {error.strerror}", hint) from error


def pngs_below(folder: Path) -> Iterator[str]:
    """Of `names_below` those of PNGs; none of hidden folders, nor macOS's ._NAME.

    Raises:
        DataError: a folder cannot be read.
    """
    for name in names_below(folder):
        *above, last = name.split("/")
        hidden = last.startswith("._") or any(part.startswith(".") for part in above)
        if last[-4:].lower() == ".png" and last != last[-4:] and not hidden:
            yield name


def is_hidden(name: str) -> bool:
    """Whether a file or one of the folders of a name below a folder is hidden: macOS's ._1.jpg, .ipynb_checkpoints."""
    if not name.startswith(".") and "/." not in name:
        return False
    return any(part.startswith(".") and part != ".." for part in name.split("/"))


def matching(folder: Path, pattern: str) -> list[Path]:
    """What a glob pattern matches in a folder, sorted; as in a shell what is hidden only where the pattern says so."""
    matches = sorted(Path(folder).glob(pattern))
    if is_hidden(pattern):
        return matches
    return [each for each in matches if not is_hidden(each.relative_to(folder).as_posix())]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """As `Path.is_dir`, which asks the disk each time: links in a circle lead to no folder."""
    return entry.is_dir() if not entry.is_symlink() else Path(entry.path).is_dir()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all."""
    with whole_file(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON to `path`, whole or not at all. NaN is refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def refuse_named_pipe(path: Path) -> None:
    """Refuse a pipe that lies in a folder: opening it waits until something writes, and no signal ends that.

    Raises:
        DataError: it is one. What a shell hands over as `<(...)` is none: it is written already.
    """
    if path.is_fifo() and not path.is_symlink():
        raise DataError(f"{path} is a named pipe", "write what it gives into a file, and name that")


def how_to_write(error: OSError) -> str:
    """What helps where a file cannot be written: a hint."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE):
        return "its folder is gone: was it moved or removed meanwhile? put it back, or run again to begin anew"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "make it writable, then run again"
    return "free space, then run again"


def how_to_read(error: OSError) -> str:
    """What helps where a file cannot be read: a hint."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return "make it readable, and the folders above it"
    if error.errno in (errno.EIO, errno.ESTALE):
        return "see whether its disk answers, then run again"
    return "check the path"


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: the file is missing, a named pipe, or not JSON.
    """
    refuse_named_pipe(Path(path))
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON: {error}", "write it anew with the command that made it") from error


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file of one each line; a line that was cut off, as by a kill while writing, is left out."""
    if path.is_file():
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                with contextlib.suppress(ValueError, RecursionError):
                    entry = json.loads(line)
                    if isinstance(entry, dict):
                        yield entry


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
