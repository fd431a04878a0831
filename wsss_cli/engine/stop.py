"""A flag that SIGTERM and SIGINT set, looked at between two pieces of work."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from wsss_cli.errors import Interrupted, Preempted


class Stop:
    """Ask long work to stop at the next safe point. A second SIGINT stops at once."""

    def __init__(self) -> None:
        self.signal = 0

    def check(self) -> None:
        """Raise if a stop was asked for.

        Raises:
            Preempted: after SIGTERM.
            Interrupted: after SIGINT.
        """
        if self.signal == signal.SIGTERM:
            raise Preempted("stopped by SIGTERM; what is done is saved", "run the same command again to go on")
        if self.signal == signal.SIGINT:
            raise Interrupted("interrupted; what is done is saved", "run the same command again to go on")

    @contextlib.contextmanager
    def listening(self) -> Iterator[Stop]:
        """Catch SIGTERM and SIGINT while the body runs (in the main thread; elsewhere nothing is caught)."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        old = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

        def on_signal(number: int, frame: FrameType | None) -> None:
            if self.signal and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.signal = number

        for number in old:
            signal.signal(number, on_signal)
        try:
            yield self
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
