import threading
import time

import numpy as np
import pytest
import torch
from light import File, Item

from wsss_cli.engine import sweep as sweep_module
from wsss_cli.engine.context import Context, Silent
from wsss_cli.engine.sweep import Batch, SweepOptions, grouped, sweep, sweep_items
from wsss_cli.engine.work import prefetch
from wsss_cli.errors import DataError, Preempted, ResourceError, WriteError
from wsss_cli.files import write_json


class Ui(Silent):
    def __init__(self):
        self.said, self.done = [], 0

    def say(self, line):
        self.said.append(line)

    def advance(self, n=1, **fields):
        self.done += n


@pytest.fixture
def ctx(tmp_path):
    return Context(torch.device("cpu"), tmp_path, Ui())


def swept(batches, ctx, load=lambda item: item.id, compute=list, finish=str, lost=None, log=str, **options):
    """(id, result) of a sweep over batches, strings whose letters are the ids."""
    batches = [Batch([Item(letter) for letter in batch], (5, 7)) for batch in batches]
    made = sweep(
        batches, load, compute, finish, SweepOptions("title", **options), [] if lost is None else lost, ctx, log
    )
    return [(item.id, result) for item, result in made]


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


def test_what_cannot_be_read_is_lost_and_named_and_the_others_come_in_order(ctx):
    computed, lost, log = [], [], []

    def load(item):
        if item.id in "bd":
            raise DataError(f"bad {item.id}", "a hint")
        return item.id.upper()

    def compute(loaded):
        computed.append(loaded)
        return [letter * 2 for letter in loaded]

    assert swept(["ab", "c", "d", "ef"], ctx, load, compute, str.lower, lost, log.append) == [
        ("a", "aa"),
        ("c", "cc"),
        ("e", "ee"),
        ("f", "ff"),
    ]
    assert computed == [["A"], ["C"], ["E", "F"]]
    assert lost == [{"id": "b", "reason": "bad b"}, {"id": "d", "reason": "bad d"}]
    assert log == ["lost b: bad b", "lost d: bad d"]
    assert ctx.ui.done == 6


def test_what_cannot_be_finished_is_lost_too(ctx):
    def finish(letter):
        if letter == "b":
            raise DataError("bad")

    lost = []
    assert [name for name, _ in swept(["ab", "c"], ctx, finish=finish, lost=lost)] == ["a", "c"]
    assert lost == [{"id": "b", "reason": "bad"}]


@pytest.mark.parametrize("error", [WriteError("no space"), ZeroDivisionError()], ids=str)
@pytest.mark.parametrize("step", ["load", "compute", "finish"])
def test_any_other_error_ends_a_sweep(ctx, step, error):
    def fail(item):
        raise error

    lost = []
    with pytest.raises(type(error)):
        swept(["a", "b"], ctx, lost=lost, **{step: fail})
    assert lost == []


def test_a_stop_between_batches_leaves_none_computed_in_vain(ctx):
    finished = []

    def compute(loaded):
        ctx.stop.signal = 15
        return loaded

    with pytest.raises(Preempted):
        swept(["ab", "c"], ctx, compute=compute, finish=finished.append)
    assert sorted(finished) == ["a", "b"]


def test_a_stop_ends_a_sweep_without_batches(ctx):
    done = []

    def work(item):
        done.append(item.id)
        ctx.stop.signal = 15

    with pytest.raises(Preempted):
        list(sweep_items([Item(str(number)) for number in range(50)], work, SweepOptions("", workers=1), [], ctx))
    assert len(done) < 5


def test_a_sweep_reads_ahead_and_writes_behind(ctx):
    read, written, go = [], threading.Event(), threading.Event()

    def load(item):
        read.append(item.id)
        return item.id

    def compute(loaded):
        if loaded == ["b"]:
            assert written.wait(10)  # the first batch is stored while the second is computed
            go.set()
        return loaded

    def store(letter):
        if letter == "a":
            written.set()
            assert go.wait(10)

    assert swept(["a", "b"], ctx, load, compute, store) == [("a", None), ("b", None)]
    assert sorted(read) == ["a", "b"]


