"""`wsss table`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from wsss_cli.cli import completion, console
from wsss_cli.cli.following import refuse_useless
from wsss_cli.cli.options import RUNS, JsonOption, RunsOption


def table(
    trainings: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="RUN",
            autocompletion=completion.runs("train"),
            help="Training runs; if left out, all that are finished.",
        ),
    ] = None,
    form: Annotated[
        Literal["text", "markdown", "csv", "json"], typer.Option("--format", help="How the table is printed.")
    ] = "text",
    runs: RunsOption = RUNS,
    json_output: JsonOption = False,
) -> None:
    """Print the results table of finished trainings, published figures beside, protocols below.

    \b
    wsss table
    wsss table runs/train-toy-1a2b3c4d runs/train-toy-5e6f7a8b
    wsss table --format markdown > results.md
    wsss table --json

    mIoU comes from `wsss eval RUN --ms-flip`, fps from `wsss bench model RUN`, memory from the training itself.
    """
    if json_output and form != "json":
        refuse_useless(("--format",), "--json prints the table as JSON", "give one of them")
    from wsss_cli.report.tables import results_table
    from wsss_cli.scoring.results import find_rows

    rows: list[dict[str, Any]] = find_rows(list(trainings or ()), runs)
    if form == "json" or json_output:
        console.result_json({"rows": rows})
        return
    results = results_table(rows)
    if form == "markdown":
        console.result(results.to_markdown())
    elif form == "csv":
        console.result(results.to_csv())
    else:
        console.table(results)
