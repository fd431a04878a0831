"""A data set that several jobs make, each a share of its photographs; the last one writes it.

What each has seen lies in `shards` of the data set directory: a record, a lock, and a line of JSON for each photograph
behind one that says what was asked. It goes when the lists are written.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsss_cli.data.dataset import open_dataset
from wsss_cli.data.sources.preparation import Preparation
from wsss_cli.data.sources.summary import Prepared
from wsss_cli.engine.shards import (
    FOLDER,
    Shard,
    ShardRecord,
    hold_to_division,
    missing_shards,
    read_shards,
    remove_shards,
    shard_of,
    shards_at_work,
    write_shard,
)
from wsss_cli.errors import BusyError, DataError, UsageError, WriteError
from wsss_cli.files import how_to_write, read_json, write_json
from wsss_cli.locks import locked
from wsss_cli.processes import Check, check_stop
from wsss_cli.talk import say

LOCK = ".prepare.lock"
DONE = "done.json"
POLL_S = 1.0
FLUSH_S = 1.0  # of looks that a kill loses at most
BYTES = 1 << 14  # of a part that are read at a time
Tick = Callable[[int, int], None]


@dataclass(frozen=True)
class _Place:
    """Where shards of one preparing meet, and what they were asked, by its SHA-256."""

    out: Path
    asked: str

    def part(self, shard: Shard) -> Path:
        """What a shard has seen."""
        return shard.file(self.out, "jsonl")


def prepare_shard(
    work: Preparation,
    out: Path,
    shard: Shard,
    *,
    check: Check,
    tick: Tick = lambda done, total: None,
) -> Prepared | None:
    """Look at the items of a shard, and where no other shard is missing, write what one process would write.

    What was looked at is not looked at again, but where the data set is refused in the end.

    Returns:
        What was prepared; None: other shards are missing.
    Raises:
        BusyError: another process works at this shard.
        DataError: the data set cannot be made of what was seen.
        UsageError: shards of another number, or of other settings, are at work.
        WriteError: the disk is full.
    """
    place = _Place(out, work.asked)
    try:
        (out / FOLDER).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"cannot create {out / FOLDER}: {error.strerror}", "choose another --out") from error
    with contextlib.ExitStack() as stack:
        with _waiting(out, check):
            if _is_written(place):
                say(f"{out}: all shards are done; it is prepared anew without --shard")
                return Prepared(open_dataset(out))
            _forget_others(place)
            hold_to_division(out, shard)
            others = shards_at_work(out)  # of the same preparing, which they have begun
            stack.enter_context(locked(shard.file(out, "lock"), f"shard {shard} of {out} is in use"))
            write_shard(out, ShardRecord(number=shard.number, of=shard.of, state="working"))
            if not others:
                work.begin()
        items = _look(work, place, shard, tick)
        write_shard(out, ShardRecord(number=shard.number, of=shard.of, state="done", items=items))
    with _waiting(out, check):
        if missing_shards(read_shards(out), shard.of) or shards_at_work(out):
            return None if not _is_written(place) else Prepared(open_dataset(out))
        prepared = _write(work, place, shard.of)
        write_json(out / FOLDER / DONE, {"asked": place.asked})
        forget_shards(out)
    return prepared


def _write(work: Preparation, place: _Place, of: int) -> Prepared:
    """Write the data set. Where it is refused, what was seen is forgotten, as files are mended before the next time."""
    try:
        return work.write(_parts(work, place, of))
    except _DamagedPartError:
        raise
    except DataError as error:
        forget_shards(place.out)
        again = f"then run all {of} shards again" if of > 1 else "then run it again"
        raise DataError(error.message, f"{error.hint}; {again}" if error.hint else again) from error


class _DamagedPartError(DataError):
    """What one shard has seen cannot be read."""


@contextlib.contextmanager
def _waiting(out: Path, check: Check) -> Iterator[None]:
    """Hold the lock of the data set directory, once whoever holds it has let go of it."""
    told = False
    while True:
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locked(out / LOCK, f"{out} is being prepared"))
            except BusyError as error:
                if not told:
                    say(f"{error.message}: waiting for it")
                told = True
                check()
                time.sleep(POLL_S)
                continue
            yield
            return


def _is_written(place: _Place) -> bool:
    """Whether shards of this preparing have written the data set that is there."""
    done = place.out / FOLDER / DONE
    if not done.is_file() or not (place.out / "dataset.json").is_file():
        return False
    with contextlib.suppress(DataError):
        return bool(read_json(done) == {"asked": place.asked})
    return False


def _forget_others(place: _Place) -> None:
    """Remove what shards have seen that were asked something else.

    Raises:
        UsageError: they are at work.
    """
    parts = sorted((place.out / FOLDER).glob("*-of-*.jsonl"))
    if all(_first_line(part) in ("", place.asked) for part in parts):
        return
    if working := shards_at_work(place.out):
        raise UsageError(
            f"{place.out}: shard {working[0]} is at work with another table, other files or other settings",
            "stop it first, or choose another place with --out",
        )
    say(f"{place.out}: what shards have seen of another table, other files or other settings is left out")
    forget_shards(place.out)


def refuse_at_work(out: Path) -> None:
    """See that no shard is at work, before all is looked at by one command.

    Raises:
        BusyError: one is.
    """
    if working := shards_at_work(out):
        raise BusyError(f"shard {working[0]} of {out} is being looked at", "wait for it, or stop it")


def forget_shards(out: Path) -> None:
    """Remove what shards have seen."""
    for part in (out / FOLDER).glob("*-of-*.jsonl"):
        part.unlink(missing_ok=True)
    remove_shards(out)


def _first_line(part: Path) -> str:
    """What the shard of a part was asked; empty where it was killed before it had said so."""
    with contextlib.suppress(OSError, ValueError), part.open("rb") as file:
        return str(json.loads(file.readline())["asked"])
    return ""


def _look(work: Preparation, place: _Place, shard: Shard, tick: Tick) -> int:
    """Look at what the part of a shard does not have yet. Returns the number of its items."""
    numbers = array("I")
    for number, name in enumerate(work.ids()):
        if shard.has(name):
            numbers.append(number)
    part = place.part(shard)
    try:
        there = _begin(part, place.asked)
        with part.open("ab") as file:
            begin = time.monotonic()
            for done, look in enumerate(work.look(numbers[there:]), there + 1):
                file.write(json.dumps(look).encode() + b"\n")
                if time.monotonic() - begin > FLUSH_S:
                    file.flush()
                    begin = time.monotonic()
                tick(done, len(numbers))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise WriteError(f"cannot write {part}: {error.strerror}", how_to_write(error)) from error
    return len(numbers)


def _begin(part: Path, asked: str) -> int:
    """How many looks a part has; its last line may be cut off, and goes. One that was asked something else is empty."""
    if _first_line(part) != asked:
        part.write_bytes(json.dumps({"asked": asked}).encode() + b"\n")
        return 0
    count = whole = 0
    with part.open("rb+") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            count, whole = count + 1, whole + len(line)
        file.truncate(whole)
    return count - 1


def _parts(work: Preparation, place: _Place, of: int) -> Iterator[Any]:
    """What all shards have seen, in the order of the ids.

    Raises:
        _DamagedPartError: a part is damaged.
    """
    parts = {number: _lines(place.part(Shard(number, of))) for number in range(1, of + 1)}
    counts = Counter[int]()
    for name in work.ids():
        number = shard_of(name, of)
        counts[number] += 1
        try:
            yield work.read(json.loads(next(parts[number])))
        except (StopIteration, ValueError, TypeError, KeyError) as error:
            shard = Shard(number, of)
            place.part(shard).unlink(missing_ok=True)
            shard.file(place.out, "json").unlink(missing_ok=True)
            raise _DamagedPartError(
                f"{place.part(shard)} was damaged after line {counts[number]}, and is removed",
                f"run the same command with --shard {shard}: it looks at its photographs again",
            ) from error


def _lines(part: Path) -> Iterator[bytes]:
    """Lines of a part behind the first; the file is open while a block is read, as there may be thousands."""
    at, first = 0, True
    while True:
        check_stop()
        with part.open("rb") as file:
            file.seek(at)
            block = file.read(BYTES)
            block += file.readline()
        if not block:
            return
        at += len(block)
        yield from block.splitlines()[1 if first else 0 :]
        first = False
