"""Sweeps whose batches workers of a Ray cluster work through. Ray is imported where it is asked for, here alone."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import time
import traceback
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from wsss_cli import __version__
from wsss_cli.engine.context import Silent, make_context
from wsss_cli.engine.devices import check_ray
from wsss_cli.engine.stop import AGAIN
from wsss_cli.engine.sweep import Batch
from wsss_cli.engine.work import Entry, Place, Work
from wsss_cli.errors import ResourceError, UsageError, WsssError
from wsss_cli.processes import FINISH_SECONDS, Check, cores, signals_held
from wsss_cli.signals import STOPPING

Part = list[tuple[int, Batch[Any]]]  # batches with their numbers
HINT = "the same wsss and the same folders are to be on every machine of the cluster: see docs/how-to/many-gpus.md"
REACH_S = 10.0  # to reach a cluster; Ray itself would wait for minutes and hear no signal
PART_S = 2.0  # of work that a worker is handed at a time
MOST = 64  # batches in it
AHEAD = 2  # parts that a worker has at a time, the one that it works at included
TRIES = 3  # of a part whose worker was lost
SILENT_S = 600.0  # without a result, and without a sign of life of a worker, until it counts as gone
SIGNS_S = 60.0  # without a result, until signs of life are asked for


@dataclass(frozen=True)
class Done:
    """What a worker has to say of a part.

    Attributes:
        said: lines for whoever listens.
        error: what ended it; what was done before is in `entries`.
    """

    entries: list[tuple[Place, Any]]
    said: list[str]
    seconds: float
    error: Exception | None = None


@contextlib.contextmanager
def ray_pool(address: str, check: Check) -> Iterator[RayPool]:
    """A pool of a Ray cluster while the body runs.

    Args:
        address: HOST:PORT of the cluster; empty: that of RAY_ADDRESS, else one that is started here and ends with this.
        check: looks at the stop flag.
    Raises:
        ResourceError: the cluster does not answer.
        UsageError: Ray is not installed.
    """
    check_ray()
    address = address or os.environ.get("RAY_ADDRESS", "")
    if address not in ("", "local", "auto"):
        _reach(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    import ray

    room = {"num_cpus": cores(), "include_dashboard": False} if address in ("", "local") else {}
    try:
        with _handlers_as_they_are(), signals_held():  # its processes leave signals to this one
            ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **room)
    except Exception as error:  # Ray raises many types
        raise ResourceError(
            f"Ray does not start, or does not answer{_at(address)}: {_first_line(error)}", HINT
        ) from error
    try:
        check()
        yield RayPool()
    finally:
        with signals_held():
            ray.shutdown()


def _at(address: str) -> str:
    return f" at {address}" if address else ""


def _reach(address: str) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), REACH_S).close()
    except (OSError, ValueError, OverflowError) as error:
        raise ResourceError(
            f"no Ray cluster answers at {address}: {_first_line(error)}",
            "give --address the HOST:PORT that `ray start --head` has printed, or leave it out to start one here",
        ) from error


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


@contextlib.contextmanager
def _handlers_as_they_are() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Worker:
    """In a process of the cluster: works through parts of one sweep.

    Args:
        folder: of the process that has the sweep; paths are relative to it.
        version: of wsss there.
    """

    def __init__(self, folder: str, version: str) -> None:
        self.folder, self.version = folder, version
        self.work: Work | None = None

    def do(self, held: list[Any], part: Part) -> Done:
        """What becomes of the items of some batches.

        Args:
            held: a reference to the sweep's work, in a list, so that it is fetched once.
        """
        begin, entries, told = time.monotonic(), [], _Told()
        error: Exception | None = None
        try:
            if self.work is None:
                import ray

                work: Work = ray.get(held[0])
                _settle(work, self.folder, self.version)
                self.work = work
            self.work.ctx.ui = told  # the context of the functions, too
            for place, _, outcome in self.work.entries(part, sum(len(batch.items) for _, batch in part)):
                entries.append((place, outcome))
        except Exception as problem:
            error = problem
            if not isinstance(error, WsssError):
                error.add_note(traceback.format_exc())  # a traceback does not cross the border of a process
        return Done(entries, told.lines, time.monotonic() - begin, error)

    def lives(self) -> bool:
        """A sign of life."""
        return True


def _settle(work: Work, folder: str, version: str) -> None:
    where = f"the machine {socket.gethostname()} of the Ray cluster"
    if version != __version__:
        raise UsageError(f"{where} has wsss {__version__}, this one {version}", HINT)
    try:
        os.chdir(folder)
    except OSError as error:
        raise ResourceError(f"{where} has no folder {folder}: {error.strerror}", HINT) from error
    os.environ["OMP_NUM_THREADS"] = "1"  # it is given one processor
    make_context(work.ctx.device.type, work.ctx.runs)  # threads and precision of this process


class _Told(Silent):
    """Remembers what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


