"""`wsss runs`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wsss_cli.cli import compare, completion, console
from wsss_cli.cli.commands import App
from wsss_cli.cli.following import line
from wsss_cli.cli.options import RUNS, JsonOption, RunsOption
from wsss_cli.errors import DataError, UsageError
from wsss_cli.scoring.stored import read_scores

if TYPE_CHECKING:
    from wsss_cli.engine.records import Attempt, RunRecord

app = App(help="List, show, compare and plot runs.")
app.command("compare")(compare.compare)
app.command("plot")(compare.plot)
app.command("log")(compare.log)

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
    from wsss_cli.engine.records import find_runs
    from wsss_cli.engine.rundir import state_of

    listing: list[dict[str, Any]] = [
        {
            "run": str(path),
            "stage": record.stage,
            "preset": record.preset,
            "state": state_of(path, record),
            "created": record.created,
            "scores": _scores(path, record),
        }
        for path, record in find_runs(runs, say=console.say)
    ]
    if json_output:
        console.result_json({"runs": listing})
        return
    if not listing:
        console.say(f"no runs in {runs}")
        console.say("next: wsss run --preset toy   (wsss presets list names the presets)")
        return
    from wsss_cli.report.tables import Table, percent

    told = all(Path(run["run"]).name.startswith(f"{run['stage']}-") for run in listing)  # the stage, by the name
    rows: list[tuple[str, ...]] = []
    for run in listing:
        scores = " / ".join(percent(value) for value in run["scores"].values())
        stage = () if told else (run["stage"],)
        rows.append((run["run"], *stage, run["state"], _when(run["created"]), scores or "-"))
    columns = ("run", *(() if told else ("stage",)), "state", "created", "mIoU")
    notes = ("mIoU of a train run: single scale / ms+flip, where it was scored",)
    console.table(Table("", columns, tuple(rows), notes=notes, left=frozenset(range(len(columns) - 1))))


@app.command()
def show(
    run: Annotated[
        str,
        typer.Argument(autocompletion=completion.run_names, help="A run directory, or its name in the runs folder."),
    ],
    runs: RunsOption = RUNS,
    json_output: JsonOption = False,
) -> None:
    """Show what a run is, how its attempts ended, and its scores.

    \b
    wsss runs show runs/train-toy-1a2b3c4d
    wsss runs show train-toy-1a2b3c4d --json
    """
    from wsss_cli.engine.records import is_run, read_record
    from wsss_cli.engine.rundir import state_of

    path = next((path for path in (Path(run), runs / run) if is_run(path)), None)
    if path is None:
        raise UsageError(f"{run} is no run directory", f"{line('runs', 'list', '--runs', runs)} names those there are")
    record = read_record(path)
    record = record.changed(state=state_of(path, record))
    scores, shards, evaluations = _scores(path, record), _shards(path, record), _evaluations(path)
    if json_output:
        more = {"run": str(path), "scores": scores, **({"shards": shards} if shards else {})}
        if evaluations:
            more["evaluations"] = [{"folder": str(place), "shards": parts} for place, parts in evaluations]
        console.result_json({**record.model_dump(mode="json", exclude_unset=True), **more})
        return
    from wsss_cli.report.tables import Table, percent

    rows = [(key, f"{getattr(record, key) or '-'}") for key in ("stage", "preset", "state", "identity")]
    rows.append(("created", _when(record.created)))
    for number, attempt in enumerate(record.attempts, 1):
        rows.append((f"attempt {number}", _attempt(attempt)))
    rows += _shard_rows(path, shards)
    for place, parts in evaluations:
        rows += _shard_rows(place, parts, f"{place.parent.name} ")
    rows.append(("images lost", f"{len(record.lost)}"))
    if record.labelled is False:
        rows.append(("labels", "none: no pixel that the training saw has a label"))
    if record.ended_early is not None:
        rows.append(("ended early", f"at iteration {record.ended_early}, as train.patience says"))
    rows += [(name, percent(value)) for name, value in scores.items()]
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    notes = (versions,) if versions else ()
    console.table(Table(str(path), ("", ""), tuple(rows), notes=notes, left=frozenset({0, 1})))


def _scores(path: Path, record: RunRecord) -> dict[str, float | None]:
    """The scores in a run's eval.json by name; those that it has. Of a damaged one none, and that is said."""
    scores = {}
    try:
        stored = read_scores(path)
    except DataError as error:
        console.complain(f"scores are left out: {error}")
        return {}
    for name, (mode, key) in SCORES.get(record.stage, {}).items():
        if key in stored.get(mode, {}):
            scores[name] = stored[mode][key]
    return scores


def _shards_done(path: Path, shards: Sequence[dict[str, Any]]) -> list[str]:
    """Of each division how many shards are done, and which are missing."""
    from wsss_cli.engine.shards import how_many_done, read_shards

    if not shards:
        return []
    records = read_shards(path)
    return [how_many_done(records, of) for of in sorted({record.of for record in records})]


def _shards(path: Path, record: RunRecord) -> list[dict[str, Any]]:
    """How far each shard of a run that is not done is: its state, images, how many of these are done, and lost."""
    from wsss_cli.engine.shards import count_by_shard
    from wsss_cli.stages.paths import last_files

    if record.state == "done":
        return []
    return _listing(path, lambda of: count_by_shard(last_files(path, record.stage).names(), of))


def _evaluations(path: Path) -> list[tuple[Path, list[dict[str, Any]]]]:
    """The same of the shards of each evaluation that is not done: its folder, and they."""
    from wsss_cli.engine.shards import Shard
    from wsss_cli.scoring.partial import counted_of, evaluations_at

    def counts(place: Path, of: int) -> dict[int, int]:
        return {number: counted_of(place, Shard(number, of)) for number in range(1, of + 1)}

    return [(place, _listing(place, partial(counts, place))) for place in evaluations_at(path)]


def _listing(place: Path, counts_of: Callable[[int], Mapping[int, int]]) -> list[dict[str, Any]]:
    from wsss_cli.engine.shards import Shard, read_shards, state_of_shard

    listing: list[dict[str, Any]] = []
    records = {one.shard: one for one in read_shards(place)}
    for of in sorted({shard.of for shard in records}):
        counts = counts_of(of)
        for number in range(1, of + 1):
            one = records.get(Shard(number, of))
            listing.append(
                {
                    "shard": f"{number}/{of}",
                    "state": state_of_shard(place, one) if one else None,
                    "items": one.items if one else None,
                    "done": counts[number],
                    "lost": len(one.lost) if one else 0,
                }
            )
    return listing


def _shard_rows(place: Path, shards: Sequence[dict[str, Any]], prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for shard in shards:
        far = f"{shard['done']} of {shard['items']} images" if shard["items"] is not None else "not begun"
        lost = f", {shard['lost']} lost" if shard["lost"] else ""
        rows.append((f"{prefix}shard {shard['shard']}", f"{shard['state']}, {far}{lost}" if shard["state"] else far))
    return rows + [(f"{prefix}shards", line) for line in _shards_done(place, shards)]


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if seconds else "-"


def _attempt(attempt: Attempt) -> str:
    where = f"{_when(attempt.start)}, host {attempt.host}, pid {attempt.pid}"
    if attempt.end is None:
        return f"{where}, not ended"
    return f"{where}, {attempt.end - attempt.start:.0f} s, exit {attempt.exit}"
