"""What a shell offers after <TAB>: presets, runs and settings. Nothing here loads torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer

Offered = list[tuple[str, str]]
"""Words, and what each is."""


def presets(incomplete: str) -> Offered:
    """The names of the presets that come along."""
    import tomllib

    from wsss_cli.config.load import preset_folder

    files = sorted(preset_folder().glob("*.toml"))
    tables = {file.stem: tomllib.loads(file.read_text(encoding="utf-8")) for file in files}
    return [(name, table.get("description", "")) for name, table in tables.items() if name.startswith(incomplete)]


def settings(incomplete: str) -> list[str] | Offered:
    """The dotted keys of settings, and after a `=` the values of one that has a few."""
    from wsss_cli.config.faults import all_keys
    from wsss_cli.config.schema import Preset

    key, equals, value = incomplete.partition("=")
    fields = {name: field for name, field in all_keys(Preset) if "[]" not in name}
    if equals:
        values = _values(field.annotation) if (field := fields.get(key)) else ()
        return [f"{key}={one}" for one in values if one.startswith(value)]
    tables = {name.rpartition(".")[0] for name in fields}
    offered = [
        (name, field.description or "")
        for name, field in fields.items()
        if name.startswith(incomplete) and name not in tables
    ]
    return offered if len(offered) != 1 else [*offered, (f"{offered[0][0]}=", "")]  # two: bash adds no space


def _values(annotation: Any) -> list[str]:
    """The values of a setting that has a few of them."""
    if annotation is bool:
        return ["true", "false"]
    return [str(one) for one in get_args(annotation)] if get_origin(annotation) is Literal else []


def runs(*stages: str) -> Callable[[typer.Context, str], Offered]:
    """Offers the runs of some stages, or of all, newest first, as paths below --runs."""

    def offer(ctx: typer.Context, incomplete: str) -> Offered:
        from wsss_cli.engine.records import find_runs
        from wsss_cli.talk import silent

        folder = Path(ctx.params.get("runs") or "runs")
        return [
            (str(path), f"{record.stage}, {record.state}")
            for path, record in find_runs(folder, say=silent)
            if str(path).startswith(incomplete) and (not stages or record.stage in stages)
        ]

    return offer


def run_names(ctx: typer.Context, incomplete: str) -> Offered:
    """As `runs` does, by their names alone, too."""
    listed: Any = runs()(ctx, "")
    names = [(Path(path).name, what) for path, what in listed]
    return [(name, what) for name, what in [*listed, *names] if name.startswith(incomplete)]
