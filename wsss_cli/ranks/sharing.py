"""One list of items worked through by all ranks: each does its part, and what came of it goes to the first one.

Results travel through the launcher's store, a second's worth at a time. A rank counts as there while it gives signs of
life, however long an item takes it.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from wsss_cli.errors import DataError, Interrupted, PeerError, Preempted, ResourceError
from wsss_cli.ranks.group import AGAIN, LINGER_S, POLL_S, beats, look_for, next_turn, put, timeout_s, wait_until
from wsss_cli.ranks.who import here

SEND_S = 0.5  # between two messages of a rank
Entry = tuple[tuple[int, int], Any]  # place of an item among all, and what came of it


@dataclass(frozen=True)
class Message:
    """From another rank to the first.

    Attributes:
        entries: what came of items since the last one.
        digest: with the last one, SHA-256 of the ids of all items; empty: there is more to come.
        error: what ended the rank's part.
    """

    entries: tuple[Entry, ...]
    digest: str = ""
    error: DataError | None = None


def shared(entries: Iterable[Entry], names: Iterable[str], title: str, check: Callable[[], object]) -> Iterator[Entry]:
    """What came of all items, on the first rank; others do their part and yield nothing.

    All ranks begin and end together. A DataError of one is raised on all of them; other errors are, as everywhere, what
    ends the job.

    Args:
        entries: of this rank's part, as they are done.
        names: ids of all items, the same on all ranks.
        check: looks at the stop flag and at the other ranks.
    Raises:
        DataError: that of any rank, or ranks have different items.
        ResourceError: a rank gives no sign of life.
    """
    key, seen = f"shared/{next_turn()}", hashlib.sha256()
    for name in names:
        seen.update(f"{name}\n".encode(errors="surrogateescape"))
    if here().rank:
        return _send(entries, key, seen.hexdigest(), title)
    return _receive(entries, key, seen.hexdigest(), title, check)


def _send(entries: Iterable[Entry], key: str, digest: str, title: str) -> Generator[Entry, None, None]:
    yield from ()
    outbox: list[Entry] = []
    count, due, error = 0, time.monotonic() + SEND_S, None
    try:
        for entry in entries:
            outbox.append(entry)
            if time.monotonic() >= due:
                put(f"{key}/{here().rank}/{count}", Message(tuple(outbox)))
                outbox, count, due = [], count + 1, time.monotonic() + SEND_S
                if look_for(f"{key}/over"):
                    break
    except DataError as problem:
        error = problem
    finally:
        with contextlib.suppress(RuntimeError):  # the launcher has gone, and the store with it
            put(f"{key}/{here().rank}/{count}", Message(tuple(outbox), digest, error))
    watch = _Watch(title)

    def over() -> bool:
        watch.look([0])
        return look_for(f"{key}/over") is not None

    wait_until(over)
    if (word := look_for(f"{key}/over")) and word[0] is not None:
        raise word[0]


def _receive(
    entries: Iterable[Entry], key: str, digest: str, title: str, check: Callable[[], object]
) -> Generator[Entry, None, None]:
    inbox = _Inbox(key, digest, title)
    try:
        for entry in entries:
            yield entry
            yield from inbox.arrived()
        while inbox.open:
            check()
            yield from inbox.arrived()
            time.sleep(POLL_S / 2)
    except (Preempted, Interrupted, PeerError):
        end = time.monotonic() + LINGER_S  # what others have finished since is not to be done again
        while inbox.open and time.monotonic() < end:
            yield from inbox.arrived()
            time.sleep(POLL_S / 2)
        raise
    except DataError as error:
        put(f"{key}/over", error)
        raise
    put(f"{key}/over", None)


class _Inbox:
    """Messages of the other ranks.

    Attributes:
        open: ranks whose last message has not come, and how many came of each.
    """

    def __init__(self, key: str, digest: str, title: str) -> None:
        self.key, self.digest = key, digest
        self.open = dict.fromkeys(range(1, here().world), 0)
        self.watch, self.due = _Watch(title), 0.0

    def arrived(self) -> Iterator[Entry]:
        """What has come; looked for ten times a second at most."""
        if time.monotonic() < self.due:
            return
        for rank in list(self.open):
            while rank in self.open and (word := look_for(f"{self.key}/{rank}/{self.open[rank]}", take=True)):
                message: Message = word[0]
                yield from message.entries
                self.open[rank] += 1
                if message.digest:
                    del self.open[rank]
                    self._close(rank, message)
        self.watch.look(list(self.open))
        self.due = time.monotonic() + POLL_S

    def _close(self, rank: int, message: Message) -> None:
        if message.error is not None:
            raise message.error
        if message.digest != self.digest:
            raise DataError(
                f"rank {rank} has other items to work on than rank 0", "see that all ranks see the same data and runs"
            )


class _Watch:
    """Whether ranks give signs of life."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.last: dict[int, tuple[int, float]] = {}
        self.due = 0.0

    def look(self, ranks: Sequence[int]) -> None:
        """Look once a second.

        Raises:
            ResourceError: one has given none for so long that it counts as gone.
        """
        now = time.monotonic()
        if now < self.due:
            return
        self.due = now + 1.0
        for rank in ranks:
            count = beats(rank)
            before = self.last.get(rank)
            if before is None or before[0] != count:
                self.last[rank] = (count, now)
            elif now - before[1] > timeout_s():
                raise ResourceError(
                    f"rank {rank} of {here().world}, in {self.title!r}, has gone, or has not answered for "
                    f"{timeout_s():.0f} s",
                    f"see what it said last and whether its machine is up, then {AGAIN}",
                )
