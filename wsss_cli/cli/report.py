"""`wsss report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsss_cli.cli import completion, console, stage
from wsss_cli.cli.compare import end_without_scores
from wsss_cli.cli.options import RUNS, DeviceOption, JsonOption, RunsOption, written_file


def report(
    reported: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="RUN",
            autocompletion=completion.runs(),
            help="Runs of one stage; if left out, the newest finished training.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", parser=written_file, help="The page; if left out, report.html in the first run."),
    ] = None,
    photographs: Annotated[int, typer.Option(metavar="N", min=0, max=1000, help="Photographs of each kind.")] = 6,
    runs: RunsOption = RUNS,
    device: DeviceOption = "auto",
    json_output: JsonOption = False,
) -> None:
    """Write one page about a run: scores, where it comes from, curves, the best and the worst photographs.

    \b
    wsss report
    wsss report runs/train-toy-1a2b3c4d --photographs 12
    wsss report runs/train-toy-1a2b3c4d runs/train-toy-5e6f7a8b --out compared.html

    The page is one HTML file that needs no network. Several runs stand beside each other, with the interval of their
    difference over photographs. The photographs of a training are predicted again.
    """
    from wsss_cli.stages.report import write_report

    with stage.working(device, runs) as ctx:
        chosen = list(reported or ())
        if not chosen:
            from wsss_cli.scoring.results import newest_run

            chosen = [newest_run(runs)]
        page = out or chosen[0] / "report.html"
        told = write_report(chosen, page, ctx, photographs=photographs)
    if json_output:
        console.result_json({"report": str(page), "runs": [str(run) for run in chosen]})
    else:
        console.result(f"report: {page}")
    end_without_scores(told)
