from __future__ import annotations

import os
from array import array
from pathlib import Path

import numpy as np
import pytest

from wsss_cli.data import packed, splits
from wsss_cli.data.packed import Packed, has_twins
from wsss_cli.data.splits import Split
from wsss_cli.errors import DataError, WriteError


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than ten numbers are many."""
    monkeypatch.setattr(packed, "LIMIT", 10)


def filled(folder: Path, count: int = 25) -> Packed:
    numbers = Packed("q", folder)
    for number in range(count):
        numbers.tail.append(-number)
        if number % 7 == 6:
            numbers.settle()
    return numbers


def test_many_numbers_are_mapped_from_a_file_without_a_name(tmp_path: Path, few: None) -> None:
    numbers = filled(tmp_path).numbers()
    assert isinstance(numbers, memoryview)
    assert list(numbers) == [-number for number in range(25)]
    assert (numbers[24], list(numbers[:2]), len(numbers)) == (-24, [0, -1], 25)
    assert np.frombuffer(numbers, np.int64).sum() == -300
    assert not list(tmp_path.iterdir())
    assert filled(tmp_path, 5).numbers() == array("q", [0, -1, -2, -3, -4])


def test_numbers_stay_in_memory_where_no_file_can_be(
    tmp_path: Path, few: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes = []

    def full(handle: int, data: bytes) -> int:
        writes.append(len(data))
        if len(writes) == 2:
            raise OSError(28, "No space left on device")
        return write(handle, data)

    write = os.write
    monkeypatch.setattr(os, "write", full)
    assert filled(tmp_path).numbers() == array("q", [-number for number in range(25)])
    assert writes == [14 * 8, 7 * 8]

    def refuse(folder: Path) -> None:
        raise WriteError("no")

    monkeypatch.setattr(packed, "unnamed_file", refuse)
    assert filled(tmp_path).numbers() == array("q", [-number for number in range(25)])


def test_numbers_that_occur_twice(few: None, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = array("q", np.random.default_rng(0).permutation(3 << 20).tolist())
    assert not has_twins(numbers)
    numbers[5] = numbers[-1]
    assert has_twins(numbers)
    assert has_twins(array("q", [1, 2, 1]))


def test_a_list_is_the_same_in_files_and_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "splits").mkdir()
    rows = [f"p{number},p{number}.jpg,{'m.png' if number % 3 else ''},cat,{number + 1},7\n" for number in range(40)]
    text = "id,image,mask,labels,width,height\n" + "".join(rows)
    (tmp_path / "splits" / "a.csv").write_text(text)
    plain = Split(tmp_path, "a", ["background", "cat"])
    monkeypatch.setattr(packed, "LIMIT", 10)
    monkeypatch.setattr(splits, "MANY", 4)
    mapped = Split(tmp_path, "a", ["background", "cat"])
    assert isinstance(mapped.hashes, memoryview)
    assert (mapped.sha256, list(mapped)) == (plain.sha256, list(plain))
    assert (list(mapped.sizes), list(mapped.masked)) == (list(plain.sizes), list(plain.masked))
    short = Split(tmp_path, "a", ["background", "cat"], 3)
    assert (len(short), list(short), len(short.sizes)) == (3, list(plain)[:3], 6)
    (tmp_path / "splits" / "a.csv").write_text(text)  # touched: its rows are compared
    assert mapped[39] == plain[39]
    (tmp_path / "splits" / "a.csv").write_text(text + rows[7])
    with pytest.raises(DataError, match="1 duplicate id: p7"):
        Split(tmp_path, "a", ["background", "cat"])
    unsized = "".join(f"p{number},p.jpg,,cat\n" for number in range(40))
    (tmp_path / "splits" / "a.csv").write_text(f"id,image,mask,labels\n{unsized}")
    mapped = Split(tmp_path, "a", ["background", "cat"])
    assert (len(mapped), len(mapped.sizes), mapped[38].size) == (40, 0, None)
