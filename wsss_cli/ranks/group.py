"""What ranks tell each other outside of sums: what only the first does, who stops, who failed.

Ranks meet in torch's store, which the launcher keeps, so that a rank that dies takes nothing with it. Long waits look
into it and at the stop flag ten times a second; short ones, once a step, are collective operations with a time limit.
"""

from __future__ import annotations

import contextlib
import datetime
import math
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from wsss_cli.errors import Interrupted, PeerError, Preempted, ResourceError, UsageError, WsssError
from wsss_cli.processes import end_with
from wsss_cli.ranks.sums import alone
from wsss_cli.ranks.who import Ranks, by_itself, here, meeting_point

Value = TypeVar("Value")
Check = Callable[[], object]
TIMEOUT_S = 600.0  # that a rank may be late to a step; WSSS_RANK_TIMEOUT in its place, in seconds
POLL_S = 0.1
AGENT = "WSSS_AGENT"  # the process that `--gpus` starts ranks from, by its id
FAILED = "failed"
AGAIN = "run the same command again to go on"
LINGER_S = 5.0  # for the word of a rank that has gone
MEETING = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
SILENT_S = 10.0  # of waiting for others to be started, before it is said
BEAT_S = 1.0  # between signs of life

_store: Any = None  # the process joins one group
_turns = 0
_beaten = -math.inf  # when this rank gave its last sign of life


def _no_check() -> None:
    pass


_check: Check = _no_check


def timeout_s() -> float:
    """Seconds that a rank may be late.

    Raises:
        UsageError: WSSS_RANK_TIMEOUT is no number of seconds above 0.
    """
    text = os.environ.get("WSSS_RANK_TIMEOUT", "") or f"{TIMEOUT_S}"
    with contextlib.suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise UsageError(f"WSSS_RANK_TIMEOUT={text}: seconds are a number above 0", "unset it, or give one")


@contextlib.contextmanager
def joined(check: Check, say: Callable[[str], object]) -> Iterator[None]:
    """Join the other ranks of the job while the body runs; an error that leaves it ends all of them.

    Args:
        check: looks at the stop flag; called while others are waited for.
        say: is told where the others have not come for some time.
    Raises:
        ResourceError: the ranks do not find each other.
        PeerError: in place of this rank's own error, where another rank's was first.
    """
    global _store, _turns, _check
    _check = check
    ranks = here()
    if ranks.world == 1:
        yield
        return
    end_with_agent()
    for name, value in {**meeting_point(os.environ), "RANK": str(ranks.rank), "WORLD_SIZE": str(ranks.world)}.items():
        if not os.environ.get(name):
            os.environ[name] = value
    limit = datetime.timedelta(seconds=timeout_s())
    try:
        _store, _turns = PrefixStore("wsss", _meet(limit, say)), 0
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=_store, rank=ranks.rank, world_size=ranks.world, timeout=limit)
    except (RuntimeError, ValueError, OSError) as error:
        raise ResourceError(
            f"rank {ranks.rank} of {ranks.world} did not find the others: {' '.join(str(error).split())[:160]}",
            "see that all ranks were started, and that MASTER_ADDR and MASTER_PORT can be reached from each machine",
        ) from error
    try:
        with answering():
            yield
            _finish(ranks)
    except BaseException as error:
        first = _say_failed(error, ranks)
        if first is not None:
            raise first from error
        raise
    finally:
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()
        _store = None


def _meet(limit: datetime.timedelta, say: Callable[[str], object]) -> Any:
    """The store in which all ranks have met; torch hears no signal while it waits, so it does so in another thread."""
    met: list[Any] = []

    def meet() -> None:
        try:
            met.append(next(rendezvous("env://", timeout=limit))[0])
        except (RuntimeError, ValueError, OSError) as error:
            met.append(error)

    threading.Thread(target=meet, daemon=True).start()
    quiet_until = time.monotonic() + SILENT_S
    while not met:
        _check()
        if time.monotonic() > quiet_until:
            quiet_until = math.inf
            settings = ", ".join(f"{key}={os.environ[key]}" for key in MEETING)
            say(f"waiting for other ranks ({settings}); of one process alone, unset RANK and WORLD_SIZE")
        time.sleep(POLL_S)
    if isinstance(met[0], Exception):
        raise met[0]
    return met[0]


def _finish(ranks: Ranks) -> None:
    """Wait for the last rank: whoever fails until then fails for all."""
    _store.add("finished", 1)
    wait_until(lambda: int(_store.add("finished", 0)) >= ranks.world)


def _say_failed(error: BaseException, ranks: Ranks) -> WsssError | None:
    """Tell the others of an error. What another rank said before is raised in its place."""
    try:
        word = failure()
        if word is None:
            last_word = pickle.dumps((ranks.rank, getattr(error, "exit_code", 1), _text(error)))
            word = pickle.loads(_store.compare_set(FAILED, "", last_word))
    except RuntimeError:  # the launcher has gone, and the store with it
        return None
    rank, code, text = word
    if rank == ranks.rank or isinstance(error, PeerError):
        return None
    return _peer(rank, code, text)


def _peer(rank: int, code: int, text: str) -> WsssError:
    """What a rank raises where another one has ended."""
    if code == Preempted.exit_code:
        return Preempted(text, AGAIN)
    if code == Interrupted.exit_code:
        return Interrupted(text, AGAIN)
    return PeerError(f"rank {rank} of {here().world} ended: {text}", code)


