"""`wsss presets`."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wsss_cli.cli import completion, console
from wsss_cli.cli.commands import App
from wsss_cli.cli.options import JsonOption, SetOption
from wsss_cli.errors import UsageError

if TYPE_CHECKING:
    from wsss_cli.config.schema import Preset

MIN_TEXT = 20  # columns of a description, however narrow the terminal

app = App(help="List, show and check presets.")


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
    width = max(len(preset["name"]) for preset in presets)
    for preset in presets:
        lines = textwrap.wrap(
            preset["description"], max(console.width() - width - 2, MIN_TEXT), break_on_hyphens=False
        ) or [""]
        console.result(f"{preset['name']:{width}}  {lines[0]}".rstrip())
        for line in lines[1:]:
            console.result(f"{'':{width}}  {line}")
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
    name: Annotated[str, typer.Argument(autocompletion=completion.presets, help="Preset name or a .toml file.")],
    overrides: SetOption = None,
    origin: Annotated[bool, typer.Option("--origin", help="Say of each value where it comes from.")] = False,
    describe: Annotated[bool, typer.Option("--describe", help="Say of each setting what it is.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Print a preset with every setting filled in, as TOML that --preset takes again.

    \b
    wsss presets show toy > mine.toml
    wsss presets show toy --describe
    wsss presets show deeplabv3p-r50-voc-weak --origin
    wsss presets show toy --set train.optim.lr=1e-3
    """
    from wsss_cli.config.load import leaves, load_preset, origins
    from wsss_cli.config.lock import to_toml
    from wsss_cli.config.schema import descriptions

    preset = load_preset(name, overrides or ())
    if not (origin or describe or json_output):
        console.result(to_toml(preset))
        return
    came, what = origins(name, overrides or ()), descriptions(preset)
    values = dict(leaves(preset.model_dump(mode="json", exclude_none=True)))
    if json_output:
        settings = {
            key: {"value": values[key], "origin": came[key], "description": what.get(key, "")} for key in values
        }
        console.result_json({"preset": preset.name, "settings": settings})
        return
    shown = {key: _toml(value) for key, value in values.items()}
    width = max(len(key) + len(value) for key, value in shown.items() if len(key) + len(value) < 60)
    for key, value in shown.items():
        if describe:
            for line in textwrap.wrap(
                what.get(key) or "the kind of this table; the settings beside it are of that kind", console.width() - 2
            ):
                console.result(f"# {line}")
        from_where = f"{' ' * max(width - len(key) - len(value), 0)}  # {came[key]}" if origin else ""
        console.result(f"{key} = {value}{from_where}")


def _toml(value: Any) -> str:
    """A value in one line of TOML; tables occur in lists only."""
    if isinstance(value, list):
        return f"[{', '.join(_toml(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {_toml(item)}' for key, item in value.items())} }}"
    return json.dumps(value, ensure_ascii=False)


@app.command()
def check(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", autocompletion=completion.presets, help="All that come along if left out."),
    ] = None,
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
