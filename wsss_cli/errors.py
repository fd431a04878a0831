"""The one exception tree. Each class carries its exit code; this is the only exit-code table of the project.

| code | meaning |
|---|---|
| 0 | ok |
| 1 | a bug: the traceback is in the run's log.txt |
| 2 | usage, or a bad preset |
| 3 | bad data or weights; disk, memory or another resource of the machine ran out |
| 4 | a gate failed (`eval --min-miou`) |
| 5 | training diverged (a value was not finite) |
| 6 | the run directory is busy |
| 75 | preempted: run the same command again |
| 130 | interrupted by the user |
"""

from __future__ import annotations

from collections.abc import Sequence


class WsssError(Exception):
    """A failure the user can act on: what, where, and how to fix it.

    Args:
        message: one line that says what is wrong and where.
        hint: one line that says how to fix it; printed after the message.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(WsssError):
    """Arguments or a preset that cannot be taken."""

    exit_code = 2


class DataError(WsssError):
    """An image, mask, list or data set directory that cannot be used."""

    exit_code = 3


class WriteError(WsssError):
    """A file that cannot be written, the disk being full for instance. Unlike one bad image, it ends a whole job."""

    exit_code = 3


class WeightsError(WsssError):
    """A checkpoint or weight file that cannot be loaded."""

    exit_code = 3


class ResourceError(WsssError):
    """Memory, processes, files or a disk of the machine do not suffice or do not answer. It ends a whole job."""

    exit_code = 3


class GateError(WsssError):
    """A required score was not reached."""

    exit_code = 4


class DivergedError(WsssError):
    """A loss or gradient was not finite."""

    exit_code = 5


class BusyError(WsssError):
    """Another process is working in the run directory."""

    exit_code = 6


class Preempted(WsssError):
    """Asked to stop by a signal other than SIGINT; everything done so far is saved."""

    exit_code = 75


class Interrupted(WsssError):
    """Stopped by the user (SIGINT); everything done so far is saved."""

    exit_code = 130


def together(errors: Sequence[WsssError], hint: str = "") -> WsssError:
    """One error of several: a line for each, and for each hint; one alone as it is.

    Args:
        errors: at least one.
        hint: what else helps against all of them.
    Returns:
        A `UsageError` where one of them is, else an error of the first one's class.
    """
    if len(errors) == 1:
        return errors[0]
    first = next((error for error in errors if isinstance(error, UsageError)), errors[0])
    hints = dict.fromkeys(each for each in (*(error.hint for error in errors), hint) if each)
    return type(first)("\n".join(error.message for error in errors), "\n".join(hints))


class PeerError(WsssError):
    """Another of the processes that work together ended, and has said why; this one has nothing to add.

    Args:
        code: its exit code.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = code


NO_MEMORY = (
    "out of memory",
    "not enough memory",
    "insufficient memory",
    "can't allocate memory",
    "cannot allocate memory",
    "failed to map segment",
    "bad_alloc",
    "alloc_failed",
    "could not create a primitive",
)
"""What libraries say, in small letters, when memory has run out."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an error of any library says that memory, of the machine or of a GPU, has run out."""
    return isinstance(error, MemoryError) or any(text in str(error).lower() for text in NO_MEMORY)
