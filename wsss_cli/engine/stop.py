"""What happens when a signal asks the process to stop: work that can save something goes to its next safe point."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from wsss_cli.errors import Interrupted, Preempted, WsssError
from wsss_cli.signals import STOPPING

HARD_END_S = 5.0  # after which a second Ctrl-C ends the process whatever it still waits for
AGAIN = "run the same command again to go on"

_heard = 0  # the signal by which `end_at_once` was to end the process; 0: none


class Stopped(BaseException):
    """A signal ended the process where nothing was to be saved. No `Exception`: nobody in between may take it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    @property
    def error(self) -> WsssError:
        """What the command ends with."""
        if self.number == signal.SIGINT:
            return Interrupted("interrupted", AGAIN)
        return Preempted(f"stopped by {signal.Signals(self.number).name}", AGAIN)


class Stop:
    """Ask long work to stop at the next safe point. A second SIGINT stops at once.

    Attributes:
        signal: the signal that asked; 0: none.
        tell: given a line when one asks; called in a signal handler.
        look: called by `check`; what it raises ends the work too.
    """

    def __init__(self, tell: Callable[[str], object] = lambda line: None) -> None:
        self.signal = 0
        self.tell = tell
        self.look: Callable[[], object] = lambda: None

    def check(self) -> None:
        """Raise if a stop was asked for.

        Raises:
            Preempted: after SIGTERM, SIGHUP, SIGUSR1 or SIGUSR2.
            Interrupted: after SIGINT.
        """
        self.look()
        if self.signal == signal.SIGINT:
            raise Interrupted("interrupted; what is done is saved", AGAIN)
        if self.signal:
            raise Preempted(f"stopped by {signal.Signals(self.signal).name}; what is done is saved", AGAIN)

    @contextlib.contextmanager
    def listening(self) -> Iterator[Stop]:
        """Catch the signals while the body runs (in the main thread; elsewhere nothing is caught).

        SIGHUP that is ignored, as under nohup, stays so. One that `end_at_once` has heard counts.
        """
        from wsss_cli.processes import stopping_by  # here: it takes long, and signals are to be heard before

        self.signal = self.signal or _heard
        with stopping_by(self.check), self._catching():
            yield self

    @contextlib.contextmanager
    def _catching(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        end = threading.Timer(HARD_END_S, os._exit, (Interrupted.exit_code,))
        end.daemon = True

        def on_signal(number: int, frame: FrameType | None) -> None:
            if self.signal and number == signal.SIGINT:
                if not end.is_alive():
                    end.start()
                raise KeyboardInterrupt
            if not self.signal:
                once_more = "; once more ends at once" if number == signal.SIGINT else ""
                self.tell(f"{signal.Signals(number).name}: stopping after this step{once_more}")
            self.signal = number

        before = _catch(on_signal)
        try:
            yield
        finally:
            end.cancel()
            for number, handler in before.items():
                signal.signal(number, handler)


def end_at_once() -> None:
    """From here on the signals end this process by `Stopped`; a second SIGINT ends it whatever it still waits for.

    They are ignored once all else of its end is done: then Python takes its handlers away, and what was done would end
    by a signal.
    """

    def on_signal(number: int, frame: FrameType | None) -> None:
        global _heard  # the process has one end
        _heard = number
        _ignore()
        leave_on_signal(Interrupted.exit_code, (signal.SIGINT,))
        raise Stopped(number)

    _catch(on_signal)
    atexit.register(_ignore)  # what is registered first is called last


def _ignore() -> None:
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


def heard() -> Stopped | None:
    """What `end_at_once` has raised; whoever was at work may have made another error of it."""
    return Stopped(_heard) if _heard else None


def leave_on_signal(code: int, numbers: tuple[signal.Signals, ...] = STOPPING) -> None:
    """From here on the signals end this process with `code`, without a word and without waiting for anything."""
    for number in numbers:
        signal.signal(number, lambda number, frame: os._exit(code))


def _catch(handler: Callable[[int, FrameType | None], None]) -> dict[signal.Signals, Any]:
    before = {number: signal.getsignal(number) for number in STOPPING}
    if before[signal.SIGHUP] is signal.SIG_IGN:
        del before[signal.SIGHUP]
    for number in before:
        signal.signal(number, handler)
    return before
