"""The run directory: what a stage read, what it made, and whether it is done."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from wsss_cli.config.forms import NewerError
from wsss_cli.engine.folders import make_folder
from wsss_cli.engine.outputs import damaged_outputs, list_outputs, remove_output
from wsss_cli.engine.records import (
    Attempt,
    Inputs,
    RunRecord,
    State,
    is_run,
    read_inputs,
    read_record,
    write_inputs,
    write_record,
)
from wsss_cli.engine.shards import remove_shards, shards_at_work
from wsss_cli.errors import (
    BusyError,
    DataError,
    Interrupted,
    Preempted,
    UsageError,
    WriteError,
    WsssError,
)
from wsss_cli.files import how_to_write, json_lines, remove_temporaries, write_text
from wsss_cli.locks import is_locked, locked
from wsss_cli.talk import say

if TYPE_CHECKING:
    from wsss_cli.config.schema import Preset

Value = TypeVar("Value")
SINCE = time.time() - time.monotonic()
PACKAGES = ("wsss", "torch", "torchvision", "timm", "numpy", "opencv-python-headless", "simplejpeg", "pydensecrf2")


@dataclass
class RunDir:
    """An open run directory.

    Attributes:
        path: the directory.
        record: the content of run.json.
        log_name: of the log in it; a shard has one of its own.
    """

    path: Path
    record: RunRecord
    log_name: str = "log.txt"

    @property
    def done(self) -> bool:
        return self.record.state == "done"

    @property
    def lost(self) -> list[dict[str, str]]:
        """Items that could not be worked on: [{'id', 'reason'}]."""
        return [{"id": entry["id"], "reason": entry["reason"]} for entry in self.record.lost]

    def lose(self, name: str, reason: str) -> None:
        """Note an item that cannot be worked on, at once: a run that is stopped and goes on may not meet it again."""
        self.save(lost=[*self.record.lost, {"id": name, "reason": reason}])

    def save(self, **changes: Any) -> None:
        """Change the record and write it.

        Raises:
            WriteError: the disk is full, or somebody has removed the directory.
        """
        if not is_run(self.path):
            raise WriteError(f"{self.path} was removed while it was worked in", "run the same command again")
        self.record = self.record.changed(**changes)
        write_record(self.path, self.record)

    def log(self, line: str) -> None:
        """Append a line to log.txt."""
        _append(self.path / self.log_name, f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")

    def metric(self, row: dict[str, Any]) -> None:
        """Append a row to metrics.jsonl."""
        _append(self.path / "metrics.jsonl", json.dumps(row) + "\n")

    def cut_metrics(self, step: int) -> None:
        """Drop rows past `step`, so that no step counts twice after a resume. A torn last line is dropped too."""
        path = self.path / "metrics.jsonl"
        if path.is_file():
            rows = [row for row in read_metrics(self.path) if row["step"] <= step]
            write_text(path, "".join(json.dumps(row) + "\n" for row in rows))

    def finish(self, **results: Any) -> None:
        """Mark the stage done, list what it has made, and store its results in run.json."""
        list_outputs(self.path)
        self.save(**results, state="done")


class Follower(RunDir):
    """The run directory for another rank than the first, which alone writes: what changes is known, and not written."""

    def save(self, **changes: Any) -> None:
        """Change the record in memory."""
        self.record = self.record.changed(**changes)

    def log(self, line: str) -> None:
        """Nothing."""

    def metric(self, row: dict[str, Any]) -> None:
        """Nothing."""

    def cut_metrics(self, step: int) -> None:
        """Nothing."""

    def finish(self, **results: Any) -> None:
        """Nothing: see the first rank's."""


def _append(path: Path, text: str) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror}", how_to_write(error)) from error


def run_path(runs: Path, stage: str, preset_name: str, identity: str) -> Path:
    """runs/<stage>-<preset>-<first 8 digits of the identity>."""
    return Path(runs) / f"{stage}-{preset_name}-{identity[:8]}"


@contextlib.contextmanager
def open_run(
    path: Path, stage: str, preset: Preset, identity: str, inputs: Inputs, spread: int = 0
) -> Iterator[RunDir]:
    """Create or resume a run directory and hold its lock while the body runs.

    On leaving, run.json says how the attempt ended: 'running' becomes 'failed' or 'preempted' when an error leaves the
    body, and what the body set (see `RunDir.finish`) otherwise.

    Args:
        path: the directory, see `run_path`.
        inputs: what the stage reads; goes to inputs.json.
        spread: of the files of images, where the run is a new one.
    Raises:
        BusyError: another process works in the directory.
        DataError: the directory cannot be made.
        UsageError: the directory was made with another preset or other inputs.
    """
    path = Path(path)
    make_folder(path)
    with locked(path / "LOCK", f"{path} is in use"):
        if working := shards_at_work(path):
            raise BusyError(
                f"shards of {path} are at work: {', '.join(map(str, working))}",
                "wait for them, or stop them; the same command then goes on where they stand",
            )
        remove_temporaries(path)
        run = read_or_create(path, stage, preset, identity, inputs, spread)
        attempt = begin_attempt()
        was_done, earlier = run.done, run.record.attempts
        if not was_done:
            run.save(attempts=[*earlier, attempt], state="running")
        ending: dict[str, Any] = {}
        code = 0
        try:
            yield run
            if not was_done:
                remove_temporaries(path)  # of workers that were killed, and started again, meanwhile
        except BaseException as error:
            log_error(run, error)
            ending["state"], code = ending_of(error)
            raise
        finally:
            if not was_done:
                ending["attempts"] = [*earlier, end_attempt(attempt, code)]
            if ending:
                with contextlib.suppress(WriteError):
                    run.save(**ending)


