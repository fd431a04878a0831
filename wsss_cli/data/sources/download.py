"""Official archives: fetched with resume."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from wsss_cli.data.sources.archives import CHUNK, Archive, Fetched, Tell, check_archive, file_size, unpack
from wsss_cli.errors import DataError, WriteError
from wsss_cli.files import how_to_write, read_json, write_json
from wsss_cli.locks import locked

TIMEOUT_S = 60.0
ATTEMPTS = 6  # in a row without a new byte
PASSING = {408, 425, 429, 500, 502, 503, 504}  # answers that another try may change
RECORD = "downloads.json"


def fetch_archives(
    archives: Sequence[Archive],
    folder: Path,
    *,
    layout: str,
    tell: Tell = lambda title, done, total: None,
    pause: float = 1.0,
) -> list[Fetched]:
    """Fetch, check and unpack those archives whose files are not all there. An archive is removed once it is unpacked.

    An archive that lies in `folder` already is taken, and stays. What came is recorded in downloads.json. A call that
    was broken goes on where it stood.

    Args:
        layout: for the hint of errors: where else to look and what is expected where.
        tell: called with (what is done, bytes done, bytes in all).
        pause: seconds before the second try; doubled for each further one.
    Raises:
        DataError: an address is dead, an archive is damaged or has another checksum, or the disk has no room.
        BusyError: another process is fetching into the folder.
    """
    wanted = [archive for archive in archives if not all((folder / path).exists() for path in archive.makes)]
    if not wanted:
        return []
    done = []
    with _locked(folder):
        _refuse_small_disk(wanted, folder)
        for archive in wanted:
            path = folder / archive.name
            downloaded = not path.exists() or archive.name in _record(folder)
            if path.exists():
                fetched = check_archive(path, archive, tell, stays=True)
            else:
                fetched = fetch(archive, path, layout=layout, tell=tell, pause=pause)
            write_json(
                folder / RECORD,
                _record(folder) | {archive.name: {"url": archive.url, "size": fetched.size, "sha256": fetched.sha256}},
            )
            unpack(path, folder, archive.makes, tell, archive.unpacked)
            if downloaded:
                path.unlink()
            done.append(fetched)
    return done


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"cannot write {folder}: {error.strerror}", "choose another folder") from error
    with locked(folder / ".download.lock", f"{folder} is being fetched into"):
        yield


def _record(folder: Path) -> dict[str, Any]:
    if not (folder / RECORD).is_file():
        return {}
    record = read_json(folder / RECORD)
    return record if isinstance(record, dict) else {}


def _refuse_small_disk(archives: Sequence[Archive], folder: Path) -> None:
    """Each archive is removed before the next is fetched: what is needed is the peak, less what is there."""
    held = need = 0
    for archive in archives:
        there = max(file_size(folder / archive.name), file_size(_part(folder / archive.name)))
        need = max(need, held + max(0, archive.size - there) + archive.unpacked)
        held += archive.unpacked
    free = shutil.disk_usage(folder).free
    if free < need:
        raise WriteError(
            f"{folder} has {free / 1e9:.1f} GB free; {', '.join(archive.name for archive in archives)} need "
            f"{need / 1e9:.1f} GB until unpacked",
            "free space or choose another folder",
        )


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _state(path: Path) -> Path:
    return path.with_name(f"{path.name}.part.json")


class _Cut(Exception):
    """The connection failed or ended too soon; the message says how."""


def fetch(
    archive: Archive,
    target: Path,
    *,
    layout: str = "",
    tell: Tell = lambda title, done, total: None,
    pause: float = 1.0,
) -> Fetched:
    """Fetch a file. It grows as <target>.part and takes its name when it is whole and has the right checksum.

    A later call goes on where an earlier one was broken, if the server still has the same file (ETag, else
    Last-Modified, by If-Range); a server that knows no ranges sends it from the start. A file with another checksum is
    removed.

    Raises:
        DataError: the server says that there is no such file, or it was tried in vain, or the checksum is another;
            `layout` goes into the hint.
        WriteError: the disk is full.
    """
    url = archive.url
    part, failures, best = _part(target), 0, file_size(_part(target))
    while True:
        try:
            if _receive(archive, target, tell):
                break
            reason = "the connection was cut"
        except urllib.error.HTTPError as error:
            reason = f"HTTP {error.code} {error.reason}"
            error.close()
            if error.code not in PASSING:
                raise DataError(f"{url} cannot be fetched: {reason}", layout) from error
        except _Cut as error:
            reason = str(error)
        grown = file_size(part)
        failures, best = (0, grown) if grown > best else (failures + 1, best)
        if failures >= ATTEMPTS:
            raise DataError(
                f"{url} cannot be fetched: {reason} ({ATTEMPTS} tries)", f"run again to go on from here; or {layout}"
            )
        tell(f"{reason}; trying {target.name} again", grown, archive.size)
        time.sleep(pause * 2**failures)
    try:
        fetched = check_archive(part, archive, tell)
    except DataError:
        part.unlink(missing_ok=True)
        _state(target).unlink(missing_ok=True)
        raise
    part.replace(target)
    _state(target).unlink(missing_ok=True)
    return fetched


def _receive(archive: Archive, target: Path, tell: Tell) -> bool:
    """One try: ask for what is missing and add it to the part. Whether the part is whole.

    Raises:
        HTTPError, _Cut: the server refused, the connection failed.
    """
    url, part, state = archive.url, _part(target), _known(target, archive.url)
    start = file_size(part) if state else 0
    if state and state["total"] and start == state["total"]:
        return True
    headers = {"User-Agent": "wsss", "Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": state["validator"]}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S) as response:
            total, validator = _total(response, start), _validator(response)
            if response.status == 206 and (total is None or validator not in ("", state.get("validator"))):
                part.unlink(missing_ok=True)  # not what was asked for: from the start
                return False
            if response.status != 206:
                start, total = 0, int(response.headers.get("Content-Length") or 0)
                part.unlink(missing_ok=True)
                write_json(_state(target), {"url": url, "validator": validator, "total": total})
            _append(response, part, start, lambda done: tell(f"fetching {target.name}", done, total or archive.size))
            return not total or file_size(part) == total
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        error.close()
        part.unlink(missing_ok=True)  # the file is shorter than what is there: another one
        raise _Cut("the file on the server is another one now") from error
    except urllib.error.URLError as error:
        raise _Cut(str(error.reason)) from error
    except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
        raise _Cut(str(error) or type(error).__name__) from error


def _known(target: Path, url: str) -> dict[str, Any]:
    """What an earlier try noted of the file, if it can be gone on with."""
    if not file_size(_part(target)) or not _state(target).is_file():
        return {}
    try:
        state = read_json(_state(target))
    except DataError:
        return {}
    return state if isinstance(state, dict) and state.get("url") == url and state.get("validator") else {}


def _validator(response: Any) -> str:
    """What names this version of the file: a strong ETag, else its date."""
    etag = response.headers.get("ETag") or ""
    return etag if etag.startswith('"') else response.headers.get("Last-Modified") or ""


def _total(response: Any, start: int) -> int | None:
    """Bytes of the whole file by a Content-Range that begins at `start`."""
    content_range = (response.headers.get("Content-Range") or "").removeprefix("bytes ")
    span, _, total = content_range.partition("/")
    return int(total) if span.split("-")[0] == str(start) and total.isdigit() else None


def _append(response: IO[bytes], part: Path, start: int, report: Callable[[int], None]) -> None:
    try:
        with part.open("ab" if start else "wb") as file:
            report(start)
            while chunk := _read(response):
                file.write(chunk)
                file.flush()
                start += len(chunk)
                report(start)
    except OSError as error:  # those of the network are `_Cut`
        raise WriteError(f"cannot write {part}: {error.strerror}", how_to_write(error)) from error


def _read(response: IO[bytes]) -> bytes:
    try:
        return response.read(CHUNK)
    except http.client.IncompleteRead as error:
        return error.partial
    except (http.client.HTTPException, OSError) as error:
        raise _Cut(str(error) or type(error).__name__) from error
