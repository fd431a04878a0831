"""Work in processes: order, chunks, memory, errors, stops and deaths. Workers must be able to import what they do."""

import operator
import os
import signal
import time
from functools import partial
from pathlib import Path

import cv2
import pytest
import torch

from wsss_cli import processes
from wsss_cli.data.loader import data_workers
from wsss_cli.engine.context import make_context
from wsss_cli.errors import DataError, Preempted, ResourceError
from wsss_cli.files import read_json, write_json
from wsss_cli.processes import _chunk, _results, check_stop, in_processes, in_threads

double = partial(operator.mul, 2)


def never():
    pass


class Pool:
    """Does what it is handed at once, and tells."""

    def __init__(self, seconds=0.0):
        self.chunks, self.seconds = [], seconds

    def submit(self, function, work, chunk):
        self.chunks.append(len(chunk))
        results, error, _ = function(work, chunk)
        return Done((results, error, self.seconds * len(chunk)))


class Done:
    def __init__(self, value):
        self.value = value

    def result(self):
        return self.value


@pytest.fixture
def at_hand(monkeypatch):
    monkeypatch.setattr(processes, "wait", lambda futures, timeout: type("Waited", (), {"done": futures}))


def test_light_work_is_done_here_and_every_item_looks_at_the_stop_flag():
    checks = []
    pids = list(in_processes(lambda item: os.getpid(), range(5), 2, check=lambda: checks.append(1)))
    assert pids == [os.getpid()] * 5
    assert len(checks) == 5


def test_processes_give_the_results_in_order(processes_at_once):
    results = list(in_processes(double, list(range(50)), 2, check=never))
    assert results == [2 * number for number in range(50)]


def test_processes_are_started_only_where_much_is_left(monkeypatch):
    """Half a second is tried here; 16 items of 0.3 s leave 4.2 s after the second, 15 leave 3.9 s."""
    clock = iter(range(10_000))
    monkeypatch.setattr(processes, "time", type("Clock", (), {"monotonic": lambda: 0.3 * next(clock)}))
    started = []

    def pool(*arguments):
        started.append(1)
        raise OSError("none")

    monkeypatch.setattr(processes, "ProcessPoolExecutor", pool)
    assert list(in_processes(double, list(range(15)), 2, check=never)) == list(range(0, 30, 2))
    assert started == []
    results = in_processes(double, list(range(16)), 2, check=never)
    assert [next(results), next(results)] == [0, 2]
    with pytest.raises(ResourceError, match="cannot start worker processes: none"):
        next(results)
    assert started == [1]


@pytest.mark.parametrize(
    ("seconds", "chunks"),
    [
        (0.0, [1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 4, 8, 8, 8, 8, 8, 8, 4]),  # never more than the largest
        (0.05, [1, 1, 1, 1, *[2] * 38]),  # two make up a tenth of a second
        (3.0, [1] * 80),
    ],
)
def test_chunks_grow_to_a_tenth_of_a_second_of_work(at_hand, seconds, chunks):
    pool = Pool(seconds)
    results = _results(pool, double, iter(range(80)), lambda: 1000, 4, 8)
    assert list(results) == [2 * number for number in range(80)]
    assert pool.chunks == chunks


def test_no_more_items_are_ahead_than_the_limit(at_hand):
    taken = []
    results = _results(Pool(), double, (taken.append(item) or item for item in range(100)), lambda: 5, 99, 1)
    for number in range(10):
        next(results)
        assert len(taken) == 5 + number


def test_an_error_comes_after_the_results_before_it_and_names_its_item(tmp_path, processes_at_once):
    files = [tmp_path / f"{number}.json" for number in range(30)]
    for file in files:
        write_json(file, 1)
    files[17].write_text("{")
    results = in_processes(read_json, files, 2, check=never)
    assert [next(results) for _ in range(17)] == [1] * 17
    with pytest.raises(DataError, match=r"17\.json is not valid JSON") as caught:
        next(results)
    assert caught.value.hint == "write it anew with the command that made it"


def test_a_bug_in_a_worker_shows_its_traceback(processes_at_once):
    with pytest.raises(ZeroDivisionError) as caught:
        list(in_processes(partial(operator.truediv, 1), [1, 0], 2, check=never))
    assert "in _chunk" in caught.value.__notes__[0]


def test_a_chunk_ends_where_no_result_is_wanted_any_more(monkeypatch):
    class Wanted:
        left = 2

        def poll(self):
            self.left -= 1
            return self.left < 0

    monkeypatch.setattr(processes, "_wanted", Wanted())
    assert _chunk(double, [1, 2, 3, 4])[:2] == ([2, 4], None)


def test_a_stop_ends_light_work_within_a_second(processes_at_once):
    begin, checks = time.monotonic(), []

    def check():
        checks.append(time.monotonic())
        if len(checks) == 3:
            raise Preempted("stopped")

    with pytest.raises(Preempted):
        list(in_processes(time.sleep, [0.0, 0.0, *[0.3] * 100], 2, check=check))
    assert time.monotonic() - checks[-1] < 5  # what runs is waited for, not the thirty seconds of the others
    assert begin < checks[0]