def test_no_more_than_two_batches_are_computed_before_the_first_is_written(ctx):
    computed, full = [], threading.Event()

    def compute(loaded):
        computed.append(loaded)
        if len(computed) == 3:  # twice a batch of one, and one for the thread
            full.set()
        return loaded

    def store(letter):
        if letter == "a":
            assert full.wait(10)
            time.sleep(0.05)
            assert len(computed) == 3

    assert len(swept("abcdefgh", ctx, compute=compute, finish=store, workers=1)) == 8


# -- memory ------------------------------------------------------------------------------------------------------------


def short(most, error, computed):
    """Doubles each item; out of memory with more than `most` of them."""

    def compute(loaded):
        computed.append(len(loaded))
        if len(loaded) > most:
            raise error
        for letter in loaded:
            yield letter * 2

    return compute


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:114] data. DefaultCPUAllocator: not enough memory: you tried"),
        RuntimeError("std::bad_alloc"),
        MemoryError(),
    ],
    ids=["cuda", "cpu", "bad_alloc", "python"],
)
def test_a_batch_that_does_not_fit_is_halved_and_so_are_those_after_it(ctx, error):
    computed = []
    results = swept(["abcdefgh", "ijklmnop", "qr"], ctx, compute=short(2, error, computed))
    assert results == [(letter, letter * 2) for letter in "abcdefghijklmnopqr"]
    assert computed == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1]
    assert ctx.ui.said == ["out of memory with 8 images of 7x5: going on with 4"]  # once for all


def test_an_image_that_does_not_fit_alone_ends_a_sweep_and_names_the_setting(ctx):
    with pytest.raises(ResourceError, match="out of memory with one image of 7x5") as caught:
        swept(["abc"], ctx, compute=short(0, MemoryError(), []), less_memory="smaller cam.scales")
    assert "smaller cam.scales" in caught.value.hint
    assert caught.value.exit_code == 3


def test_another_runtime_error_is_no_lack_of_memory(ctx):
    computed = []
    with pytest.raises(RuntimeError, match="size mismatch"):
        swept(["abc"], ctx, compute=short(0, RuntimeError("size mismatch"), computed))
    assert computed == [3]


# -- processes ---------------------------------------------------------------------------------------------------------


def test_processes_go_on_after_a_bad_item_and_stop_at_a_full_disk(tmp_path, ctx):
    items = [File(str(index), tmp_path / f"{index}.json") for index in range(9)]
    for item in items:
        write_json(item.path, 10 * int(item.id))
    items[4].path.write_text("{")
    lost = []
    results = list(sweep_items(items, File.read, SweepOptions("", workers=2, processes=True), lost, ctx))
    assert [(item.id, value) for item, value in results] == [(str(i), 10 * i) for i in range(9) if i != 4]
    assert [entry["id"] for entry in lost] == ["4"]
    assert "not valid JSON" in lost[0]["reason"]
    (tmp_path / "file").touch()
    items = [File(name, tmp_path / "file" / name) for name in "ab"]
    with pytest.raises(WriteError):
        list(sweep_items(items, File.write, SweepOptions("", workers=2, processes=True), [], ctx))


def test_what_is_computed_here_is_finished_in_processes(ctx):
    batches = [Batch([Item("1"), Item("x")]), Batch([Item("3")])]

    def load(item):
        if item.id == "x":
            raise DataError("no number")
        return int(item.id)

    lost = []
    options = SweepOptions("", workers=2, processes=True)
    results = sweep(batches, load, lambda loaded: [10 * one for one in loaded], float, options, lost, ctx)
    assert [(item.id, value) for item, value in results] == [("1", 10.0), ("3", 30.0)]
    assert lost == [{"id": "x", "reason": "no number"}]


# -- batches -----------------------------------------------------------------------------------------------------------


def unknown(items):
    return np.zeros((len(items), 2), np.uint32)


def same(size):
    return size


def shown(batches):
    return [("".join(item.id for item in batch.items), batch.size) for batch in batches]


