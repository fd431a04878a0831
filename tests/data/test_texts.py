from __future__ import annotations

import random
from pathlib import Path

import pytest

from wsss_cli.data import texts
from wsss_cli.data.texts import Index, Spool, in_order_of
from wsss_cli.errors import WriteError

NAMES = [f"trip/{number} \u00fc.jpg" for number in range(1300)]


def test_texts_come_back_from_the_file_in_any_order(tmp_path: Path) -> None:
    spool = Spool(tmp_path, NAMES)
    assert not list(tmp_path.iterdir())  # the file has no name
    assert len(spool) == 1300
    assert list(spool) == NAMES
    assert (spool[0], spool[511], spool[512], spool[-1]) == (NAMES[0], NAMES[511], NAMES[512], NAMES[-1])
    assert list(spool[3:1000:7]) == NAMES[3:1000:7]
    assert list(spool.part(500, 520)) == NAMES[500:520]
    spool.append("\udcff")  # a name of a file that is no text
    assert (spool[1300], spool[1299], list(spool)[-1]) == ("\udcff", NAMES[-1], "\udcff")
    with pytest.raises(IndexError):
        spool[1301]


def test_a_folder_that_is_not_there_yet_is_left_so(tmp_path: Path) -> None:
    assert list(Spool(tmp_path / "a" / "b", ["x"])) == ["x"]
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_full_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write(self, data: bytes) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(texts, "unnamed_file", lambda folder: Full())
    with pytest.raises(WriteError, match=r"cannot write .*: No space left on device"):
        list(Spool(tmp_path, ["x"]))


def test_texts_are_known_by_their_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path, ["a.jpg", "A.jpg", "b.png", "b.jpg"])

    def keys(name: str) -> set[str]:
        return {name.casefold(), name.partition(".")[0]}

    assert [Index(spool, keys).find(key) for key in ("a.jpg", "b", "A", "c")] == [[0, 1], [2, 3], [1], []]
    monkeypatch.setattr(texts, "_high", lambda key: 0)  # as if all hashes were one
    assert [Index(spool, keys).find(key) for key in ("a.jpg", "b", "A", "c")] == [[0, 1], [2, 3], [1], []]
    assert Index(Spool(tmp_path), keys).find("a") == []


def test_texts_are_sorted_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "SORTED", 100)
    mixed = random.Random(0).sample(NAMES, len(NAMES))
    assert list(in_order_of(iter(mixed), tmp_path)) == sorted(NAMES)
    assert list(in_order_of([], tmp_path)) == []
