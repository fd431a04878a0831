"""How far work is: a row that fits the terminal; elsewhere lines, the first one soon, then one a minute at least."""

from __future__ import annotations

import contextlib
import math
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from wsss_cli.escapes import one_line
from wsss_cli.talk import duration, is_quiet, note, said, say, say_at_once

FIRST_S, MINUTE_S = 10.0, 50.0  # between the first two lines, and between two lines at most
LONGEST_S = 60.0  # of silence; then a thread says how far work is
GIB = 2**20  # of what getrusage counts in
NARROW, WIDE = 72, 110  # columns of a terminal


class _Work:
    """What is known of a piece of work: how much of it is done, and what is said of it."""

    def __init__(self, title: str, total: int) -> None:
        self.title, self.total = one_line(title), total
        self.done, self.begin = 0, time.monotonic()
        self.loss = self.rate = self.more = ""
        self.left: float | None = None
        self.due, self.gap = (
            -math.inf,
            FIRST_S,
        )  # when the next line is said, and how long after it the one that follows

    def count(self, done: int, fields: dict[str, Any]) -> None:
        """So many items are done."""
        seconds = max(time.monotonic() - self.begin, 1e-9)
        self.done, self.left = done, seconds / done * (self.total - done) if done else None
        pace = done / seconds
        self.rate = f"{pace:.1f}/s" if pace >= 0.5 or not done else f"{1 / pace:.1f} s each"
        self.more = " ".join(f"{key} {value}" for key, value in fields.items())

    def train(self, event: dict[str, Any]) -> None:
        """A training is as far as its event says."""
        self.done, self.left = event["step"], event["eta_s"]
        self.rate = f"{event['img_s']:.1f} img/s"
        if event.get("loss") is not None:
            self.loss = f"loss {event['loss']:.4f}"
        if "lr" in event:
            self.more = f"lr {event['lr']:.2e}, data wait {100 * event['data_wait']:.0f} %"

    def line(self) -> str:
        """All of it in a line of a log."""
        share = f"{100 * self.done // max(self.total, 1)} %"
        left = f"{duration(self.left)} left" if self.left is not None else ""
        parts = [share, self.loss, self.rate, _memory(), left, self.more]
        return f"{self.title}  {self.done}/{self.total}  {', '.join(part for part in parts if part)}"

    def fields(self) -> dict[str, str]:
        """What columns of a terminal show besides title and counts."""
        left = f"{duration(self.left)} left" if self.left is not None else ""
        short = left.removesuffix(" left").replace(" ", "")
        return {"loss": self.loss, "rate": self.rate, "more": self.more, "left": left, "short": short}


def _memory() -> str:
    """The most memory that this process has taken so far; of a GPU, if it uses one."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB of the GPU"
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / GIB:.1f} GiB"


_stack: list[_Work] = []  # what is at work, what is within it last
_rows: list[Any] = []  # the Rich progress that shows all of it


class Bar:
    """Handed to whoever works: `.advance(n)` as items are done; further fields are shown."""

    def __init__(self, update: Callable[[int, dict[str, Any]], None]) -> None:
        self.done, self.update = 0, update

    def advance(self, n: int = 1, **fields: Any) -> None:
        """So many more are done."""
        self.done += n
        self.update(self.done, fields)


@contextlib.contextmanager
def progress(total: int, title: str) -> Iterator[Bar]:
    """Progress over `total` items."""
    work = _Work(title, total)
    with _shown(work) as show:

        def update(done: int, fields: dict[str, Any]) -> None:
            work.count(done, fields)
            show(done >= total)

        if not _rows and total:
            say(f"{work.title}  0/{total}")
        yield Bar(update)


@contextlib.contextmanager
def training_progress(title: str, iters: int) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Progress of a training; takes its events ('now', 'train' and 'val')."""
    work = _Work(title, iters)
    with _shown(work) as show:

        def update(event: dict[str, Any]) -> None:
            if event["kind"] == "val":
                score = event.get("miou")
                say(f"{work.title}  val at {event['step']}: mIoU {'-' if score is None else f'{score:.2f}'}")
                return
            work.train(event)
            show(work.done >= iters)

        yield update


@contextlib.contextmanager
def _shown(work: _Work) -> Iterator[Callable[[bool], None]]:
    """Show a piece of work while the body does it; the body calls what this yields, with whether that is the end."""
    _stack.append(work)
    try:
        if is_quiet():
            yield lambda last: None
        elif rich_terminal():
            with _row(work) as show:
                yield show
        else:
            yield _lines(work)
    finally:
        _stack.remove(work)


def rich_terminal() -> bool:
    """Whether stderr is a terminal that can redraw a line."""
    return sys.stderr.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


def _lines(work: _Work) -> Callable[[bool], None]:
    """A line at once, then at growing intervals."""

    def show(last: bool) -> None:
        now = time.monotonic()
        if now >= work.due or last:
            if work.due > 0:
                work.gap = min(2 * work.gap, MINUTE_S)
            work.due = now + work.gap
            say(work.line())

    return show


@contextlib.contextmanager
def _row(work: _Work) -> Iterator[Callable[[bool], None]]:
    """A row of a terminal; those of work within other work stand below it and go when that is done."""
    outermost = not _rows
    if outermost:
        _rows.append(_rich_progress())
        _rows[0].start()
    rows = _rows[0]
    row = rows.add_task(work.title, total=work.total, **work.fields())
    try:
        yield lambda last: rows.update(row, completed=work.done, **work.fields())
    finally:
        if outermost:
            rows.stop()
            _rows.clear()
            note()
        else:
            rows.remove_task(row)


def _rich_progress() -> Any:
    """Columns that fit the terminal: none of them is cut but the title."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.table import Column

    console = Console(stderr=True)

    def text(field: str, **how: Any) -> TextColumn:
        return TextColumn(field, markup=False, table_column=Column(no_wrap=True, **how))

    narrow, wide = console.width < NARROW, console.width >= WIDE
    shown = ("loss", "rate", *(["more"] if wide else []), "short" if narrow else "left")
    columns = [
        text("{task.description}", overflow="ellipsis", max_width=13 if narrow else 20),
        *([BarColumn(bar_width=None, table_column=Column(ratio=1))] if wide else []),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        *([] if narrow else [text("{task.percentage:.0f} %")]),
        *(text(f"{{task.fields[{name}]}}") for name in shown),
    ]
    return Progress(*columns, console=console, expand=wide)


# -- no long silence ---------------------------------------------------------------------------------------------------


def watch() -> None:
    """From here on a line is said at least once a minute, by a thread that ends with the process."""
    threading.Thread(target=_watch, name="watch", daemon=True).start()


def _watch() -> None:
    while True:
        time.sleep(max(1.0, said() + LONGEST_S - time.monotonic()))
        if not _rows and not is_quiet() and time.monotonic() - said() >= LONGEST_S:
            work = _stack[-1] if _stack else None
            if work is not None:
                work.due = time.monotonic() + work.gap
            say_at_once(f"still at work{f': {work.line()}' if work else ''}")
