"""Which items a shard has, which shard a command line or Slurm means, and what is said of those that are missing."""

import json

import pytest
from command import wsss

from wsss_cli.config.load import load_preset
from wsss_cli.engine.outputs import is_whole
from wsss_cli.engine.records import Inputs, read_record
from wsss_cli.engine.rundir import open_run, state_of
from wsss_cli.engine.shards import (
    Shard,
    ShardRecord,
    all_done,
    hold_to_division,
    how_many_done,
    parse_shard,
    read_shards,
    shard_of,
    shards_at_work,
    write_shard,
)
from wsss_cli.errors import BusyError, UsageError
from wsss_cli.locks import locked

INPUTS = Inputs(dataset="d", classes=(), colors=())
NAMES = [f"2007_{number:06}" for number in range(2000)]


def opened(path):
    return open_run(path, "cam", load_preset("toy"), "abc", INPUTS)


def note(path, number, of, state="done", items=1):
    write_shard(path, ShardRecord(number=number, of=of, state=state, items=items))


def test_every_item_is_in_one_shard_and_shards_are_even():
    shards = [Shard(number, 8) for number in range(1, 9)]
    counts = [sum(shard.has(name) for name in NAMES) for shard in shards]
    assert sum(counts) == len(NAMES)
    assert max(counts) < 1.25 * len(NAMES) / 8
    assert [shard_of("2007_000032", of) for of in (2, 3, 16)] == [2, 3, 12]  # another division would orphan records


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"ID": 3, "COUNT": 16, "MIN": 1, "MAX": 16}, Shard(3, 16)),
        ({"ID": 0, "COUNT": 4, "MIN": 0}, Shard(1, 4)),
        ({"ID": 6, "COUNT": 4, "MIN": 0, "MAX": 6, "STEP": 2}, Shard(4, 4)),
    ],
)
def test_the_task_of_an_array_is_a_shard(variables, expected):
    environment = {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in variables.items()}
    assert parse_shard("array", environment) == expected


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "SLURM_ARRAY_TASK_ID is not set"),
        ({"ID": 3, "MIN": 1}, "do not say which task this is: SLURM_ARRAY_TASK_COUNT is not set"),
        ({"ID": "x", "COUNT": 2, "MIN": 1}, "do not say which task this is: 'x' is no whole number"),
        ({"ID": 7, "COUNT": 2, "MIN": 3, "MAX": 7}, "no array without gaps"),
        ({"ID": 7, "COUNT": 2, "MIN": 3}, "no array without gaps"),
        ({"ID": 1, "COUNT": 2, "MIN": 0, "MAX": 2, "STEP": 2}, "no array without gaps"),
    ],
)
def test_an_array_that_is_no_division_is_refused(variables, message):
    environment = {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in variables.items()}
    with pytest.raises(UsageError, match=message):
        parse_shard("array", environment)


@pytest.mark.parametrize(
    "text", ["3", "0/4", "5/4", "-1/4", "a/b", "1/", "/4", "1/4/4", "²/4", "1/99999", "1/" + "9" * 5000]
)
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(UsageError, match="--shard"):
        parse_shard(text, {})


def test_missing_shards_are_named_and_a_damaged_record_counts_as_missing(tmp_path, capsys):
    for number in (1, 2, 4, 5, 6, 8):
        note(tmp_path, number, 8)
    note(tmp_path, 7, 8, state="working")
    assert how_many_done(read_shards(tmp_path), 8) == "6 of 8 shards are done; missing 3, 7"
    Shard(1, 8).file(tmp_path, "json").write_text("{")
    assert how_many_done(read_shards(tmp_path), 8) == "5 of 8 shards are done; missing 1, 3, 7"
    assert "counts as not done" in capsys.readouterr().err
    for number in (1, 3, 7):
        note(tmp_path, number, 8)
    assert all_done(read_shards(tmp_path))
    assert how_many_done(read_shards(tmp_path), 8) == "8 of 8 shards are done"
    assert how_many_done([], 10_000) == "0 of 10000 shards are done; missing 1 to 10000"
    assert how_many_done([], 2) == "0 of 2 shards are done; missing 1, 2"
    sparse = [ShardRecord(number=number, of=10_000, state="done") for number in range(2, 10_000, 2)]
    said = how_many_done(sparse, 10_000)
    assert said.endswith("missing 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, ... (5,001 in all)")


def test_a_run_is_divided_in_one_way_until_that_is_done(tmp_path):
    note(tmp_path, 1, 2)
    hold_to_division(tmp_path, Shard(2, 2))
    with pytest.raises(UsageError, match="is divided by 2; 1 of 2 shards are done; missing 2"):
        hold_to_division(tmp_path, Shard(1, 3))
    note(tmp_path, 2, 2)
    hold_to_division(tmp_path, Shard(1, 3))


def test_nobody_opens_the_run_for_himself_while_a_shard_is_at_work(tmp_path):
    path = tmp_path / "cam-toy-0"
    with opened(path):
        pass
    note(path, 2, 3, state="working")
    with locked(Shard(2, 3).file(path, "lock"), "busy"):
        assert shards_at_work(path) == [Shard(2, 3)]
        with pytest.raises(BusyError, match="at work: 2/3"), opened(path):
            pass
        assert state_of(path, read_record(path)) == "running"
    assert shards_at_work(path) == []
    with opened(path) as run:
        run.finish()
    assert "shards" not in (path / "outputs.json").read_text()
    assert is_whole(path)


def test_show_says_how_far_each_shard_is(tmp_path):
    path = tmp_path / "runs" / "cam-toy-0"
    with opened(path):
        pass
    mine = [name for name in NAMES[:20] if shard_of(name, 3) == 1]
    (path / "cams").mkdir()
    for name in mine[:2]:
        (path / "cams" / f"{name}.npz").write_bytes(b"")
    note(path, 1, 3, state="working", items=len(mine))
    note(path, 3, 3, items=0)
    shown = wsss(tmp_path, "runs", "show", "cam-toy-0").stdout
    rows = [line.split(maxsplit=2)[2] for line in shown.splitlines() if line.startswith("shard ")]
    assert rows == [f"killed, 2 of {len(mine)} images", "not begun", "done, 0 of 0 images"]
    assert "1 of 3 shards are done; missing 1, 2" in shown
    shards = json.loads(wsss(tmp_path, "runs", "show", "cam-toy-0", "--json").stdout)["shards"]
    assert [shard["state"] for shard in shards] == ["killed", None, "done"]
