"""`wsss doctor`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from wsss_cli.cli import console
from wsss_cli.cli.options import RUNS, JsonOption, RunsOption
from wsss_cli.talk import counted

if TYPE_CHECKING:
    from wsss_cli.stages.doctor import Diagnosis


def doctor(
    runs: RunsOption = RUNS,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of --json and stop.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Show what this machine has, what works on it, and what to install for the rest; for bug reports, too.

    \b
    wsss doctor
    wsss doctor --json > doctor.json
    wsss doctor --schema

    On a GPU each kernel is tried beside the plain computation. Exit code 3 where one fails.
    """
    from wsss_cli.stages.doctor import Diagnosis, diagnose

    if schema:
        console.result(json.dumps(Diagnosis.model_json_schema(), indent=2))
        return
    diagnosis = diagnose(runs)
    if json_output:
        console.result_json(diagnosis.model_dump(mode="json"))
    else:
        _show(diagnosis)
    failed = [kernel for kernel in diagnosis.kernels if kernel.state == "fails"]
    if failed:
        for kernel in failed:
            console.complain(f"error: kernel {kernel.name}: {kernel.reason}")
        console.complain(
            "hint: --set train.kernels=plain leaves the kernels of the training out; report this with --json"
        )
        raise typer.Exit(3)


def _show(diagnosis: Diagnosis) -> None:
    from wsss_cli.report.tables import Table

    rows = [
        ("wsss", diagnosis.wsss, ""),
        ("Python", diagnosis.python, diagnosis.system),
        ("processor", counted(diagnosis.cores, "core"), f"{_gib(diagnosis.memory_gib)} memory"),
        *((f"GPU {number}", gpu.name, f"{gpu.memory_gib:.1f} GiB") for number, gpu in enumerate(diagnosis.gpus)),
    ]
    if not diagnosis.gpus:
        rows.append(("GPU", "none that can be used", "work is done on the processor"))
    rows += [(name, number or "missing", "") for name, number in diagnosis.packages.items()]
    rows += [(part.name, part.state, part.hint or part.purpose) for part in diagnosis.parts]
    if diagnosis.gpus:
        rows += [
            (f"kernel: {one.name}", one.state, one.reason or f"error {one.error:.1e}") for one in diagnosis.kernels
        ]
    rows += [(f"room for {place.purpose}", _gib(place.free_gib), place.path) for place in diagnosis.places]
    rows.append(("ImageNet weights", ", ".join(diagnosis.backbones) or "none", "on this machine"))
    rows.append(("data sets", ", ".join(diagnosis.datasets) or "none", "wsss prepare --help"))
    rows += [(f"${key}", value, "") for key, value in diagnosis.environment.items()]
    console.table(Table("", ("", "", ""), tuple(rows), left=frozenset({0, 1, 2})))


def _gib(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} GiB"
