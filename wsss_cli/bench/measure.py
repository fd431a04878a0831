"""Time ways to do the same work beside each other: in turn, warmed up, with the memory and the faults of each."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import inspect
import platform
import re
import statistics
import time
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from wsss_cli.engine.context import Context
from wsss_cli.errors import Interrupted, Preempted, UsageError, WsssError

Work = Callable[[], Any]
Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One way to do the work.

    Attributes:
        name: of its row.
        prepare: gives the call that is timed; raises where it cannot be had here.
        host: its memory is that of the process, even on a machine with a GPU.
    """

    name: str
    prepare: Callable[[], Work]
    host: bool = False


@dataclass
class Measured:
    """What was seen of a case.

    Attributes:
        reason: why there are no times; empty where there are.
        seconds: of a call, one value for each turn.
        memory_mib: what it added at its peak, in the first call, to what was held before.
        result: of its last call.
    """

    name: str
    reason: str = ""
    seconds: list[float] = field(default_factory=list)
    memory_mib: float | None = None
    result: Any = None


def measure(
    cases: Sequence[Case], ctx: Context, *, repeats: int, calls: int = 1, warm_up: int = 1, title: str
) -> list[Measured]:
    """Time the cases in turn, so that what else the machine does meets all of them alike.

    Every case is first prepared and called `warm_up` times, unmeasured but for its memory. A case that fails keeps the
    reason, and the others go on.

    Args:
        repeats: turns; every second one goes from the last case to the first.
        calls: calls of a case in a turn; their mean is one value.
    Raises:
        Interrupted, Preempted: asked to stop.
    """
    timings = [Measured(case.name) for case in cases]
    works: list[Work | None] = [None] * len(cases)
    with ctx.ui.progress(len(cases) * (repeats + 1), title) as bar:
        for index, case in enumerate(cases):
            ctx.stop.check()
            works[index] = _guarded(timings[index], _warm, case, timings[index], ctx, warm_up)
            bar.advance(1)
        for turn in range(repeats):
            for index in range(len(cases)) if turn % 2 == 0 else reversed(range(len(cases))):
                work = works[index]
                if work is not None:
                    works[index] = _guarded(timings[index], _turn, work, timings[index], ctx, calls)
                bar.advance(1)
    return timings


def _guarded(row: Measured, step: Callable[..., Work], *arguments: Any) -> Work | None:
    """What a step gives, or None, and why in the row: whatever a peer or a compiler raises ends its row alone."""
    try:
        return step(*arguments)
    except (Interrupted, Preempted):
        raise
    except Exception as error:
        row.reason, row.seconds, row.result = _reason(error), [], None
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()
    return None


def _reason(error: Exception) -> str:
    if isinstance(error, WsssError):
        return error.message
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return "out of memory"
    if isinstance(error, ImportError):
        return f"{error.name or error} is not installed"
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:120] if lines else ''}"


def _warm(case: Case, row: Measured, ctx: Context, warm_up: int) -> Work:
    def begin() -> Work:
        work = case.prepare()
        for _ in range(warm_up):
            ctx.stop.check()
            row.result = work()
        return work

    work: Work
    work, row.memory_mib = added_memory(begin, torch.device("cpu") if case.host else ctx.device)
    return work


def _turn(work: Work, row: Measured, ctx: Context, calls: int) -> Work:
    row.result = None
    wait(ctx.device)
    begin = time.perf_counter()
    for _ in range(calls):
        ctx.stop.check()
        row.result = work()
    wait(ctx.device)
    row.seconds.append((time.perf_counter() - begin) / calls)
    return work


def wait(device: torch.device) -> None:
    """Until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def added_memory(work: Callable[[], Any], device: torch.device) -> tuple[Any, float | None]:
    """(result of `work`, MiB at its peak above what was held before).

    On a GPU what torch allocated; on a CPU what was resident, imports included; None where the system does not say.
    """
    if device.type == "cuda":
        gc.collect()
        wait(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = work()
        wait(device)
        return result, (torch.cuda.max_memory_allocated(device) - before) / 2**20
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # else it would hide in memory that was freed, but kept
    held = _resident("VmRSS") if _reset_peak() else None
    result = work()
    peak = _resident("VmHWM")
    return result, max(peak - held, 0.0) if held is not None and peak is not None else None


def _reset_peak() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: VmHWM begins anew
    except OSError:
        return False
    return True


def _resident(key: str) -> float | None:
    match = re.search(rf"{key}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return int(match[1]) / 1024 if match else None


def make_rows(timings: Sequence[Measured], *, units: float, unit: str, base: str) -> list[Row]:
    """Rows of a table.

    Args:
        units: what a call works off: images, iterations.
        unit: head of the rate: 'images_s', 'it_s'.
        base: the row that `ratio` compares with: its time over the row's time, so above 1 is faster.
    Returns:
        {'name', 'ms', 'ms_min', 'ms_max', `unit`, 'ratio', 'memory_mib'} with the median, or {'name', 'reason'}.
    """
    medians = {one.name: statistics.median(one.seconds) for one in timings if one.seconds}
    rows = []
    for one in timings:
        if one.name not in medians:
            rows.append({"name": one.name, "reason": one.reason})
            continue
        seconds = medians[one.name]
        row = {
            "name": one.name,
            "ms": 1000 * seconds,
            "ms_min": 1000 * min(one.seconds),
            "ms_max": 1000 * max(one.seconds),
            unit: units / seconds,
            "ratio": medians[base] / seconds if base in medians else None,
            "memory_mib": one.memory_mib,
        }
        rows.append({key: five_digits(value) for key, value in row.items()})
    return rows


def five_digits(value: Any) -> Any:
    """A float with five significant digits; anything else as it is."""
    return float(f"{value:.5g}") if isinstance(value, float) else value


def require_choice(function: Callable[..., Any], keyword: str, value: str) -> None:
    """Raise unless a function has a keyword argument that takes `value`, by its signature.

    Raises:
        UsageError: it has not.
    """
    if keyword not in inspect.signature(function).parameters:
        raise UsageError(f"this version of {function.__name__} has no {keyword}")
    with contextlib.suppress(NameError):  # a type that is imported for checkers only says nothing
        choices = typing.get_args(typing.get_type_hints(function)[keyword])
        if choices and value not in choices:
            raise UsageError(f"this version of {function.__name__} has no {keyword} {value!r}")


def require_cuda(device: torch.device) -> None:
    """Raise on a CPU.

    Raises:
        UsageError: it is one.
    """
    if device.type != "cuda":
        raise UsageError("needs a CUDA device")


def report(
    kind: str,
    ctx: Context,
    rows: Sequence[Row],
    *,
    settings: dict[str, Any],
    ceilings: dict[str, Any],
    ratio_to: str,
    notes: Sequence[str],
    peers: Sequence[str] = (),
) -> dict[str, Any]:
    """What a benchmark prints: where, when, with what, and its rows.

    Args:
        peers: names of the packages that rows are of.
    """
    return {
        "bench": kind,
        "device": ctx.device_name,
        "cpu": _cpu_name(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "wsss": _version("wsss"),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "triton": _version("triton"),
            **{peer: _version(peer) for peer in peers},
        },
        "settings": settings,
        "ceilings": ceilings,
        "ratio_to": ratio_to,
        "rows": list(rows),
        "notes": list(notes),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        match = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        if match:
            return match[1].strip()
    return platform.processor() or platform.machine()
