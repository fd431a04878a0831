"""Archives: what is wanted of one, whether it is the right one, and unpacking it whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from wsss_cli.errors import DataError, WriteError

CHUNK = 1 << 20
SMALLEST_CAP = 1 << 30
NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM}

Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Archive:
    """An archive to fetch: where from, what it weighs, and which of its files are wanted.

    Args:
        size: bytes of the archive.
        unpacked: bytes of what is wanted of it.
        makes: the files and folders wanted, as they are called in the archive; they become paths below the folder.
        md5: of the archive, hexadecimal; empty if it is not known.
        sha256: likewise.
    """

    url: str
    size: int
    unpacked: int
    makes: tuple[str, ...]
    md5: str = ""
    sha256: str = ""

    @property
    def name(self) -> str:
        """File name of the archive."""
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Fetched:
    """What came: bytes and SHA-256 of an archive, and whether it was compared with a known checksum."""

    name: str
    size: int
    sha256: str
    compared: bool


def file_size(path: Path) -> int:
    """Bytes of a file; 0 where there is none."""
    return path.stat().st_size if path.is_file() else 0


def check_archive(
    path: Path, archive: Archive, tell: Tell = lambda title, done, total: None, *, stays: bool = False
) -> Fetched:
    """Size and SHA-256 of an archive.

    Args:
        stays: it is not removed where it is a wrong one, so that the same command does not fetch it; for the hint.
    Raises:
        DataError: it cannot be read, or has not the checksum of `archive`.
    """
    md5, sha256, done, size = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0, file_size(path)
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                md5.update(chunk)
                sha256.update(chunk)
                done += len(chunk)
                tell(f"checking {archive.name}", done, size)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    for kind, wanted, digest in (("MD5", archive.md5, md5), ("SHA-256", archive.sha256, sha256)):
        if wanted and digest.hexdigest() != wanted:
            raise DataError(
                f"{path if stays else f'{archive.name} from {archive.url}'} is damaged or another file: "
                f"its {kind} is {digest.hexdigest()}, not {wanted} ({size:,} bytes, not {archive.size:,})",
                "remove it, and the same command fetches it; or put the right one in its place"
                if stays
                else "run again to fetch it anew; if that does not help, fetch and unpack it by hand",
            )
    return Fetched(archive.name, size, sha256.hexdigest(), bool(archive.md5 or archive.sha256))


def unpack(
    path: Path,
    folder: Path,
    makes: Sequence[str],
    tell: Tell = lambda title, done, total: None,
    expected: int = 0,
) -> None:
    """Unpack the files and folders `makes` of a tar or zip archive into `folder`; each appears whole or not at all.

    Only plain files are made: links and devices in an archive are passed over.

    Args:
        expected: bytes of what is wanted; twice as many, or 1 GiB, is the most that is unpacked.
    Raises:
        DataError: it is no archive, is damaged, lacks what is wanted, or a name in it leads out of the folder.
        WriteError: the disk is full.
    """
    staging = folder / f".{path.name}.unpacking"
    size, cap = max(1, file_size(path)), max(2 * expected, SMALLEST_CAP)
    room = cap
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        for name, at, source in _files(path):
            if not any(name == wanted or name.startswith(f"{wanted}/") for wanted in makes):
                continue
            target = staging / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with source() as reader, target.open("xb") as writer:
                while chunk := reader.read(CHUNK):
                    room -= len(chunk)
                    if room < 0:
                        raise DataError(
                            f"{path} unpacks to more than {cap:,} bytes",
                            "do not trust this archive; remove it and run again",
                        )
                    writer.write(chunk)
            tell(f"unpacking {path.name}", min(at, size), size)
        tell(f"unpacking {path.name}", size, size)
        missing = [wanted for wanted in makes if not (staging / wanted).exists()]
        if missing:
            raise DataError(f"{path} holds no {missing[0]}", "is it the right archive? remove it and run again")
        for wanted in makes:
            if not (folder / wanted).exists():
                (folder / wanted).parent.mkdir(parents=True, exist_ok=True)
                (staging / wanted).replace(folder / wanted)
    except OSError as error:
        if error.errno in NO_SPACE:
            raise WriteError(
                f"cannot write {folder}: {error.strerror}", "free space or choose another folder"
            ) from error
        raise DataError(f"{path} cannot be unpacked: {error}", "remove it and run again") from error
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
        raise DataError(f"{path} cannot be unpacked: {error}", "remove it and run again") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _files(path: Path) -> Iterator[tuple[str, int, Callable[[], IO[bytes]]]]:
    """Name, bytes of the archive up to there, and opener of each plain file in an archive."""
    if zipfile.is_zipfile(path):
        at = 0
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                at += info.compress_size
                kind = info.external_attr >> 28  # of the Unix mode: 8 is a plain file, 0 not said
                name = _safe(info.filename, path)
                if not info.is_dir() and kind in (0, 8):
                    yield name, at, lambda info=info: archive.open(info)  # type: ignore[misc]
        return
    with path.open("rb") as raw, tarfile.open(fileobj=raw, mode="r:*") as tar:
        for member in tar:
            name = _safe(member.name, path)
            if member.isreg():
                yield name, raw.tell(), lambda member=member: tar.extractfile(member)  # type: ignore[misc]


def _safe(name: str, path: Path) -> str:
    """The name without './' if it stays below the folder."""
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or any(ord(char) < 32 for char in name):
        raise DataError(f"{path} holds the name {name!r}, which leads out of the folder", "do not trust this archive")
    return "/".join(parts)
