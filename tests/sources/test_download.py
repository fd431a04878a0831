"""Downloads from a server on this machine that breaks, forgets and lies as real ones do."""

from __future__ import annotations

import hashlib
import io
import resource
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from wsss_cli.data.sources import archives as archives_file
from wsss_cli.data.sources import download
from wsss_cli.data.sources.archives import Archive, Fetched, check_archive, unpack
from wsss_cli.data.sources.download import fetch, fetch_archives
from wsss_cli.errors import BusyError, DataError, WriteError
from wsss_cli.files import read_json
from wsss_cli.locks import locked

BODY = bytes(range(256)) * 40  # 10,240 bytes
PAUSE = 0.001


@dataclass
class Site:
    """What the server has and how it behaves; `asked` has the Range of each request."""

    files: dict[str, bytes]
    cuts: list[int] = field(default_factory=list)  # bytes after which each of the next answers breaks off
    etag: str | None = '"v1"'
    modified: str | None = None
    ranges: bool = True
    heeds_if_range: bool = True
    lengths: bool = True
    errors: list[int] = field(default_factory=list)
    asked: list[str | None] = field(default_factory=list)
    base: str = ""


class Handler(BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        site, asked = self.site, self.headers.get("Range")
        site.asked.append(asked)
        if site.errors:
            self.send_error(site.errors.pop(0))
            return
        body = site.files.get(self.path.lstrip("/"))
        if body is None:
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and site.ranges else 0
        same = self.headers.get("If-Range") in (site.etag, site.modified) or not site.heeds_if_range
        if start and same and start >= len(body):
            self.send_error(416)
            return
        start = start if same else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        for name, value in (("ETag", site.etag), ("Last-Modified", site.modified)):
            if value:
                self.send_header(name, value)
        if site.lengths:
            self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start : start + site.cuts.pop(0)] if site.cuts else body[start:])

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "CHUNK", 1000)
    site = Site({"data.bin": BODY})
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"site": site}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    site.base = f"http://127.0.0.1:{server.server_address[1]}"
    yield site
    server.shutdown()
    thread.join()
    server.server_close()


def _archive(site: Site, name: str = "data.bin", **changes: Any) -> Archive:
    return replace(Archive(f"{site.base}/{name}", len(site.files.get(name, b"")), 0, ("unpacked",)), **changes)


def _fetch(site: Site, target: Path, **changes: Any) -> None:
    fetch(_archive(site, **changes), target, layout="the layout", pause=PAUSE)
    assert target.read_bytes() == site.files["data.bin"]
    assert sorted(path.name for path in target.parent.iterdir()) == [target.name]  # no .part, no state


