"""What a training logs, sent on to TensorBoard, Weights & Biases or MLflow, by a process of its own.

That process reads metrics.jsonl, which the training writes anyway. So nothing that a logger does, not even to hang, is
met by a training; and what it has not taken can be sent later, from a machine that has a network.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from wsss_cli.engine.rundir import read_metrics
from wsss_cli.errors import DataError, ResourceError, UsageError
from wsss_cli.files import read_json, write_json
from wsss_cli.locks import is_locked, locked
from wsss_cli.ranks.who import SRUN, TORCHRUN
from wsss_cli.talk import shell_word

LOGGERS = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}
"""Names, and the package that each needs."""
POLL_S = 1.0
PATIENCE_S = 20.0  # that the end of a training waits for a logger
STOPPED_S = 3.0  # that one which was stopped waits
Say = Callable[[str], object]


class Sink(Protocol):
    """A place that takes scalars.

    Attributes:
        identity: by which it knows the run again; '' where it need not.
    """

    identity: str

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Take the values of a step; steps never go back."""
        ...

    def close(self) -> None:
        """Hand on what is buffered."""
        ...


def check_loggers(names: Sequence[str]) -> None:
    """Refuse loggers that are not known or not installed.

    Raises:
        UsageError: with what to install.
    """
    for name in names:
        if name not in LOGGERS:
            raise UsageError(f"there is no logger {name!r}", f"one of: {', '.join(LOGGERS)}")
        if importlib.util.find_spec(LOGGERS[name]) is None:
            raise UsageError(f"logger {name}: it is not installed", f"pip install 'wsss[{name}]'")


class _TensorBoard:
    identity = ""

    def __init__(self, run: Path) -> None:
        from tensorboard.summary import Writer

        self._writer = Writer(str(run / "loggers" / "tensorboard"))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    def __init__(self, run: Path, settings: Mapping[str, Any], identity: str) -> None:
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "wsss"),
            name=run.name,
            id=identity or None,
            resume="allow",
            dir=str(run / "loggers"),
            config=dict(settings),
        )
        self.identity: str = self._run.id

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class _MlFlow:
    def __init__(self, run: Path, settings: Mapping[str, Any], identity: str) -> None:
        import mlflow

        self._mlflow = mlflow
        if not identity:
            mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", "wsss"))
        self.identity: str = mlflow.start_run(run_id=identity or None, run_name=run.name).info.run_id
        if not identity:
            flat = _flat(settings)
            for start in range(0, len(flat), 100):  # it takes no more at a time
                mlflow.log_params({key: str(value)[:500] for key, value in flat[start : start + 100]})

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._mlflow.log_metrics(dict(values), step=step)

    def close(self) -> None:
        self._mlflow.end_run()