def begin_attempt() -> Attempt:
    """This process, beginning now."""
    return Attempt(host=socket.gethostname(), pid=os.getpid(), start=_now())


def end_attempt(attempt: Attempt, code: int) -> Attempt:
    """An attempt of this process that has ended now with an exit code."""
    return attempt.model_copy(update={"end": _now(), "exit": code})


def _now() -> float:
    """Seconds since 1970 by a clock that nobody sets while this process runs: what took time took no less than none."""
    return SINCE + time.monotonic()


def ending_of(error: BaseException) -> tuple[Literal["preempted", "failed"], int]:
    """(state, exit code) of work that an error has ended."""
    stopped = isinstance(error, (Preempted, Interrupted, KeyboardInterrupt))
    code = getattr(error, "exit_code", 130 if isinstance(error, KeyboardInterrupt) else 1)
    return "preempted" if stopped else "failed", code


def log_error(run: RunDir, error: BaseException) -> None:
    """Write an error that is being handled into the log, with its traceback where it is a bug."""
    with contextlib.suppress(WriteError):  # a full disk must not hide the first error
        run.log(traceback.format_exc() if not isinstance(error, WsssError) else f"error: {error}")


def read_or_create(path: Path, stage: str, preset: Preset, identity: str, inputs: Inputs, spread: int = 0) -> RunDir:
    """What `open_run` opens; whoever calls it holds the lock. Of a done run, what is damaged is taken away.

    Raises:
        UsageError: the directory was made with another preset or other inputs.
    """
    from wsss_cli.config.lock import difference, to_toml  # here: who reads runs needs no schema of presets

    record = _or_none(read_record, path) if is_run(path) else None
    settings = _or_none(_read_settings, path / "preset.lock.toml") if is_run(path) else None
    if record is not None and record.identity != identity:
        changes = difference(settings.model_dump(mode="json"), preset.model_dump(mode="json")) if settings else []
        shown = "; ".join(changes[:6]) or "the data set or an earlier stage's run is another one"
        raise UsageError(f"{path} was made with other settings: {shown}", "give --runs another folder, or move it away")
    if settings is None:
        write_text(path / "preset.lock.toml", to_toml(preset))
    if record is None or _or_none(read_inputs, path) is None:
        write_inputs(path, inputs)
    if record is None:
        record = RunRecord(
            stage=stage,
            preset=preset.name,
            identity=identity,
            state="created",
            created=time.time(),
            versions=versions(),
            argv=tuple(sys.argv),
            attempts=(),
            spread=_spread_there(path, spread),
        )
        write_record(path, record)
    run = RunDir(path, record)
    if run.done and (damaged := damaged_outputs(path)):
        count = f"{len(damaged)} of its files {'is' if len(damaged) == 1 else 'are'}"
        say(f"{path} was done, but {count} gone or damaged, first {damaged[0].relative_to(path)}: made anew")
        for file in damaged:
            remove_output(path, file)
        remove_shards(path)
        run.save(state="created")
    return run


def _spread_there(path: Path, new: int) -> int:
    """How the files of images are spread in a folder whose record was lost; `new` where there are none."""
    for folder in ("cams", "masks", "labels"):
        first = next((path / folder).iterdir(), None) if (path / folder).is_dir() else None
        if first is not None:
            return 2 if len(first.name) == 2 and set(first.name) <= set("0123456789abcdef") else 0
    return new


def _or_none(read: Callable[[Any], Value], path: Path) -> Value | None:
    """What a record says; None of one that is damaged, which is said: its content is known, and written anew."""
    try:
        return read(path)
    except NewerError:
        raise
    except (DataError, UsageError) as error:
        say(f"{error.message}: written anew; what is done is kept")
        return None


def _read_settings(file: Path) -> Preset:
    if file.is_file() and not file.stat().st_size:
        raise DataError(f"{file} is empty")
    from wsss_cli.config.load import load_preset

    return load_preset(str(file))


def state_of(path: Path, record: RunRecord) -> State:
    """The state of a run: 'running' where shards are at work; 'killed' where its record says 'running' and no process
    holds the lock; else what its record says."""
    if shards_at_work(Path(path)):
        return "running"
    return "killed" if record.state == "running" and not is_locked(Path(path) / "LOCK") else record.state


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    from importlib.metadata import PackageNotFoundError, version

    by_package = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            by_package[package] = version(package)
    return by_package


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Rows of a run's metrics.jsonl: a kind, the number of a step, and numbers; None where one is undefined.

    Other lines are left out: the last is torn where the process was killed while writing, and disks damage some.
    """
    return [row for row in json_lines(path / "metrics.jsonl") if _is_row(row)]


def _is_row(row: dict[str, Any]) -> bool:
    if type(row.get("step")) is not int or not isinstance(row.get("kind"), str):
        return False
    return all(value is None or isinstance(value, (int, float)) for key, value in row.items() if key != "kind")
