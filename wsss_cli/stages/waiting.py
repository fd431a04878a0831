"""Waiting for another process to let go of a lock."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from wsss_cli.engine.context import Context
from wsss_cli.errors import BusyError
from wsss_cli.locks import locked

POLL_S = 1.0


@contextlib.contextmanager
def awaited(file: Path, busy: str, ctx: Context) -> Iterator[None]:
    """Hold a lock, once whoever holds it now has ended or let go of it."""
    told = False
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(locked(file, busy))
                break
            except BusyError as error:
                told = told or say_waiting(error, ctx)
                pause(ctx)
        yield


def say_waiting(error: BusyError, ctx: Context) -> bool:
    """Say what is waited for."""
    ctx.ui.say(f"{error.message}: waiting for it")
    return True


def pause(ctx: Context) -> None:
    """Wait a little, unless this process is asked to stop."""
    ctx.stop.check()
    time.sleep(POLL_S)
