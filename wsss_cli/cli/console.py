"""What a person or a script sees: results on stdout, talk and progress on stderr. Names are never parsed as markup."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from wsss_cli.escapes import visible
from wsss_cli.talk import complain as complain
from wsss_cli.talk import is_quiet
from wsss_cli.talk import say as say

if TYPE_CHECKING:
    from wsss_cli.report.tables import Table

HEARTBEAT_S = 10.0


class Stream:
    """A standard stream that never ends work: what nobody reads goes nowhere, quietly.

    Attributes:
        error: what first kept it from being written.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.terminal = stream.isatty()
        self.error: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write text, or drop it."""
        try:
            return self.stream.write(text)
        except OSError as error:
            self._close(error)
            return len(text)

    def flush(self) -> None:
        """Hand on what is buffered, or drop it."""
        try:
            self.stream.flush()
        except OSError as error:
            self._close(error)

    def _close(self, error: OSError) -> None:
        self.error = self.error or error
        with contextlib.suppress(OSError):  # what is still buffered goes nowhere too
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())


def open_streams() -> None:
    """Make stdout and stderr a `Stream` each; those that are closed go nowhere, and no file takes their number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name) or os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace")
        setattr(sys, name, Stream(stream))


def leave_to_first() -> None:
    """From here on this process, which is another rank than the first, says nothing but what ends it."""
    sys.stdout = sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  # as long as the process


def say_of_rank(rank: int, line: str) -> None:
    """A line on the process's own stderr, after `leave_to_first`."""
    with contextlib.suppress(OSError):
        os.write(2, f"{visible(f'rank {rank}: {line}')}\n".encode())


def lost_result() -> OSError | None:
    """What kept the results from stdout, a full disk for instance; None where there was only nobody to read them."""
    sys.stdout.flush()
    if not isinstance(sys.stdout, Stream) or sys.stdout.error is None:
        return None
    unread = sys.stdout.terminal or sys.stdout.error.errno in (errno.EPIPE, errno.EBADF)
    return None if unread else sys.stdout.error


def say_at_once(line: str) -> None:
    """A line of talk from a signal handler, past what is being written."""
    with contextlib.suppress(OSError):
        os.write(2, f"{visible(line)}\n".encode())


def result(text: str) -> None:
    """A result on stdout; what a terminal would obey in it is shown as an escape, so that JSON stays JSON."""
    text = visible(text)
    sys.stdout.write(text if text.endswith("\n") else f"{text}\n")
    sys.stdout.flush()


def result_json(value: Any) -> None:
    """Exactly one JSON object on stdout; what is not finite becomes null, a path text, a numpy number a plain one."""
    result(json.dumps(_plain(value), allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return str(value)
    if hasattr(value, "tolist"):  # numpy, without importing it
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def table(table: Table) -> None:
    """A table on stdout: by Rich on a terminal, plain elsewhere."""
    from wsss_cli.report.tables import print_table

    print_table(table, sys.stdout)
    sys.stdout.flush()


def width() -> int:
    """Columns of the terminal; 80 where there is none."""
    return shutil.get_terminal_size().columns


def picture(png: bytes) -> None:
    """Show a PNG on stdout where that is a terminal which can, by its own word; nothing elsewhere."""
    from wsss_cli.cli.inline import inlined

    if sys.stdout.isatty() and (codes := inlined(png, os.environ)):
        sys.stdout.write(f"{codes}\n")
        sys.stdout.flush()


def rich_terminal() -> bool:
    """Whether stderr is a terminal that can redraw a line."""
    return sys.stderr.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


class _Bar:
    def __init__(self, update: Callable[[int, dict[str, Any]], None]) -> None:
        self.done, self.update = 0, update

    def advance(self, n: int = 1, **fields: Any) -> None:
        self.done += n
        self.update(self.done, fields)


@contextlib.contextmanager
def progress(total: int, title: str) -> Iterator[_Bar]:
    """Progress over `total` items; `.advance(n)` as they are done. A Rich bar on a terminal, else a heartbeat line."""
    if is_quiet():
        yield _Bar(lambda done, fields: None)
        return
    if not rich_terminal():
        yield _Bar(_heartbeat(total, title))
        return
    from rich.text import Text

    with _rich_progress() as bar:
        task = bar.add_task(Text(visible(title)).plain, total=total, note="")
        yield _Bar(lambda done, fields: bar.update(task, completed=done, note=_note(fields)))


@contextlib.contextmanager
def training_progress(title: str, iters: int) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Progress of a training; takes its events ('train' and 'val')."""
    if is_quiet():
        yield lambda event: None
        return
    if not rich_terminal():
        yield _training_heartbeat(title, iters)
        return
    with _rich_progress() as bar:
        task = bar.add_task(title, total=iters, note="")

        def show(event: dict[str, Any]) -> None:
            if event["kind"] == "train":
                bar.update(task, completed=event["step"], note=_event_line(event, iters, counts=False))
            else:
                bar.print(f"{title}  {_event_line(event, iters)}", markup=False, highlight=False)

        yield show


def _rich_progress() -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=Console(stderr=True),
    )


def _heartbeat(total: int, title: str) -> Callable[[int, dict[str, Any]], None]:
    begin = time.monotonic()
    last = [begin]
    say(f"{title}  0/{total}")

    def update(done: int, fields: dict[str, Any]) -> None:
        now = time.monotonic()
        if now - last[0] >= HEARTBEAT_S or done >= total:
            last[0] = now
            elapsed = now - begin
            left = elapsed / max(done, 1) * (total - done)
            say(f"{title}  {done}/{total}  {elapsed:.0f} s, {left:.0f} s left  {_note(fields)}".rstrip())

    return update


def _training_heartbeat(title: str, iters: int) -> Callable[[dict[str, Any]], None]:
    last = [-math.inf]

    def show(event: dict[str, Any]) -> None:
        now = time.monotonic()
        if event["kind"] != "train" or now - last[0] >= HEARTBEAT_S or event["step"] >= iters:
            last[0] = now if event["kind"] == "train" else last[0]
            say(f"{title}  {_event_line(event, iters)}")

    return show


def _note(fields: dict[str, Any]) -> str:
    return " ".join(f"{key} {value}" for key, value in fields.items())


def _event_line(event: dict[str, Any], iters: int, *, counts: bool = True) -> str:
    if event["kind"] == "val":
        score = event.get("miou")
        return f"val at {event['step']}: mIoU {'-' if score is None else f'{score:.2f}'}"
    head = f"{event['step']}/{iters}  " if counts else ""
    memory = f", {event['memory_gib']} GiB" if "memory_gib" in event else ""
    eta = f", {event['eta_s']:.0f} s left" if counts else ""
    return (
        f"{head}loss {event['loss']:.4f}, lr {event['lr']:.2e}, {event['img_s']:.1f} img/s, "
        f"data wait {100 * event['data_wait']:.0f} %{memory}{eta}"
    )
