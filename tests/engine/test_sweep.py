import threading
from functools import partial

import pytest
import torch

from wsss_cli.config.load import load_preset
from wsss_cli.engine.context import Context
from wsss_cli.engine.rundir import open_run
from wsss_cli.engine.sweep import prefetch, sweep, sweep_processes
from wsss_cli.errors import Preempted, WriteError
from wsss_cli.files import read_json, write_json


@pytest.fixture
def run(tmp_path):
    with open_run(tmp_path / "run", "cam", load_preset("toy"), "x", {}) as run:
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


def test_a_sweep_names_what_it_lost(run, ctx):
    done = []

    def work(batch):
        done.extend(batch)
        return [{"id": item, "reason": "bad"} for item in batch if item == "b"]

    assert sweep([["a", "b"], ["c"]], work, run, ctx, "title") == [{"id": "b", "reason": "bad"}]
    assert done == ["a", "b", "c"]
    assert "lost b: bad" in (run.path / "log.txt").read_text()


def test_a_sweep_stops_between_batches(run, ctx):
    done = []

    def work(batch):
        done.extend(batch)
        ctx.stop.signal = 15
        return []

    with pytest.raises(Preempted):
        sweep([["a"], ["b"]], work, run, ctx, "title")
    assert done == ["a"]


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
