"""`wsss runs`."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from wsss_cli.cli import console
from wsss_cli.cli.options import RUNS, JsonOption, RunsOption
from wsss_cli.errors import DataError, UsageError
from wsss_cli.files import read_json

app = typer.Typer(no_args_is_help=True, help="List and show run directories.")

SCORES = {
    "cam": {"seed mIoU": ("best", "miou")},
    "pseudo": {"pseudo mask mIoU, 255 as background": ("background", "miou")},
    "train": {"mIoU, single scale": ("single", "miou"), "mIoU, ms+flip": ("ms_flip", "miou")},
}
"""Of each stage: what its scores are called, and where eval.json has them."""


@app.command("list")
def list_runs(runs: RunsOption = RUNS, json_output: JsonOption = False) -> None:
    """List the run directories, newest first.

    \b
    wsss runs list
    wsss runs list --runs /scratch/runs --json
    """
    from wsss_cli.engine.rundir import find_runs

    found: list[dict[str, Any]] = [
        {
            "run": str(path),
            "stage": record.get("stage"),
            "preset": record.get("preset"),
            "state": record.get("state"),
            "created": record.get("created"),
            "scores": _scores(path, record),
        }
        for path, record in find_runs(runs)
    ]
    if json_output:
        console.result_json({"runs": found})
        return
    if not found:
        console.say(f"no runs in {runs}")
        console.say("next: wsss run --preset toy   (wsss presets list names the presets)")
        return
    from wsss_cli.report.tables import Table, percent

    rows = []
    for run in found:
        scores = " / ".join(percent(value) for value in run["scores"].values())
        rows.append((run["run"], f"{run['stage']}", f"{run['state']}", _when(run["created"]), scores or "-"))
    columns = ("run", "stage", "state", "created", "mIoU")
    notes = ("mIoU of a train run: single scale / ms+flip, where it was scored",)
    console.table(Table("", columns, tuple(rows), notes=notes, left=frozenset({0, 1, 2, 3})))


@app.command()
def show(
    run: Annotated[str, typer.Argument(help="A run directory, or its name in the runs folder.")],
    runs: RunsOption = RUNS,
    json_output: JsonOption = False,
) -> None:
    """Show what a run is, how its attempts ended, and its scores.

    \b
    wsss runs show runs/train-toy-1a2b3c4d
    wsss runs show train-toy-1a2b3c4d --json
    """
    path = next((path for path in (Path(run), runs / run) if (path / "run.json").is_file()), None)
    if path is None:
        raise UsageError(f"{run} is no run directory", f"wsss runs list --runs {runs} names those there are")
    record = read_json(path / "run.json")
    if not isinstance(record, dict):
        raise DataError(f"{path}/run.json is no record of a run")
    scores = _scores(path, record)
    if json_output:
        console.result_json({**record, "run": str(path), "scores": scores})
        return
    from wsss_cli.report.tables import Table, percent

    rows = [(key, f"{record.get(key, '-')}") for key in ("stage", "preset", "state", "identity")]
    rows.append(("created", _when(record.get("created"))))
    for number, attempt in enumerate(record.get("attempts") or [], 1):
        rows.append((f"attempt {number}", _attempt(attempt)))
    rows.append(("images lost", f"{len(record.get('lost') or [])}"))
    rows += [(name, percent(value)) for name, value in scores.items()]
    versions = ", ".join(f"{name} {version}" for name, version in (record.get("versions") or {}).items())
    notes = (versions,) if versions else ()
    console.table(Table(str(path), ("", ""), tuple(rows), notes=notes, left=frozenset({0, 1})))


def _scores(path: Path, record: dict[str, Any]) -> dict[str, float | None]:
    """The scores in a run's eval.json by name; those that it has."""
    found = {}
    with contextlib.suppress(DataError):
        stored = read_json(path / "eval.json")
        for name, (mode, key) in SCORES.get(str(record.get("stage")), {}).items():
            if isinstance(stored, dict) and isinstance(part := stored.get(mode), dict) and key in part:
                found[name] = part[key]
    return found


def _when(seconds: Any) -> str:
    if not isinstance(seconds, (int, float)):
        return "-"
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _attempt(attempt: dict[str, Any]) -> str:
    where = f"{_when(attempt.get('start'))}, host {attempt.get('host')}, pid {attempt.get('pid')}"
    if attempt.get("end") is None:
        return f"{where}, not ended"
    return f"{where}, {attempt['end'] - attempt['start']:.0f} s, exit {attempt.get('exit')}"
