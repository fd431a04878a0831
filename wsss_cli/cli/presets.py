"""`wsss presets`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wsss_cli.cli import console
from wsss_cli.cli.options import JsonOption, SetOption
from wsss_cli.errors import UsageError

if TYPE_CHECKING:
    from wsss_cli.config.schema import Preset

app = typer.Typer(no_args_is_help=True, help="List, show and check presets.")


@app.command("list")
def list_presets(json_output: JsonOption = False) -> None:
    """List the presets that come with the program.

    \b
    wsss presets list
    wsss presets list --json
    """
    from wsss_cli.config.load import load_preset, preset_names

    presets = [_brief(load_preset(name)) for name in preset_names()]
    if json_output:
        console.result_json({"presets": presets})
        return
    from wsss_cli.report.tables import Table

    columns = ("name", "backbone", "supervision", "iters", "description")
    rows = tuple(tuple(f"{preset[column]}" for column in columns) for preset in presets)
    console.table(Table("", columns, rows, left=frozenset({0, 1, 2, 4})))
    console.say("next: wsss presets show NAME, or wsss run --preset NAME")


def _brief(preset: Preset) -> dict[str, Any]:
    return {
        "name": preset.name,
        "description": preset.description,
        "dataset": preset.dataset.path,
        "backbone": preset.train.backbone.name,
        "supervision": preset.train.supervision,
        "iters": preset.train.iters,
    }


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Preset name or a .toml file.")],
    overrides: SetOption = None,
    origin: Annotated[bool, typer.Option("--origin", help="Say of each value where it comes from.")] = False,
) -> None:
    """Print a preset with every setting filled in, as TOML that --preset takes again.

    \b
    wsss presets show toy > mine.toml
    wsss presets show deeplabv3p-r50-voc-weak --origin
    wsss presets show toy --set train.optim.lr=1e-3
    """
    from wsss_cli.config.load import leaves, load_preset, origins
    from wsss_cli.config.lock import to_toml

    preset = load_preset(name, overrides or ())
    if not origin:
        console.result(to_toml(preset))
        return
    came = origins(name, overrides or ())
    shown = {key: _toml(value) for key, value in leaves(preset.model_dump(mode="json", exclude_none=True))}
    width = max(len(key) + len(value) for key, value in shown.items() if len(key) + len(value) < 60)
    for key, value in shown.items():
        console.result(f"{key} = {value}{' ' * max(width - len(key) - len(value), 0)}  # {came[key]}")


def _toml(value: Any) -> str:
    """A value in one line of TOML; tables occur in lists only."""
    if isinstance(value, list):
        return f"[{', '.join(_toml(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {_toml(item)}' for key, item in value.items())} }}"
    return json.dumps(value, ensure_ascii=False)


@app.command()
def check(
    names: Annotated[list[str] | None, typer.Argument(help="All that come along if left out.")] = None,
    json_output: JsonOption = False,
) -> None:
    """Validate presets, a line each; exit with 2 where one is bad.

    \b
    wsss presets check
    wsss presets check mine.toml
    """
    from wsss_cli.config.load import preset_names

    checked = [{"name": name, "error": _error(name)} for name in names or preset_names()]
    bad = any(entry["error"] for entry in checked)
    if json_output:
        console.result_json({"ok": not bad, "presets": checked})
    else:
        for entry in checked:
            console.result(f"{entry['name']}: {entry['error'] or 'ok'}")
    if bad:
        raise typer.Exit(UsageError.exit_code)


def _error(name: str) -> str | None:
    from wsss_cli.config.load import load_preset

    try:
        load_preset(name)
    except UsageError as error:
        return " ".join(str(error).split())
    return None


@app.command()
def schema() -> None:
    """Print the JSON Schema of a preset.

    \b
    wsss presets schema > preset.schema.json
    """
    from wsss_cli.config.schema import Preset

    console.result(json.dumps(Preset.model_json_schema(), indent=2))
