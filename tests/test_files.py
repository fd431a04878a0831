import errno
import hashlib
import os

import pytest

from wsss_cli import files
from wsss_cli.errors import DataError, UsageError, WriteError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_write_and_read_back(tmp_path):
    files.write_json(tmp_path / "new" / "a.json", {"é": [1, 2.5, None]})
    assert files.read_json(tmp_path / "new" / "a.json") == {"é": [1, 2.5, None]}
    files.write_text(tmp_path / "b", "first")
    files.write_text(tmp_path / "b", "zweiter ü")
    assert (tmp_path / "b").read_bytes() == b"zweiter \xc3\xbc"
    assert names(tmp_path) == ["b", "new"]


def test_the_file_has_the_rights_of_an_ordinary_file(tmp_path):
    old = os.umask(0o027)
    try:
        files.write_bytes(tmp_path / "a", b"x")
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("there", [True, False])
def test_a_full_disk_leaves_the_old_file_and_no_partial_one(tmp_path, monkeypatch, call, there):
    if there:
        (tmp_path / "a").write_bytes(b"old")

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(WriteError, match=r"cannot write .*a: No space left on device") as caught:
        files.write_bytes(tmp_path / "a", b"new")
    assert "free space" in caught.value.hint
    assert names(tmp_path) == (["a"] if there else [])
    if there:
        assert (tmp_path / "a").read_bytes() == b"old"


def test_a_disk_that_fills_up_while_writing_leaves_nothing(tmp_path):
    with pytest.raises(WriteError), files.whole_file(tmp_path / "a") as file:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert names(tmp_path) == []


def test_another_error_while_writing_passes_and_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), files.whole_file(tmp_path / "a") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_a_folder_that_is_a_file_is_an_error_with_the_path(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(WriteError, match="a/b"):
        files.write_bytes(tmp_path / "a" / "b", b"")


def test_nan_is_no_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "a", float("nan"))
    assert names(tmp_path) == []


@pytest.mark.parametrize("data", [b"", b'{"a": 1', b"\xff\xfe"])
def test_what_is_not_json_is_a_data_error(tmp_path, data):
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(DataError, match="not valid JSON"):
        files.read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"by": "hand"}\r\n')  # as editors of Windows save it
    assert files.read_json(tmp_path / "a.json") == {"by": "hand"}


def test_a_missing_file_is_a_data_error(tmp_path):
    for read in (files.read_json, files.sha256_file):
        with pytest.raises(DataError, match=r"cannot read .*nothing: No such file"):
            read(tmp_path / "nothing")


def test_sha256_of_a_file(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert files.sha256_file(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()


def test_links_to_folders_are_followed_and_those_to_a_folder_above_are_not(tmp_path):
    for name in ("photos/a.jpg", "photos/trip/b.jpg", "elsewhere/c.jpg", "elsewhere/deep/d.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    photos, elsewhere = tmp_path / "photos", tmp_path / "elsewhere"
    (photos / "link").symlink_to(elsewhere)
    (photos / "trip" / "up").symlink_to(photos)
    (elsewhere / "deep" / "round").symlink_to(photos)  # of two links: photos/link/deep/round is photos
    (photos / "gone").symlink_to(tmp_path / "nowhere")
    (photos / "self").symlink_to("self")
    below = sorted(path.relative_to(photos).as_posix() for path in files.files_below(photos))
    assert below == ["a.jpg", "gone", "link/c.jpg", "link/deep/d.jpg", "self", "trip/b.jpg"]


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def closed(path):
        if path == tmp_path / "closed":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(DataError, match=r"cannot read the folder .*/closed: Permission denied"):
        list(files.files_below(tmp_path))


def test_what_cannot_be_written_is_seen_before_the_work(tmp_path):
    files.write_text(tmp_path / "text", "")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    for name in ("text/a.csv", "text/new/a.csv", "nowhere/a.csv", "/proc/a.csv"):
        with pytest.raises(WriteError, match=f"cannot write .*{name}: "):
            files.refuse_unwritable(tmp_path / name)
    with pytest.raises(WriteError) as caught:
        files.refuse_unwritable(tmp_path / "text/a.csv", "copy it")
    assert caught.value.hint == "copy it"
    with pytest.raises(UsageError, match="is a folder"):
        files.refuse_unwritable(tmp_path)
    for name in ("a.csv", "text", "new/folder/a.csv"):
        files.refuse_unwritable(tmp_path / name)
    assert names(tmp_path) == ["nowhere", "text"]


def test_a_pattern_matches_what_is_hidden_only_where_it_says_so(tmp_path):
    for name in ("a.mp4", "._a.mp4", ".kept/b.mp4", "c/d.mp4", "c/._d.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def found(pattern):
        return [path.relative_to(tmp_path).as_posix() for path in files.matching(tmp_path, pattern)]

    assert found("*.mp4") == ["a.mp4"]
    assert found("**/*.mp4") == ["a.mp4", "c/d.mp4"]
    assert found(".*/*.mp4") == [".kept/b.mp4"]
    assert found(".*.mp4") == ["._a.mp4"]
