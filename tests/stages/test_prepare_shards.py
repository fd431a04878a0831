"""`wsss prepare folder --shard`: several jobs look at one folder."""

import json

import numpy as np
import pytest
from command import wsss
from PIL import Image

from wsss_cli.data.masks import write_mask
from wsss_cli.data.sources import folder as folders
from wsss_cli.data.sources.folder import FolderSettings, folder_preparation, prepare_folder
from wsss_cli.data.sources.listed import FolderSource
from wsss_cli.engine.shards import Shard, shard_of
from wsss_cli.errors import BusyError, DataError, Preempted, UsageError
from wsss_cli.labels import voc_palette
from wsss_cli.locks import locked
from wsss_cli.stages import prepare_shards
from wsss_cli.stages.prepare_shards import prepare_shard

NAMES = [f"trip/p{number:02d}" for number in range(24)]
OF = [sum(shard_of(name, 3) == number for name in NAMES) for number in (1, 2, 3)]


@pytest.fixture
def source(tmp_path):
    (tmp_path / "photos" / "trip").mkdir(parents=True)
    for number, name in enumerate(NAMES):
        Image.new("RGB", (8 + number, 6)).save(tmp_path / "photos" / f"{name}.png")
        if number % 3:
            mask = np.full((6, 8 + number), 9 if number == 4 else number % 3, np.uint8)
            write_mask(tmp_path / "masks" / f"{name}.png", mask, voc_palette(3))
    (tmp_path / "photos" / "trip" / "p05.png").write_bytes(b"no image")
    rows = "".join(f"{name},{'cat|dog' if number % 2 else 'dog'}\n" for number, name in enumerate(NAMES))
    (tmp_path / "labels.csv").write_text(f"image,labels\n{rows}")
    return FolderSource(tmp_path / "photos", tmp_path / "labels.csv", tmp_path / "masks")


@pytest.fixture
def looked(monkeypatch):
    """Ids of the photographs that were looked at."""
    ids, look = [], folders.look
    monkeypatch.setattr(folders, "look", lambda row, count: [ids.append(row.id), look(row, count)][1])
    return ids


@pytest.fixture
def shard(source, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare_shards, "POLL_S", 0.05)

    def shard(number, of=3, settings=FolderSettings("mine"), source=source, **more):
        work = folder_preparation(source, tmp_path / "out", settings, check=lambda: None)
        return prepare_shard(work, tmp_path / "out", Shard(number, of), check=lambda: None, **more)

    return shard


def contents(folder):
    files = (file for file in folder.rglob("*") if file.is_file() and file.suffix != ".lock")
    return {name: file.read_bytes() for file in files if not (name := str(file.relative_to(folder))).startswith("sh")}


def test_shards_make_what_one_command_makes(source, shard, tmp_path, looked):
    assert all(OF)
    whole = prepare_folder(source, tmp_path / "whole", FolderSettings("mine"), check=lambda: None)
    assert len(whole.findings) == 2
    looked.clear()
    assert shard(2) is None
    assert not (tmp_path / "out" / "dataset.json").exists()
    assert shard(3) is None
    assert shard(3) is None  # once more: nothing to look at
    joined = shard(1)
    assert (joined.findings, joined.summary, joined.lines) == (whole.findings, whole.summary, whole.lines)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert sorted(looked) == NAMES
    assert not list((tmp_path / "out" / "shards").glob("*.json*l"))
    assert shard(2).dataset.fingerprint == whole.dataset.fingerprint  # a job that is started again
    assert sorted(looked) == NAMES


def test_a_shard_that_was_stopped_or_killed_goes_on(source, shard, tmp_path, looked):
    def stop(done, total):
        assert total == OF[0]
        if done == 3:
            raise Preempted("stopped")

    with pytest.raises(Preempted):
        shard(1, tick=stop)
    part = tmp_path / "out" / "shards" / "1-of-3.jsonl"
    assert len(part.read_text().splitlines()) == 4
    part.write_bytes(part.read_bytes() + b"[[6, ")  # as a kill leaves it
    for number in (1, 2, 3):
        joined = shard(number)
    assert sorted(looked) == NAMES
    prepare_folder(source, tmp_path / "whole", FolderSettings("mine"), check=lambda: None)
    assert joined is not None
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_what_was_seen_of_another_table_or_with_other_settings_is_left_out(source, shard, looked, capsys):
    shard(1)
    shard(2)
    assert shard(3, settings=FolderSettings("mine", seed=1)) is None
    assert "of another table, other files or other settings is left out" in capsys.readouterr().err
    source.table.write_text(source.table.read_text().replace("p03,cat|dog", "p03,cat"))
    looked.clear()
    assert [shard(number) is None for number in (1, 2, 3)] == [True, True, False]
    assert sorted(looked) == NAMES


def test_two_of_one_number_and_two_divisions_are_kept_apart(shard, tmp_path):
    shard(1)
    with pytest.raises(UsageError, match="is divided by 3; 1 of 3 shards are done; missing 2, 3"):
        shard(1, of=2)
    with locked(tmp_path / "out" / "shards" / "2-of-3.lock", "busy"):
        with pytest.raises(BusyError, match=r"shard 2/3 of .* is in use"):
            shard(2)
        with pytest.raises(UsageError, match="shard 2/3 is at work with another table"):
            shard(1, settings=FolderSettings("yours"))
        with pytest.raises(BusyError, match=r"shard 2/3 of .* is being looked at"):
            prepare_shards.refuse_at_work(tmp_path / "out")


def test_a_damaged_part_is_named_and_made_again(shard, tmp_path):
    shard(1)
    shard(2)
    part = tmp_path / "out" / "shards" / "2-of-3.jsonl"
    lines = part.read_text().splitlines(keepends=True)
    part.write_text("".join([*lines[:2], "{}\n", *lines[3:]]))
    with pytest.raises(DataError, match=r"2-of-3\.jsonl was damaged after line 2") as caught:
        shard(3)
    assert "--shard 2/3" in caught.value.hint
    assert shard(2) is not None


def test_parts_are_read_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare_shards, "BYTES", 5)
    (tmp_path / "part").write_text("head\none\ntwo three\n4\n")
    assert list(prepare_shards._lines(tmp_path / "part")) == [b"one", b"two three", b"4"]


def test_the_command_says_what_is_missing(source, tmp_path):
    def prepare(*options):
        return wsss(tmp_path, "prepare", "folder", "photos", "labels.csv", "--masks", "masks", "--out", "out", *options)

    first = prepare("--shard", "1/2", "--json")
    assert (first.returncode, json.loads(first.stdout)) == (0, {"dataset": "out", "shard": "1/2", "missing": [2]})
    assert "1 of 2 shards are done; missing 2" in first.stderr
    last = prepare("--shard", "2/2")
    assert last.returncode == 3
    assert "train 22, val 1; 2 classes and background" in last.stdout
    assert "photographs left out: 1" in last.stderr
    whole = contents(tmp_path / "out")
    assert prepare().returncode == 3
    assert contents(tmp_path / "out") == whole
