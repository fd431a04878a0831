"""A data set directory that is written anew is none until all of it is there, and has one writer at a time."""

from pathlib import Path

import pytest

from wsss_cli.cli import prepare
from wsss_cli.data.dataset import open_dataset
from wsss_cli.data.sources import toy
from wsss_cli.errors import BusyError, DataError, Preempted
from wsss_cli.locks import locked


def drawn(out, seed=1, tick=lambda done, total: None):
    return toy.prepare_toy(out, images=4, val=1, seed=seed, size=32, tick=tick)


def test_what_is_stopped_half_way_is_no_data_set(tmp_path):
    before = drawn(tmp_path).fingerprint

    def stop(done, total):
        if done == 2:
            raise Preempted("stopped")

    with pytest.raises(Preempted):
        drawn(tmp_path, 2, stop)
    with pytest.raises(DataError, match=r"dataset\.json"):
        open_dataset(tmp_path)
    assert drawn(tmp_path).fingerprint == before


def test_what_killed_work_left_goes(tmp_path):
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "JPEGImages" / ".train_000000.jpg.abcd1234.part").touch()
    drawn(tmp_path)
    assert list(tmp_path.rglob(".*.part")) == []


def test_a_second_writer_is_refused(tmp_path):
    drawn(tmp_path)
    with locked(tmp_path / ".prepare.lock", "busy"), pytest.raises(BusyError, match="is being prepared"):
        prepare.toy(images=4, val=1, seed=2, size=32, out=tmp_path)
    assert open_dataset(tmp_path).fingerprint == drawn(tmp_path).fingerprint


def test_where_nothing_comes_of_it_nothing_is_left(tmp_path):
    with pytest.raises(DataError):
        prepare.folder(tmp_path / "photos", tmp_path / "none.csv", out=tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_a_place_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot create .*file/x: Not a directory"):
        prepare.toy(images=1, val=1, seed=0, size=32, out=Path(tmp_path / "file" / "x"))
