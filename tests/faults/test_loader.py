"""The training loader when a sample, a worker or the machine fails: one clear error, in time, and no process left."""

import contextlib
import itertools
import multiprocessing
import os
import signal
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from wsss_cli.data import loader
from wsss_cli.data.dataset import Sample
from wsss_cli.errors import DataError, Preempted, ResourceError, WriteError

SAMPLES = [Sample(f"s{index}", Path(f"s{index}.jpg"), None, ()) for index in range(5)]


def make(sample, rng):
    return {
        "image": np.full((2, 3), int(sample.id[1:]), np.uint8),
        "draw": rng.random(2, np.float32),
        "size": np.asarray((int(sample.id[1:]), 7)),
    }


@contextlib.contextmanager
def batches(make=make, workers=2, start=0, check=lambda: None, say=print):
    source = loader.training_batches(
        loader.Batches(SAMPLES, make, 2, 3), workers=workers, start=start, pin=False, check=check, say=say
    )
    with contextlib.closing(source):
        yield source
    assert multiprocessing.active_children() == []


def taken(count, **more):
    with batches(**more) as source:
        return list(itertools.islice(source, count))


def pid_of_worker():
    return multiprocessing.active_children()[0].pid


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_make_the_same_batches_as_this_process(workers):
    expected, seen = taken(20, workers=0), taken(20, workers=workers)  # more than all slots: each is used again
    assert [batch["image"][:, 0, 0].tolist() for batch in seen] == [
        [int(loader.order(5, 3, place // 5)[place % 5]) for place in (2 * step, 2 * step + 1)] for step in range(20)
    ]
    for left, right in zip(expected, seen, strict=True):
        assert left.keys() == right.keys() == {"image", "draw", "size", "lost"}
        for name in ("image", "draw", "size"):
            assert left[name].dtype == right[name].dtype
            assert left[name].equal(right[name])


def test_batches_of_a_later_start_are_the_later_batches():
    whole, rest = taken(6), taken(3, start=3)
    assert all(a["draw"].equal(b["draw"]) for a, b in zip(whole[3:], rest, strict=True))


def test_a_batch_that_was_handed_out_does_not_change():
    with batches() as source:
        first = next(source)
        before = first["draw"].clone()
        for _ in range(20):
            next(source)
        assert first["draw"].equal(before)


def test_a_sample_that_cannot_be_read_is_replaced_and_named():
    def without_2(sample, rng):
        if sample.id == "s2":
            raise DataError("s2.jpg is no image")
        return make(sample, rng)

    for workers in (0, 2):
        seen = taken(5, make=without_2, workers=workers)
        assert [entry for batch in seen for entry in batch["lost"]] == [("s2", "s2.jpg is no image")] * 2  # two epochs
        shown = np.concatenate([batch["image"][:, 0, 0] for batch in seen])
        assert np.bincount(shown, minlength=5).tolist() == [2, 2, 0, 4, 2]


def fails(error, after=0):
    """A `make` that fails in a worker, after some samples there."""
    parent, count = os.getpid(), itertools.count()

    def failing(sample, rng):
        if os.getpid() != parent and next(count) >= after:
            raise error
        return make(sample, rng)

    return failing


def test_nothing_readable_is_one_error_with_the_first_file():
    with pytest.raises(DataError, match=r"5 training images in a row cannot be read, first: s\d: no such file"):
        taken(20, make=fails(DataError("no such file"), after=4))


def test_an_error_keeps_its_class_its_message_and_its_hint():
    with pytest.raises(WriteError) as caught:
        taken(3, make=fails(WriteError("the disk is full", "free space")))
    assert (caught.value.message, caught.value.hint) == ("the disk is full", "free space")


def test_a_worker_without_memory_names_what_to_turn():
    with pytest.raises(ResourceError, match="out of memory") as caught:
        taken(3, make=fails(MemoryError()))
    assert caught.value.exit_code == 3
    assert "fewer data workers" in caught.value.hint


def test_a_bug_in_a_worker_is_shown_with_its_sample_and_its_place():
    with pytest.raises(RuntimeError, match=r"^s\d: KeyError: 'nowhere'") as caught:
        taken(3, make=fails(KeyError("nowhere")))
    assert "in failing" in caught.value.__notes__[0]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGVTALRM])
def test_a_worker_that_dies_is_one_error_within_seconds(number):
    with pytest.raises(ResourceError, match=f"a data worker ended by {number.name}") as caught, batches() as source:
        next(source)
        os.kill(pid_of_worker(), number)
        begin = time.monotonic()
        for _ in range(20):
            next(source)
    assert time.monotonic() - begin < 10
    assert ("memory" in caught.value.message) == (number == signal.SIGKILL)


def test_a_worker_that_is_stuck_is_named_with_its_file(monkeypatch):
    monkeypatch.setattr(loader, "STUCK_S", 1.0)
    with pytest.raises(ResourceError, match=r"has been at s\d\.jpg for 1 s"), batches() as source:
        next(source)
        os.kill(pid_of_worker(), signal.SIGSTOP)
        for _ in range(20):
            next(source)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stop_ends_the_wait_for_a_batch(workers):
    parent = os.getpid()

    def slow(sample, rng):
        if workers and os.getpid() != parent:
            time.sleep(60)
        return make(sample, rng)

    def check():
        raise Preempted("stopped by SIGTERM")

    begin = time.monotonic()
    with pytest.raises(Preempted), batches(slow, workers, check=check) as source:
        next(source)
    assert time.monotonic() - begin < 10


def test_a_stop_comes_before_the_blame_of_a_dead_worker():
    def check():
        raise Preempted("stopped by SIGTERM")

    with pytest.raises(Preempted), batches(check=check) as source:
        next(source)
        for process in multiprocessing.active_children():
            process.kill()
        for _ in range(20):
            next(source)


def test_workers_hear_no_signal_from_their_first_instruction():
    with batches() as source:
        next(source)
        for process in multiprocessing.active_children():
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
                os.kill(process.pid, number)
        assert len(list(itertools.islice(source, 20))) == 20


def test_workers_need_no_temporary_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("t" * 120) / "missing"))
    assert len(taken(20)) == 20


def test_where_no_worker_can_be_started_this_process_does_without(monkeypatch):
    def refused(*arguments):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refused)
    said = []
    seen = taken(4, say=said.append)
    assert said == [
        "data workers cannot be started (Resource temporarily unavailable): samples are made in this process"
    ]
    assert all(a["draw"].equal(b["draw"]) for a, b in zip(seen, taken(4, workers=0), strict=True))