class RayPool:
    """The processors of a Ray cluster, one worker each: its GPUs, or its cores where a sweep uses none."""

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return _Nothing, ()  # workers have no workers

    def entries(self, work: Work, numbered: Iterable[tuple[int, Batch[Any]]]) -> Generator[Entry, None, None]:
        """What became of items, in no order. A worker that is lost is started again by Ray, on another machine too.

        Raises:
            ResourceError: there is no processor, or workers are lost again and again.
        """
        source = iter(numbered)
        first = next(source, None)
        if first is None:
            return
        crew = _Crew(work)
        try:
            yield from crew.results(first, source)
        finally:
            crew.dismiss()


class _Nothing:
    pass


class _Crew:
    def __init__(self, work: Work) -> None:
        import ray

        self.ctx, self.ray = work.ctx, ray
        options = work.options
        gpu = self.ctx.device.type == "cuda" and not (options.processes and work.compute is None)
        kind = "GPU" if gpu else "CPU"
        count = int(ray.cluster_resources().get(kind, 0))
        if not count:
            raise ResourceError(
                f"the Ray cluster has no {kind}", "see `ray status`" + ("; or --device cpu" if gpu else "")
            )
        alone = replace(options, processes=False, workers=1 if options.processes else options.workers)
        self.held = [ray.put(replace(work, options=alone))]  # as long as a worker may be started again
        actor = ray.remote(concurrency_groups={"signs": 1})(Worker).options(
            num_cpus=1, num_gpus=int(gpu), max_restarts=-1, max_task_retries=TRIES
        )
        self.workers = [actor.remote(str(Path.cwd()), __version__) for _ in range(count)]
        self.free: list[Any] = []
        self.starting = {worker.lives.remote(): worker for worker in self.workers}  # some may wait for other jobs
        self.under_way: dict[Any, tuple[Any, Part]] = {}
        self.last = time.monotonic()  # when something came

    def results(self, first: tuple[int, Batch[Any]], source: Iterator[tuple[int, Batch[Any]]]) -> Iterator[Entry]:
        size, part = 1, [first]
        ended: Exception | None = None
        until = 0.0
        while part or self.under_way:
            while self.free and part:
                worker = self.free.pop(0)
                self.under_way[worker.do.remote(self.held, part)] = worker, part
                part = list(islice(source, size))
            ready, _ = self.ray.wait([*self.starting, *self.under_way], timeout=1.0)
            for one in ready:
                if one in self.starting:
                    self.last = time.monotonic()
                    self.free += [self.starting.pop(one)] * AHEAD
                    continue
                done, batches = self._done(one)
                yield from ((place, batches[place[0]].items[place[1]], outcome) for place, outcome in done.entries)
                for line in done.said:
                    self.ctx.ui.say(line)
                if done.error is not None:
                    raise done.error
                size = max(1, min(MOST, 2 * len(batches), int(PART_S * len(batches) / max(done.seconds, 1e-6))))
            try:
                if ended is None:
                    self.ctx.stop.check()
            except WsssError as error:  # what is being worked at is taken, as far as it comes soon
                ended, until, part = error, time.monotonic() + FINISH_SECONDS, []
            if ended is not None and (time.monotonic() > until or not self.under_way):
                raise ended
            self._look()

    def _done(self, one: Any) -> tuple[Done, dict[int, Batch[Any]]]:
        worker, part = self.under_way.pop(one)
        try:
            done: Done = self.ray.get(one)
        except self.ray.exceptions.RayError as error:
            time.sleep(1.0)  # a signal to all processes may come here last
            self.ctx.stop.check()
            first = part[0][1].items[0].id
            raise ResourceError(
                f"a worker of the Ray cluster was lost {TRIES + 1} times, or cannot be started, with {first} and what "
                f"follows it: {_first_line(error)}",
                "less memory than is needed is the usual reason; " + HINT,
            ) from error
        self.free.append(worker)
        self.last = time.monotonic()
        return done, dict(part)

    def _look(self) -> None:
        """See that workers live, where nothing has come for long.

        Raises:
            ResourceError: none of those at work gives a sign of life, or none starts.
        """
        if time.monotonic() - self.last < SIGNS_S:
            return
        busy = {worker for worker, _ in self.under_way.values()}
        signs = [worker.lives.options(concurrency_group="signs").remote() for worker in busy]
        waits = time.monotonic() + SILENT_S
        while time.monotonic() < waits:
            ready, _ = self.ray.wait([*signs, *self.starting, *self.under_way], timeout=1.0)
            self.ctx.stop.check()
            if ready:
                self.last = time.monotonic()
                return
        what = f"has answered for {SILENT_S:.0f} s" if busy else f"has started in {SILENT_S:.0f} s"
        raise ResourceError(f"no worker of the Ray cluster {what}", f"see `ray status`; {AGAIN}")

    def dismiss(self) -> None:
        """End the workers, each after what it has been handed; those that are at work end with the pool."""
        for worker in self.workers if not self.under_way else ():
            with contextlib.suppress(Exception):  # the cluster may be gone
                self.ray.kill(worker)
