"""`wsss verify`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsss_cli.cli import completion, console
from wsss_cli.cli.options import JsonOption
from wsss_cli.engine.stop import Stop
from wsss_cli.errors import DataError, UsageError
from wsss_cli.processes import cores
from wsss_cli.talk import counted

if TYPE_CHECKING:
    from wsss_cli.data.findings import Finding, Report


def verify(
    target: Annotated[
        Path,
        typer.Argument(
            metavar="DATASET|RUN", autocompletion=completion.runs(), help="Data set, run, or folder of predictions."
        ),
    ],
    split: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Look at this split of a data set only; repeatable.")
    ] = None,
    allow: Annotated[
        list[str] | None, typer.Option(metavar="CODE", help="Count this kind of finding as a note; repeatable.")
    ] = None,
    limit: Annotated[
        int, typer.Option(metavar="N", min=0, max=10**9, help="Rows of each kind that the table shows; 0: all.")
    ] = 20,
    workers: Annotated[
        int, typer.Option(metavar="N", min=0, max=1024, help="Worker processes; 0: one for each core.")
    ] = 0,
    json_output: JsonOption = False,
) -> None:
    """Decode everything and compare it with what the records say; exit with 3 where anything is wrong.

    \b
    wsss verify data/voc-aug
    wsss verify data/mine --split val --json
    wsss verify data/voc-aug --allow not-in-mask --allow not-tagged
    wsss verify runs/pseudo-toy-1a2b3c4d
    wsss verify predicted/

    Data set: photographs and masks decode wholly; sizes agree (EXIF applied); masks hold classes and 255 only; tags are
    what masks hold; lists are as `wsss prepare` wrote them (SHA-256); names differ in more than case; no photograph
    occurs twice (same bytes); none of a split that is scored on (its name begins with val or test) looks like one that
    is trained on: copies at another size, quality or brightness; mirrored and cropped ones are not seen, blank
    photographs are left out. Labels that `wsss prepare labels` added decode, fit their photographs and their index.

    Run: records parse; what it has made is there, decodes, has the size of its photograph and classes of its tags;
    checkpoints have their SHA-256 and finite values; the lists that it was made from are as they were (SHA-256).
    """
    begin = time.monotonic()
    with Stop(console.say_at_once).listening() as stop:
        kind, report = _looked_at(target, split or [], allow or [], workers or cores(), stop)
    _allow(report, allow or [])
    if json_output:
        console.result_json(
            {
                "target": target,
                "kind": kind,
                "checked": report.checked,
                "counts": dict(Counter(finding.code for finding in report.findings)),
                "findings": [finding._asdict() for finding in report.findings],
                "notes": [note._asdict() for note in report.notes],
                "seconds": round(time.monotonic() - begin, 1),
            }
        )
    else:
        _show(target, report, limit)
    if report.findings:
        error = DataError(f"{counted(len(report.findings), 'finding')} in {target}")
        if not json_output:
            raise error
        console.complain(f"error: {error.message}")
        raise typer.Exit(error.exit_code)


def _looked_at(target: Path, splits: list[str], allow: list[str], workers: int, stop: Stop) -> tuple[str, Report]:
    """What the target is, and the report on it.

    Raises:
        UsageError: it is nothing that can be looked at, or an option does not go with it.
    """
    from wsss_cli.data import verify as data

    named = "name a directory that has dataset.json, run.json or made.jsonl"
    if not target.exists():
        raise UsageError(f"there is no {target}", named)
    if (target / "dataset.json").is_file():
        _check_codes(allow, data.CODES)
        return "data set", data.verify_dataset(target, splits, workers, stop.check, console.progress)
    if splits:
        raise UsageError(f"--split is for data sets; {target} is none")
    from wsss_cli.stages import verify as runs

    _check_codes(allow, runs.CODES)
    if (target / "run.json").exists():
        return "run", runs.verify_run(target, workers, stop.check, console.progress)
    if (target / "made.jsonl").is_file():
        return "predictions", runs.verify_predictions(target, workers, stop.check, console.progress)
    raise UsageError(f"{target} is no data set, no run and no folder of predictions", named)


def _check_codes(allow: list[str], codes: Mapping[str, str]) -> None:
    if unknown := [code for code in allow if code not in codes]:
        raise UsageError(f"--allow {unknown[0]}: there is no such finding", f"choose of {', '.join(codes)}")


def _allow(report: Report, codes: list[str]) -> None:
    """Make notes of the findings that the user allows."""
    report.notes += [finding for finding in report.findings if finding.code in codes]
    report.findings = [finding for finding in report.findings if finding.code not in codes]


def _show(target: Path, report: Report, limit: int) -> None:
    from wsss_cli.report.tables import Table

    looked_at = ", ".join(f"{name} {count:,}" for name, count in report.checked.items())
    result = counted(len(report.findings), "finding") if report.findings else "no findings"
    title = f"{target}: {looked_at}: {result}"
    notes = [f"note: {line}" for line in _some(report.notes, limit)]
    notes += [f"{code}: {fix}" for code, fix in {f.code: f.fix for f in reversed(report.findings)}.items() if fix][::-1]
    if not report.findings:
        for line in (title, *notes):
            console.result(line)
        return
    rows = []
    for code in dict.fromkeys(finding.code for finding in report.findings):
        rows += [(code, line) for line in _some([f for f in report.findings if f.code == code], limit)]
    console.table(Table(title, ("finding", "what"), tuple(rows), notes=tuple(notes), left=frozenset({0, 1})))


def _some(findings: list[Finding], limit: int) -> list[str]:
    shown = findings if limit == 0 or len(findings) <= limit else findings[:limit]
    more = len(findings) - len(shown)
    return [*(one.problem for one in shown), *([f"... and {more:,} more (--limit 0 shows all)"] if more else [])]
