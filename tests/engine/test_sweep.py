import threading
from functools import partial

import pytest
import torch

from wsss_cli.config.load import load_preset
from wsss_cli.engine.context import Context
from wsss_cli.engine.records import Inputs
from wsss_cli.engine.rundir import open_run
from wsss_cli.engine.sweep import prefetch, sweep, sweep_processes
from wsss_cli.errors import DataError, Preempted, WriteError
from wsss_cli.files import read_json, write_json


@pytest.fixture
def run(tmp_path):
    with open_run(tmp_path / "run", "cam", load_preset("toy"), "x", Inputs(dataset="d", classes=(), colors=())) as run:
        yield run


@pytest.fixture
def ctx(tmp_path):
    return Context(torch.device("cpu"), tmp_path)


def test_prefetch_keeps_the_order_and_reads_ahead():
    began, go = [], threading.Event()

    def load(item):
        began.append(item)
        if item == 0:
            assert go.wait(10)
        elif item == 2:
            go.set()  # item 0 is still waited for
        return item * item

    assert list(prefetch(range(6), load, workers=3, ahead=3)) == [0, 1, 4, 9, 16, 25]
    assert sorted(began) == list(range(6))


def test_prefetch_passes_an_error_on():
    with pytest.raises(ZeroDivisionError):
        list(prefetch([1, 0], lambda item: 1 // item, 1, 1))


def swept(batches, run, ctx, load=str, compute=list, store=lambda made: None):
    return sweep(batches, load, compute, store, str, run, ctx, "title")


def test_a_sweep_names_what_it_lost(run, ctx):
    computed, stored = [], []

    def load(item):
        if item == "b":
            raise DataError("bad")
        return item.upper()

    def compute(loaded):
        computed.append(loaded)
        return [item * 2 for item in loaded]

    assert (
        swept([["a", "b"], ["c"], ["b"]], run, ctx, load, compute, stored.append) == [{"id": "b", "reason": "bad"}] * 2
    )
    assert computed == [["A"], ["C"]]
    assert sorted(stored) == ["AA", "CC"]
    assert "lost b: bad" in (run.path / "log.txt").read_text()


def test_a_sweep_stops_between_batches_and_stores_what_is_computed(run, ctx):
    stored = []

    def compute(loaded):
        ctx.stop.signal = 15
        return loaded

    with pytest.raises(Preempted):
        swept([["a"], ["b"]], run, ctx, compute=compute, store=stored.append)
    assert stored == ["a"]


def test_a_sweep_reads_ahead_and_writes_behind(run, ctx):
    read, written, go = [], threading.Event(), threading.Event()

    def load(item):
        read.append(item)
        return item

    def compute(loaded):
        if loaded == [1]:
            assert written.wait(10)  # the first batch is stored while the second is computed
            go.set()
        return loaded

    def store(made):
        if made == 0:
            written.set()
            assert go.wait(10)

    assert swept([[0], [1]], run, ctx, load, compute, store) == []
    assert sorted(read) == [0, 1]


def test_a_disk_that_is_full_ends_a_sweep(run, ctx):
    def fail(item):
        raise WriteError("no space")

    with pytest.raises(WriteError):
        swept([["a"]], run, ctx, load=fail)
    with pytest.raises(WriteError):
        swept([["a"]], run, ctx, store=fail)


def test_processes_go_on_after_a_bad_item_and_stop_at_a_full_disk(tmp_path, run, ctx):
    items = [tmp_path / f"{index}.json" for index in range(9)]
    for item in items:
        write_json(item, 1)
    items[4].write_text("{")
    lost = sweep_processes(items, read_json, lambda item: item.name, 2, run, ctx, "title")
    assert [entry["id"] for entry in lost] == ["4.json"]
    assert "not valid JSON" in lost[0]["reason"]
    (tmp_path / "file").touch()
    with pytest.raises(WriteError):
        sweep_processes([tmp_path / "file" / "x"], partial(write_json, value=1), str, 1, run, ctx, "title")
