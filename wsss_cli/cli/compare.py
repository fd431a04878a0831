"""`wsss runs compare`, `wsss runs plot` and `wsss runs log`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsss_cli.cli import completion, console
from wsss_cli.cli.following import line
from wsss_cli.cli.options import RUNS, JsonOption, RunsOption, written_file
from wsss_cli.errors import DataError, UsageError
from wsss_cli.talk import counted

if TYPE_CHECKING:
    from wsss_cli.stages.lineage import Told

RunsArgument = Annotated[
    list[Path],
    typer.Argument(
        metavar="RUN", autocompletion=completion.runs(), help="Runs of one stage; the first is compared to."
    ),
]


def compare(compared: RunsArgument, runs: RunsOption = RUNS, json_output: JsonOption = False) -> None:
    """Put runs beside each other: scores, differences with their intervals, settings that differ.

    The interval is of the paired bootstrap over photographs, and does not hold what another seed would change.

    \b
    wsss runs compare runs/train-toy-1a2b3c4d runs/train-toy-5e6f7a8b
    wsss runs compare train-toy-1a2b3c4d train-toy-5e6f7a8b --json
    """
    from wsss_cli.processes import check_stop
    from wsss_cli.report.tables import Table
    from wsss_cli.stages.compare import INTERVAL, SCORES, gaps, score_rows, tell_all
    from wsss_cli.stages.lineage import changed_settings

    told = tell_all(_several(compared, runs, 2))
    listed = gaps(told, check_stop)
    settings = {one.name: changed_settings(told[0].last, one.last) for one in told[1:]}
    if json_output:
        scores = {one.name: {key: one.last.scores[key].get("miou") for key, _ in one.modes} for one in told}
        rows = [
            {"run": gap.run, "first": gap.first, "why": gap.why}
            | (vars(gap.difference) if gap.difference else {"value": None, "low": None, "high": None, "images": None})
            for gap in listed
        ]
        console.result_json({"runs": scores, "differences": rows, "settings": settings})
        end_without_scores(told)
        return
    if rows_ := score_rows(told):
        console.table(Table("Scores, per cent", SCORES, tuple(rows_), left=frozenset({0, 1})))
    cells = tuple((gap.run, *gap.cells) for gap in listed)
    columns = (f"less {told[0].name}", "mIoU", "95 % interval", "photographs")
    console.table(Table("Differences", columns, cells, notes=(INTERVAL,)))
    for name, lines in settings.items():
        console.result(f"settings, {told[0].name} -> {name}:{'' if lines else ' none'}")
        for changed in lines:
            console.result(f"  {changed}")
    end_without_scores(told)


def end_without_scores(told: Sequence[Told]) -> None:
    """End with exit code 3 where scores of runs are left out, as their eval.json is damaged; all else has been shown.

    The result is printed before: an error that is raised would become a second JSON object.
    """
    if why := [one.last.why_no_scores for one in told if one.last.why_no_scores]:
        for reason in why:
            console.complain(f"error: scores are left out: {reason}")
        raise typer.Exit(DataError.exit_code)


def plot(
    plotted: RunsArgument,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", parser=written_file, help="The picture, .png or .jpg; if left out, in the first run."
        ),
    ] = None,
    runs: RunsOption = RUNS,
    json_output: JsonOption = False,
) -> None:
    """Draw losses, learning rates and validations of runs over their iterations; say how long an iteration took.

    Terminals that can (kitty, Ghostty, WezTerm, iTerm2) show it at once. A training that runs is drawn as far as it is.

    \b
    wsss runs plot runs/train-toy-1a2b3c4d
    wsss runs plot train-toy-1a2b3c4d train-toy-5e6f7a8b --out both.png
    """
    from wsss_cli.cli.show import picture_file
    from wsss_cli.report.pictures import encoded, write_picture
    from wsss_cli.stages.compare import curves, paces, tell_all

    chosen = _several(plotted, runs, 1)
    path = picture_file(out) or chosen[0] / "curves.png"
    told = tell_all(chosen)
    picture, timed = curves(told), paces(told)
    write_picture(path, picture)
    if json_output:
        size = {"height": picture.shape[0], "width": picture.shape[1]}
        console.result_json({"picture": str(path), **size, "time": [asdict(pace) for pace in timed]})
        return
    console.picture(encoded(picture))
    for pace in timed:
        console.result(str(pace))
    console.result(f"picture: {path}")


def log(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", autocompletion=completion.runs(), help="A run of a classifier or training.")
    ],
    to: Annotated[str, typer.Option(metavar="tensorboard|wandb|mlflow", help="Where its losses and validations go.")],
    follow: Annotated[bool, typer.Option(help="Go on for as long as it trains.")] = False,
    runs: RunsOption = RUNS,
    json_output: JsonOption = False,
) -> None:
    """Send what a run has logged to TensorBoard, Weights & Biases or MLflow: each step once.

    For trainings on machines without a network, and what --logger has not sent. The variables of the services count:
    WANDB_MODE=offline, WANDB_PROJECT, MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME.

    \b
    wsss runs log runs/train-toy-1a2b3c4d --to tensorboard
    wsss runs log runs/train-toy-1a2b3c4d --to wandb --follow
    """
    from wsss_cli.engine.loggers import check_loggers, send
    from wsss_cli.stages.lineage import read_link

    check_loggers([to])
    (path,) = _several([run], runs, 1)
    link = read_link(path)
    if link.preset is None:
        raise UsageError(
            f"{path} cannot be read: {link.why_gone}", f"{line('runs', 'list', '--runs', runs)} names those there are"
        )
    sent = send(path, to, link.preset.model_dump(mode="json"), follow=follow)
    if json_output:
        console.result_json({"run": str(path), "to": to, "rows": sent})
        return
    console.result(f"{to}: {counted(sent, 'row')} of {path}")
    if to == "tensorboard" and not follow:
        console.say(f"next: {shlex.join(['tensorboard', '--logdir', str(path / 'loggers')])}")


def _several(named: list[Path], runs: Path, least: int) -> list[Path]:
    """Run directories, those that are given by name being looked for among the runs.

    Raises:
        UsageError: there are too few.
    """
    from wsss_cli.engine.records import is_run

    paths = [runs / path if not is_run(path) and is_run(runs / path) else path for path in named]
    if len(dict.fromkeys(paths)) < least:
        hint = f"{line('runs', 'list', '--runs', runs)} names those there are"
        raise UsageError("two runs at least are compared", hint)
    return list(dict.fromkeys(paths))