def look_at_others() -> None:
    """Give a sign of life, and raise where another rank has ended.

    Raises:
        PeerError: with what it said.
        Preempted, Interrupted: it was asked to stop.
    """
    global _beaten
    if _store is not None and time.monotonic() - _beaten >= BEAT_S:
        _beaten = time.monotonic()
        _store.add(f"alive/{here().rank}", 1)
    if (word := failure()) is not None and word[0] != here().rank:
        raise _peer(*word)


def failure() -> tuple[int, int, str] | None:
    """(rank, exit code, message) of the first rank that failed."""
    if _store is None or not _store.check([FAILED]):
        return None
    word: tuple[int, int, str] = pickle.loads(_store.get(FAILED))
    return word


def beats(rank: int) -> int:
    """How many signs of life a rank has given."""
    return int(_store.add(f"alive/{rank}", 0))


def next_turn() -> int:
    """A number for something that all ranks do together: all count alike, as all do the same things in one order."""
    global _turns
    _turns += 1
    return _turns


def put(key: str, value: object) -> None:
    """Leave a value, which can be pickled, where other ranks look for it."""
    _store.set(key, pickle.dumps(value))


def look_for(key: str, *, take: bool = False) -> tuple[Any] | None:
    """(value,) that a rank has left; None: not yet.

    Args:
        take: nobody else looks for it: it goes.
    """
    if not _store.check([key]):
        return None
    value = pickle.loads(_store.get(key))
    if take:
        _store.delete_key(key)
    return (value,)


def wait_until(reached: Callable[[], bool]) -> None:
    """Wait, looking at the stop flag and at the other ranks.

    Raises:
        PeerError, Preempted, Interrupted: as `look_at_others`, or as the stop flag says.
    """
    while not reached():
        look_at_others()
        _check()
        time.sleep(POLL_S)


def only_first(work: Callable[[], Value]) -> Value:
    """What rank 0 makes, for all ranks; the others wait for it, however long it takes.

    Args:
        work: called on rank 0 alone; returns what can be pickled.
    Raises:
        PeerError: on the others, where it fails.
    """
    if alone():
        return work()
    key = f"first/{next_turn()}"
    if here().rank == 0:
        with by_itself():
            value = work()
        put(key, value)
        return value
    wait_until(lambda: bool(_store.check([key])))
    received: Value = pickle.loads(_store.get(key))
    return received


@dataclass(frozen=True)
class Word:
    """What a rank has to say before a step.

    Attributes:
        signal: that asked it to stop; 0: none.
        labelled: its part of the batch has a label.
        lost: (id, reason) of samples that it could not read.
        error: what keeps it from the step.
    """

    signal: int = 0
    labelled: bool = False
    lost: tuple[tuple[str, str], ...] = ()
    error: Exception | None = None


def agree(word: Word, step: int) -> Word:
    """What all ranks together have to say before a step: the highest signal, any label, all that is lost.

    Args:
        step: for the others to see how far this rank is.
    Raises:
        PeerError: another rank has an error; this rank's own error is raised where it has one.
    """
    if alone():
        if word.error is not None:
            raise word.error
        return word
    ranks = here()
    _store.set(f"step/{ranks.rank}", str(step))
    flags = torch.tensor([word.signal, word.labelled, bool(word.lost) or word.error is not None])
    dist.all_reduce(flags, dist.ReduceOp.MAX)
    lost = word.lost
    if flags[2]:
        every: list[Any] = [None] * ranks.world
        text = None if word.error is None else (_text(word.error), getattr(word.error, "exit_code", 1))
        dist.all_gather_object(every, (word.lost, text))
        lost = tuple(entry for part, _ in every for entry in part)
        if word.error is not None:
            raise word.error
        for rank, (_, problem) in enumerate(every):
            if problem is not None:
                raise _peer(rank, problem[1], problem[0])
    return Word(int(flags[0]), bool(flags[1]), lost)


@contextlib.contextmanager
def answering() -> Iterator[None]:
    """Turn the end of a sum over ranks that not all of them came to into one line.

    Raises:
        PeerError: another rank has said why it ended.
        ResourceError: one has gone without a word, or hangs.
    """
    try:
        yield
    except RuntimeError as error:
        if alone() or not _is_torn(error):
            raise
        missing = _missing(here())
        raise ResourceError(
            f"{missing} has gone, or has not answered for {timeout_s():.0f} s",
            "see what it said last and whether its machine is up, then run the same command again",
        ) from error


def _missing(ranks: Ranks) -> str:
    """Which ranks do not notice that a sum is torn, and before what step they were.

    Raises:
        PeerError: one of them has said why it ended.
    """
    _store.set(f"torn/{ranks.rank}", "")
    end = time.monotonic() + LINGER_S
    while time.monotonic() < end:
        look_at_others()
        time.sleep(POLL_S)
    missing = [rank for rank in range(ranks.world) if not _store.check([f"torn/{rank}"])] or [ranks.rank]
    steps = [int(_store.get(f"step/{rank}")) for rank in missing if _store.check([f"step/{rank}"])]
    return f"rank {' and '.join(map(str, missing))} of {ranks.world}, in step {min(steps, default=0)},"


def _is_torn(error: RuntimeError) -> bool:
    text = str(error).lower()
    return any(word in text for word in ("connection", "timed out", "timeout", "socket", "gloo", "nccl", "peer"))


def _text(error: BaseException) -> str:
    return error.message if isinstance(error, WsssError) else f"{type(error).__name__}: {error}"


def end_with_agent() -> None:
    """Where `--gpus` started this rank: stop as by SIGTERM when that process is gone (Linux)."""
    if agent := os.environ.get(AGENT):
        end_with(int(agent), signal.SIGTERM)