def _break_off(site: Site, target: Path, at: int) -> None:
    """Leave a part of `at` bytes behind, as a killed process does."""
    site.cuts = [at]
    site.errors = []
    original, calls = download._receive, []

    def receive(*arguments: Any) -> bool:
        if calls:
            raise KeyboardInterrupt
        calls.append(1)
        return original(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(download, "_receive", receive)
        with pytest.raises(KeyboardInterrupt):
            fetch(_archive(site), target, pause=PAUSE)
    assert target.with_name(f"{target.name}.part").stat().st_size == at
    site.asked.clear()


def test_a_file_comes_with_its_progress(site: Site, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    fetched = fetch(_archive(site), tmp_path / "x", tell=lambda *line: told.append(line))
    assert (tmp_path / "x").read_bytes() == BODY
    assert fetched == Fetched("data.bin", 10240, hashlib.sha256(BODY).hexdigest(), False)
    assert [line[1:] for line in told if line[0] == "fetching x"] == [
        (done, 10240) for done in (*range(0, 11000, 1000)[:11], 10240)
    ]
    assert told[-1] == ("checking data.bin", 10240, 10240)


@pytest.mark.parametrize("mark", [{}, {"etag": None, "modified": "Wed, 21 Oct 2015 07:28:00 GMT"}])
def test_a_cut_connection_goes_on_where_it_broke(site: Site, tmp_path: Path, mark: dict[str, Any]) -> None:
    vars(site).update(mark)
    site.cuts = [3500, 0, 4100]
    told: list[tuple[str, int, int]] = []
    fetch(_archive(site), tmp_path / "x", tell=lambda *line: told.append(line), pause=PAUSE)
    assert (tmp_path / "x").read_bytes() == BODY
    again = "the connection was cut; trying x again"
    assert [line for line in told if line[0] == again] == [(again, at, 10240) for at in (3500, 3500, 7600)]
    assert site.asked == [None, "bytes=3500-", "bytes=3500-", "bytes=7600-"]


def test_another_process_goes_on_too(site: Site, tmp_path: Path) -> None:
    _break_off(site, tmp_path / "x", 6000)
    _fetch(site, tmp_path / "x")
    assert site.asked == ["bytes=6000-"]


def test_a_part_that_was_whole_is_not_asked_for_again(site: Site, tmp_path: Path) -> None:
    _break_off(site, tmp_path / "x", 6000)
    (tmp_path / "x.part").write_bytes(BODY)
    _fetch(site, tmp_path / "x")
    assert site.asked == []


def test_a_server_without_ranges_sends_it_from_the_start(site: Site, tmp_path: Path) -> None:
    site.ranges, site.cuts = False, [3500]
    _fetch(site, tmp_path / "x")
    assert site.asked == [None, "bytes=3500-"]


def test_a_server_without_ranges_that_always_breaks_is_given_up(site: Site, tmp_path: Path) -> None:
    site.ranges, site.cuts = False, [3500] * 50
    with pytest.raises(DataError, match="6 tries"):
        _fetch(site, tmp_path / "x")
    assert len(site.asked) == 7  # the first brought something, six in a row nothing new


@pytest.mark.parametrize("heeds", [True, False])
def test_a_file_that_changed_on_the_server_is_fetched_anew(site: Site, tmp_path: Path, heeds: bool) -> None:
    _break_off(site, tmp_path / "x", 6000)
    site.files["data.bin"], site.etag, site.heeds_if_range = BODY[::-1], '"v2"', heeds
    _fetch(site, tmp_path / "x")  # asserts that it is not glued together from two versions
    assert site.asked == ["bytes=6000-"] if heeds else ["bytes=6000-", None]


def test_a_file_that_became_shorter_is_fetched_anew(site: Site, tmp_path: Path) -> None:
    _break_off(site, tmp_path / "x", 6000)
    site.files["data.bin"] = BODY[:5000]
    _fetch(site, tmp_path / "x")
    assert site.asked == ["bytes=6000-", None]


@pytest.mark.parametrize("mark", [{"etag": None}, {"etag": 'W/"weak"'}])
def test_without_a_mark_of_its_version_a_file_is_never_gone_on_with(
    site: Site, tmp_path: Path, mark: dict[str, Any]
) -> None:
    vars(site).update(mark)
    site.cuts = [3500]
    _fetch(site, tmp_path / "x")
    assert site.asked == [None, None]


def test_a_part_of_another_address_or_without_a_state_is_not_gone_on_with(site: Site, tmp_path: Path) -> None:
    _break_off(site, tmp_path / "x", 6000)
    site.files["other.bin"] = BODY[::-1]
    fetch(_archive(site, "other.bin"), tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == BODY[::-1]
    (tmp_path / "x").unlink()
    _break_off(site, tmp_path / "x", 6000)
    (tmp_path / "x.part.json").write_text("{")
    _fetch(site, tmp_path / "x")
    assert site.asked == [None]


def test_a_server_that_says_no_length(site: Site, tmp_path: Path) -> None:
    site.lengths = False
    _fetch(site, tmp_path / "x")


def test_passing_errors_are_tried_again_others_are_not(site: Site, tmp_path: Path) -> None:
    site.errors = [503, 500, 429]
    _fetch(site, tmp_path / "x")
    assert len(site.asked) == 4
    for code in (403, 404, 410):
        site.errors, site.asked = [code], []
        with pytest.raises(DataError, match=f"data.bin cannot be fetched: HTTP {code}") as caught:
            _fetch(site, tmp_path / "y")
        assert (caught.value.hint, len(site.asked)) == ("the layout", 1)


def test_no_server_at_all(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(download.time, "sleep", waits.append)
    archive = replace(_archive(site), url="http://127.0.0.1:9/data.bin")  # nobody listens to port 9
    with pytest.raises(DataError, match="6 tries") as caught:
        fetch(archive, tmp_path / "x", layout="the layout", pause=1.0)
    assert "the layout" in caught.value.hint
    assert waits == [2.0, 4.0, 8.0, 16.0, 32.0]


def test_a_corrupted_byte_is_noticed_and_the_file_removed(site: Site, tmp_path: Path) -> None:
    right = {"md5": hashlib.md5(BODY).hexdigest(), "sha256": hashlib.sha256(BODY).hexdigest()}
    _fetch(site, tmp_path / "x", **right)
    (tmp_path / "x").unlink()
    site.files["data.bin"] = BODY[:5000] + b"\xff" + BODY[5001:]
    assert site.files["data.bin"] != BODY
    for kind, digest in right.items():
        with pytest.raises(DataError, match=f"is damaged or another file: its .* not {digest}") as caught:
            fetch(_archive(site, **{kind: digest}), tmp_path / "x")
        assert "fetch it anew" in caught.value.hint
        assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named_and_what_came_is_kept(site: Site, tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))  # stands for a disk with room for 4,000 bytes
    try:
        with pytest.raises(WriteError, match=r"cannot write .*x\.part") as caught:
            fetch(_archive(site), tmp_path / "x")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "free space" in caught.value.hint
    _fetch(site, tmp_path / "x")
    assert site.asked == [None, "bytes=4000-"]


# -- unpacking ---------------------------------------------------------------------------------------------------------

FILES = {"top/a.txt": b"a" * 3000, "top/sub/b.txt": b"b", "other/c.txt": b"c"}


def _zip(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


class Odd(NamedTuple):
    name: str
    kind: bytes
    target: str = ""


def _tar(files: dict[str, bytes], *odd: Odd, mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for member in odd:
            info = tarfile.TarInfo(member.name)
            info.type, info.linkname = member.kind, member.target
            archive.addfile(info)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("data", [_zip(FILES), _tar(FILES), _tar(FILES, mode="w")], ids=["zip", "tgz", "tar"])
def test_what_is_wanted_is_unpacked(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "archive").write_bytes(data)
    told: list[tuple[str, int, int]] = []
    unpack(tmp_path / "archive", tmp_path / "to", ["top"], lambda *line: told.append(line))
    assert _tree(tmp_path / "to") == {"top/a.txt": b"a" * 3000, "top/sub/b.txt": b"b"}
    assert told[-1] == ("unpacking archive", len(data), len(data))
    unpack(tmp_path / "archive", tmp_path / "to", ["other/c.txt"])
    assert sorted(_tree(tmp_path / "to")) == ["other/c.txt", "top/a.txt", "top/sub/b.txt"]
    assert sorted(path.name for path in (tmp_path / "to").iterdir()) == ["other", "top"]  # nothing left over


@pytest.mark.parametrize("name", ["../evil.txt", "top/../../evil.txt", "/tmp/evil.txt", "top/..", "top/a\nb"])
@pytest.mark.parametrize("make", [_zip, _tar])
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path: Path, make: Any, name: str) -> None:
    (tmp_path / "archive").write_bytes(make({name: b"evil", **FILES}))
    with pytest.raises(DataError, match="leads out of the folder"):
        unpack(tmp_path / "archive", tmp_path / "to", ["top"])
    assert sorted(_tree(tmp_path)) == ["archive"]


def test_links_and_devices_are_not_made(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    odd = [
        Odd("top/link", tarfile.SYMTYPE, str(tmp_path)),
        Odd("top/hard", tarfile.LNKTYPE, "../../secret"),
        Odd("top/device", tarfile.CHRTYPE),
        Odd("top/pipe", tarfile.FIFOTYPE),
    ]
    (tmp_path / "archive").write_bytes(_tar({"top/link/evil.txt": b"below a folder of its own", **FILES}, *odd))
    unpack(tmp_path / "archive", tmp_path / "to", ["top"])
    assert sorted(_tree(tmp_path / "to")) == ["top/a.txt", "top/link/evil.txt", "top/sub/b.txt"]
    assert not any(path.is_symlink() for path in (tmp_path / "to").rglob("*"))
    assert not (tmp_path / "evil.txt").exists()
    linked = zipfile.ZipInfo("top/link")
    linked.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:
        archive.writestr(linked, "/etc/passwd")
        archive.writestr("top/a.txt", "a")
    unpack(tmp_path / "zip", tmp_path / "zipped", ["top"])
    assert sorted(_tree(tmp_path / "zipped")) == ["top/a.txt"]


def _broken_zip() -> bytes:
    data = _zip(FILES)
    return data[:45] + bytes([data[45] ^ 255]) + data[46:]


@pytest.mark.parametrize(
    "data",
    [b"", b"<html>moved</html>", _tar(FILES)[:60], _tar(FILES, mode="w")[:1500], _broken_zip(), _zip(FILES)[:-30]],
    ids=["empty", "a page", "gzip cut off", "tar cut off", "zip with a wrong sum", "zip cut off"],
)
def test_a_damaged_archive_is_named_and_leaves_nothing(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "archive").write_bytes(data)
    with pytest.raises(DataError, match=r"archive (cannot be unpacked|holds no top)") as caught:
        unpack(tmp_path / "archive", tmp_path / "to", ["top"])
    assert "run again" in caught.value.hint
    assert _tree(tmp_path / "to") == {}


def test_an_archive_without_what_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(_zip(FILES))
    with pytest.raises(DataError, match="holds no train2014"):
        unpack(tmp_path / "archive", tmp_path / "to", ["top", "train2014"])
    assert _tree(tmp_path / "to") == {}


# -- all together ------------------------------------------------------------------------------------------------------


@pytest.fixture
def archives(site: Site) -> list[Archive]:
    site.files |= {"a.zip": _zip(FILES), "b.tgz": _tar({"b/x": b"x"})}
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in site.files.items()}
    return [
        Archive(f"{site.base}/a.zip", len(site.files["a.zip"]), 3001, ("top", "other/c.txt"), sha256=sums["a.zip"]),
        Archive(f"{site.base}/b.tgz", len(site.files["b.tgz"]), 1, ("b",)),
    ]


def _fetch_all(archives: list[Archive], folder: Path) -> list[Fetched]:
    return fetch_archives(archives, folder, layout="the layout", pause=PAUSE)


def test_archives_are_fetched_once_and_recorded(site: Site, archives: list[Archive], tmp_path: Path) -> None:
    fetched = _fetch_all(archives, tmp_path / "to")
    assert [(one.name, one.compared) for one in fetched] == [("a.zip", True), ("b.tgz", False)]
    there = {path for path in _tree(tmp_path / "to") if not path.startswith(".")}
    assert there == {"top/a.txt", "top/sub/b.txt", "other/c.txt", "b/x", "downloads.json"}
    assert read_json(tmp_path / "to" / "downloads.json")["b.tgz"] == {
        "url": f"{site.base}/b.tgz",
        "size": len(site.files["b.tgz"]),
        "sha256": hashlib.sha256(site.files["b.tgz"]).hexdigest(),
    }
    assert _fetch_all(archives, tmp_path / "to") == []
    assert len(site.asked) == 2
    shutil.rmtree(tmp_path / "to" / "b")
    assert [one.name for one in _fetch_all(archives, tmp_path / "to")] == ["b.tgz"]


def test_an_archive_that_lies_there_is_taken_and_stays(site: Site, archives: list[Archive], tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(site.files["a.zip"])
    _fetch_all(archives, tmp_path)
    assert len(site.asked) == 1
    assert (tmp_path / "a.zip").is_file()
    assert not (tmp_path / "b.tgz").exists()
    assert (tmp_path / "top" / "a.txt").is_file()


def test_a_wrong_archive_that_lies_there_is_refused_and_stays(archives: list[Archive], tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(_zip({"top/x": b"another"}))
    with pytest.raises(DataError, match=rf"^{tmp_path}/a\.zip .* another file") as caught:
        _fetch_all(archives, tmp_path)
    assert caught.value.hint.startswith("remove it, and the same command fetches it")  # "run again" would not
    assert (tmp_path / "a.zip").is_file()
    assert not (tmp_path / "top").exists()


def test_unpacking_that_was_broken_is_done_again(
    site: Site, archives: list[Archive], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(download, "unpack", killed)
        with pytest.raises(KeyboardInterrupt):
            _fetch_all(archives, tmp_path)
    assert (tmp_path / "a.zip").is_file()
    (tmp_path / ".a.zip.unpacking" / "top").mkdir(parents=True)
    (tmp_path / ".a.zip.unpacking" / "top" / "torn").write_text("x")
    _fetch_all(archives, tmp_path)
    assert len(site.asked) == 2
    assert sorted(path.name for path in (tmp_path / "top").iterdir()) == ["a.txt", "sub"]
    assert not (tmp_path / "a.zip").exists()  # it was fetched, not the user's own


def test_the_disk_must_have_room_before_anything_is_fetched(
    site: Site, archives: list[Archive], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [archive.size for archive in archives]
    need = max(sizes[0] + 3001, 3001 + sizes[1] + 1)
    for free, enough in ((need - 1, False), (need, True)):
        monkeypatch.setattr(download.shutil, "disk_usage", lambda path, free=free: _Usage(free))
        if enough:
            assert len(_fetch_all(archives, tmp_path)) == 2
            continue
        with pytest.raises(WriteError, match=r"0\.0 GB free; a\.zip, b\.tgz need"):
            _fetch_all(archives, tmp_path)
        assert site.asked == []


class _Usage(NamedTuple):
    free: int


def test_a_second_process_is_turned_away(archives: list[Archive], tmp_path: Path) -> None:
    with locked(tmp_path / ".download.lock", ""), pytest.raises(BusyError, match="being fetched into by another pro"):
        _fetch_all(archives, tmp_path)
    assert len(_fetch_all(archives, tmp_path)) == 2


def test_check_archive_of_a_missing_file(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read"):
        check_archive(tmp_path / "nowhere", _archive(site))


@pytest.mark.parametrize("kind", ["zip", "gztar"])
def test_an_archive_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(archives_file, "SMALLEST_CAP", 1000)
    (tmp_path / "from" / "top").mkdir(parents=True)
    for name in ("a", "b"):
        (tmp_path / "from" / "top" / name).write_bytes(bytes(600))
    packed = Path(shutil.make_archive(str(tmp_path / "archive"), kind, tmp_path / "from"))
    with pytest.raises(DataError, match="unpacks to more than 1,198 bytes"):
        unpack(packed, tmp_path / "to", ["top"], expected=599)
    assert not any((tmp_path / "to").iterdir())
    unpack(packed, tmp_path / "to", ["top"], expected=600)
    assert (tmp_path / "to" / "top" / "b").stat().st_size == 600