def test_items_are_grouped_by_size(ctx):
    sizes = {"a": (4, 6), "b": (6, 4), "c": (4, 6), "e": (4, 6), "f": (4, 2)}

    def size_of(item):
        if item.id not in sizes:
            raise DataError("no header")
        return sizes[item.id]

    lost, items = [], [Item(letter) for letter in "abcdef"]
    batches = grouped(items, unknown, size_of, same, lambda size: 12 // size[1], lost, ctx)
    assert shown(batches) == [("f", (4, 2)), ("ac", (4, 6)), ("e", (4, 6)), ("b", (6, 4))]
    assert (len(batches), batches.items, shown(batches[2:]), batches[2:].items) == (4, 5, shown(batches)[2:], 2)
    assert lost == [{"id": "d", "reason": "no header"}]
    alone = grouped([items[0], items[2]], unknown, size_of, same, lambda size: 0, [], ctx)
    assert len(alone) == 2  # one image at least
    assert ctx.ui.done == 0  # no bar
    few = grouped(items[:3], unknown, size_of, lambda size: (min(size), max(size)), lambda size: 9, [], ctx)
    assert shown(few) == [("abc", (4, 6))]
    assert shown(grouped(items[3:4], unknown, size_of, same, lambda size: 9, [], ctx)) == []


def test_sizes_that_are_listed_are_not_read(ctx):
    read = []

    def size_of(item):
        read.append(item.id)
        return 3, 3

    sizes = {"a": [5, 2], "b": [0, 0], "c": [3, 3], "d": [5, 2]}

    def listed(items):
        return np.array([sizes[item.id] for item in items], np.uint32)

    batches = grouped([Item(letter) for letter in "abcd"], listed, size_of, same, lambda size: 9, [], ctx)
    assert shown(batches) == [("bc", (3, 3)), ("ad", (5, 2))]
    assert read == ["b"]


def test_many_items_are_grouped_part_by_part(ctx, monkeypatch):
    sizes = {letter: (place * place % 5, 1) for place, letter in enumerate("abcdefghijklmnopqrstuvwxyz")}
    items = [Item(letter) for letter in sizes]

    def listed(items):
        return np.array([sizes[item.id] if item.id not in "hz" else (0, 0) for item in items], np.uint32)

    def size_of(item):
        if item.id == "h":
            raise DataError("no header")
        return sizes[item.id]

    def batches():
        lost = []
        batches = grouped(items, listed, size_of, lambda size: (size[0] // 2 + 1, 1), lambda size: 3, lost, ctx)
        assert [entry["id"] for entry in lost] == ["h"]
        assert batches.order.dtype == np.uint32
        return batches

    whole = batches()
    letters = [[letter for letter in sizes if letter != "h" and sizes[letter][0] // 2 == half] for half in (0, 1, 2)]
    threes = [
        ("".join(some[at : at + 3]), (half + 1, 1))
        for half, some in enumerate(letters)
        for at in range(0, len(some), 3)
    ]
    assert shown(whole) == threes
    assert (whole.items, whole[1:4:2].items, shown(whole[1:4:2])) == (25, 6, threes[1:4:2])
    monkeypatch.setattr(sweep_module, "PART", 4)
    assert shown(batches()) == threes


def test_reading_sizes_stops(ctx):
    ctx.stop.signal = 15
    with pytest.raises(Preempted):
        grouped([Item("a")], unknown, lambda item: (1, 1), same, lambda size: 1, [], ctx)


def test_a_batch_whose_sizes_do_not_hold_is_computed_in_parts_and_comes_in_order(ctx):
    sizes, computed = {"A": (5, 7), "B": (9, 9), "C": (5, 7), "D": (9, 9), "E": (5, 7)}, []

    def compute(loaded):
        computed.append("".join(loaded))
        return loaded

    options = {"load": lambda item: item.id.upper(), "compute": compute, "size_of": sizes.get}
    assert [name for name, _ in swept(["ac", "abcd", "b", "e"], ctx, **options)] == list("acabcdbe")
    assert computed == ["AC", "AC", "BD", "B", "E"]
    assert ctx.ui.said == [
        "photographs have other sizes than their list says: taken as they are",
        "hint: `wsss prepare` writes sizes anew, `wsss verify` names the photographs",
    ]