def held_up(seconds):
    """Work on one item that looks at the stop flag now and then."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        check_stop()
        time.sleep(0.02)
    return seconds


def test_a_stop_leaves_the_item_at_work_in_a_worker_process(monkeypatch):
    monkeypatch.setattr(processes, "FINISH_SECONDS", 1.0)
    begin, results = [], in_processes(held_up, [0.0, 300.0, 300.0, 300.0], 2, check=lambda: stop(begin), heavy=True)

    def stop(begin):
        if begin and time.monotonic() > begin[0]:
            raise Preempted("stopped")

    assert next(results) == 0.0
    begin.append(time.monotonic())
    with pytest.raises(Preempted):
        list(results)
    assert time.monotonic() - begin[0] < 30


def test_a_stop_leaves_the_item_at_work_in_this_process():
    begin = time.monotonic()

    def check():
        if time.monotonic() > begin + 0.2:
            raise Preempted("stopped")

    with pytest.raises(Preempted), processes.stopping_by(check):
        list(in_processes(held_up, [300.0], 2, check=check, heavy=True))
    assert time.monotonic() - begin < 30
    check_stop()  # nobody asks any more


def test_a_stop_takes_what_was_handed_to_heavy_work_and_is_done_soon():
    asked = []

    def check():
        asked.append(1)
        if len(asked) == 4:
            raise Preempted("stopped")

    results = in_processes(double, list(range(9)), 2, check=check, heavy=True, ahead=1)
    taken = []
    with pytest.raises(Preempted):
        for result in results:
            taken.append(result)
    assert taken == [0, 2]


def test_a_worker_that_dies_is_one_line_unless_a_stop_was_asked_for(processes_at_once):
    suicide = partial(os._exit)
    with pytest.raises(ResourceError, match="a worker process died") as caught:
        list(in_processes(suicide, [1, 1], 2, check=never, heavy=True))
    assert (caught.value.hint, caught.value.exit_code) == ("use fewer workers", 3)
    asked = []

    def check():
        asked.append(1)
        if len(asked) > 2:
            raise Preempted("stopped")

    with pytest.raises(Preempted):
        list(in_processes(suicide, [1, 1], 2, check=check, heavy=True))


def test_threads_finish_what_they_hold_when_the_items_end_in_an_error(tmp_path):
    def items():
        yield from ("a", "b")
        raise Preempted("stopped")

    done = []
    with pytest.raises(Preempted):
        for result in in_threads(lambda item: Path(tmp_path / item).write_text(item), items(), 2, limit=lambda: 9):
            done.append(result)
    assert done == [1, 1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_workers_leave_signals_to_the_parent(processes_at_once):
    handlers = list(in_processes(signal.getsignal, [signal.SIGTERM] * 4, 2, check=never))
    assert handlers[-1] == signal.SIG_IGN


# -- cores -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def eight_cores(monkeypatch, tmp_path):
    for variable in processes.LIMITS:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    monkeypatch.setattr(processes, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(processes, "CGROUP_ROOT", tmp_path / "fs")
    return tmp_path


@pytest.mark.parametrize("variable", ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "SLURM_CPUS_PER_TASK"])
@pytest.mark.parametrize(
    ("value", "expected"),
    [("3", 3), ("1", 1), ("64", 8), ("", 8), ("0", 8), ("many", 8), ("-2", 8), ("2,4", 2), (" 5 ", 5)],
)
def test_variables_are_upper_bounds_on_cores(eight_cores, monkeypatch, variable, value, expected):
    monkeypatch.setenv(variable, value)
    assert processes.cores() == expected
    assert data_workers(-1) == max(1, expected - 1)
    assert data_workers(5) == 5  # what is asked for is given


@pytest.mark.parametrize(
    ("listed", "files", "expected"),
    [
        ("0::/a/b", {"a/b/cpu.max": "250000 100000"}, 3),
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "200000 100000"}, 2),
        ("0::/a/b", {"a/b/cpu.max": "50000 100000", "a/cpu.max": "200000 100000"}, 1),
        ("0::/", {"cpu.max": "400000 100000"}, 4),
        ("0::/a", {"a/cpu.max": "max 100000"}, 8),
        ("0::/gone", {}, 8),
        (
            "4:memory:/m\n3:cpuset:/c\n2:cpu,cpuacct:/j",
            {"cpu/j/cpu.cfs_quota_us": "300000", "cpu/j/cpu.cfs_period_us": "100000"},
            3,
        ),
        ("2:cpu:/j", {"cpu/j/cpu.cfs_quota_us": "-1", "cpu/j/cpu.cfs_period_us": "100000"}, 8),
        ("nonsense", {"cpu.max": "100000 100000"}, 8),
    ],
)
def test_the_quota_of_a_control_group_is_an_upper_bound(eight_cores, listed, files, expected):
    (eight_cores / "cgroup").write_text(listed + "\n")
    for name, content in files.items():
        (eight_cores / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (eight_cores / "fs" / name).write_text(content + "\n")
    assert processes.cores() == expected


def test_the_threads_of_a_command_are_as_many(eight_cores, monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "2")
    before = torch.get_num_threads(), cv2.getNumThreads()
    try:
        make_context("cpu", eight_cores)
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (2, 2)
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])