def _flat(settings: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in settings.items():
        pairs += _flat(value, f"{before}{key}.") if isinstance(value, Mapping) else [(f"{before}{key}", value)]
    return pairs


def open_sink(name: str, run: Path, settings: Mapping[str, Any], identity: str) -> Sink:
    """A place of one of the `LOGGERS` for a run.

    Args:
        settings: the preset, for places that keep settings beside scalars.
        identity: of an earlier sink of the same run, which is gone on with; '' for a new one.
    """
    match name:
        case "tensorboard":
            return _TensorBoard(run)
        case "wandb":
            return _Wandb(run, settings, identity)
    return _MlFlow(run, settings, identity)


def scalars(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row of metrics.jsonl, named 'train/loss', 'val/miou' and so on."""
    numbers = {key: value for key, value in row.items() if isinstance(value, (int, float)) and key != "step"}
    return {f"{row.get('kind', 'train')}/{key}": float(value) for key, value in numbers.items()}


def send(run: Path, name: str, settings: Mapping[str, Any], *, follow: bool = False) -> int:
    """Send what a run has logged and this logger has not had yet, each step once.

    How far it got is in loggers/<name>.json of the run. A step that a resumed training makes again has the same
    numbers and is not sent again.

    Args:
        follow: go on for as long as a process works in the run, or until SIGTERM; what is there then is sent too.
    Returns:
        Rows sent.
    Raises:
        BusyError: another process sends it there.
        ResourceError: the logger fails.
        DataError: loggers/<name>.json is damaged.
    """
    (run / "loggers").mkdir(exist_ok=True)
    with locked(run / "loggers" / f"{name}.lock", f"{run} is being sent to {name}"):
        return _send(run, name, settings, follow)


def _send(run: Path, name: str, settings: Mapping[str, Any], follow: bool) -> int:
    state = run / "loggers" / f"{name}.json"
    known = read_json(state) if state.is_file() else {"identity": "", "sent": []}
    if not isinstance(known, dict) or not isinstance(known.get("sent"), list):
        raise DataError(f"{state} is damaged", "remove it: all is sent again, as a new run")
    sent = {tuple(key) for key in known["sent"]}
    asked: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number)) if follow else None
    sink: Sink | None = None
    count = 0
    try:
        while True:
            last = bool(asked) or not follow or not is_locked(run / "LOCK")  # looked at before the rows are read
            begin = time.monotonic()
            rows = read_metrics(run)
            next_look = time.monotonic() + max(POLL_S, 20 * (time.monotonic() - begin))  # long logs are read less often
            for row in rows:
                key = (row.get("kind", "train"), row["step"])
                if key in sent:
                    continue
                with _its_faults(name):
                    sink = sink or open_sink(name, run, settings, known["identity"])
                    sink.write(row["step"], scalars(row))
                sent.add(key)
                count += 1
            if sink is not None:
                write_json(state, {"identity": sink.identity, "sent": sorted(sent)})
            if last:
                return count
            while time.monotonic() < next_look and not asked:
                time.sleep(0.1)
    finally:
        if sink is not None:
            with _its_faults(name):
                sink.close()
        if before is not None:
            signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _its_faults(name: str) -> Iterator[None]:
    """What a logger's own code raises is said in one line."""
    try:
        yield
    except Exception as error:
        told = " ".join(str(error).split())[:200]
        raise ResourceError(
            f"{name}: {type(error).__name__}: {told}", "see whether the service can be reached, then run again"
        ) from error


@contextlib.contextmanager
def sending(run: Path, names: Sequence[str], say: Say) -> Iterator[None]:
    """While the body trains in a run, a process for each logger sends on what it logs.

    At the end it has 20 s for the rest. One that fails or is not done is said, with the command that sends the rest.
    """
    started: list[tuple[str, subprocess.Popen[bytes]]] = []
    for name in names:
        with contextlib.suppress(OSError):
            (run / "loggers").mkdir(exist_ok=True)
            with (run / "loggers" / f"{name}.log").open("wb") as log:
                command = [sys.executable, "-m", "wsss_cli", "runs", "log", str(run), "--to", name, "--follow"]
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=_alone()
                )
            started.append((name, process))
    patience = PATIENCE_S
    try:
        yield
    except BaseException:
        patience = STOPPED_S  # somebody waits for the end
        raise
    finally:
        for _, process in started:
            process.terminate()
        until = time.monotonic() + patience
        for name, process in started:
            code = _ended(process, max(until - time.monotonic(), 0.1))
            if code:
                say(f"logger {name} failed: {_last_line(run / 'loggers' / f'{name}.log')}")
            if code != 0:
                say(
                    f"logger {name} has not taken all of it; send the rest: wsss runs log {shell_word(run)} --to {name}"
                )


def _alone() -> dict[str, str]:
    """The environment without what makes a process one of several ranks."""
    return {key: value for key, value in os.environ.items() if key not in (*TORCHRUN, *SRUN)}


def _ended(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """The exit code of a process; None: it was ended, with all that it has started, as it took longer."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(seconds)
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5.0)
    return None


def _last_line(log: Path) -> str:
    with contextlib.suppress(OSError):
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        told = [line for line in lines if line.startswith("error: ")] or lines
        return told[-1].removeprefix("error: ")[:300] if told else "without a word"
    return "without a word"
