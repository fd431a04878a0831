"""`python docs/make_site.py BUILD`: the documentation as a site that needs no network, in BUILD/site.

The reference is made from the program itself: commands from what `--help` shows, settings from the schema of presets.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from typer.main import get_command

from wsss_cli.cli.app import app
from wsss_cli.config.load import load_preset, preset_names
from wsss_cli.config.schema import Preset

DOCS = Path(__file__).resolve().parent
PARTS = {"start": "Start", "how-to": "How to", "reference": "Reference", "explain": "Explain", "benchmarks": "Figures"}
FIRST = {name: turn for turn, name in enumerate(("install", "first-run", "own-photographs", "questions"))}
REPOSITORY_FILES = ("CONTRIBUTING.md", "CHANGELOG.md")
MORE_TYPES = {"array": "list", "object": "table", "null": "none"}


def commands() -> Iterator[tuple[str, typer.models.Any]]:
    """(name, command) of every command that does something, in the order of `wsss --help`."""
    group = get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from ((f"{name} {below}", part) for below, part in command.commands.items())
        else:
            yield name, command


def cell(text: str) -> str:
    """Text for a cell of a Markdown table."""
    return re.sub(r"\s+", " ", text).replace("|", "\\|").replace("<", "&lt;").strip()


def page_of_commands() -> str:
    """Every command: what it says of itself, its arguments and options, its examples."""
    lines = ["# Commands", "", "What `wsss COMMAND --help` prints. `--json` prints exactly one object on stdout."]
    for name, command in commands():
        lines += ["", f"## wsss {name}", "", command.help.replace("\b\n", "").strip(), "", "| word | |", "|---|---|"]
        for parameter in command.params:
            written = ", ".join([*parameter.opts, *parameter.secondary_opts])
            if parameter.param_type_name == "argument":
                written = parameter.metavar or parameter.name
            default, text = parameter.default, cell(getattr(parameter, "help", None) or "")
            plain = default in (None, False, True, (), "") or callable(default)
            lines.append(f"| `{written}` | {text}{'' if plain else f' Default: `{default}`.'} |")
        lines += ["", *(f"    {line}" for example in command.examples for line in example.splitlines())]
    return "\n".join(lines) + "\n"


def settings(schema: dict[str, Any], place: dict[str, Any], key: str = "") -> Iterator[tuple[str, str, str, str]]:
    """(key, type, default, description) of every setting at a place of the schema; each kind of a table in turn."""
    if "$ref" in place:
        place = {**schema["$defs"][place["$ref"].rpartition("/")[2]], **{k: v for k, v in place.items() if k != "$ref"}}
    choices = place.get("anyOf") or place.get("oneOf") or []
    tables = [
        choice for choice in choices if "$ref" in choice or (choice.get("type") == "array" and "$ref" in str(choice))
    ]
    if tables:
        for table in tables:
            yield from settings(schema, table, key)
    elif "properties" in place:
        kind = place["properties"].get("kind", {}).get("const")
        label = f"{key} ({kind})" if kind else key
        for name, below in place["properties"].items():
            if name != "kind":
                yield from settings(schema, below, f"{label}.{name}" if label else name)
    elif place.get("type") == "array" and "$ref" in json.dumps(place.get("items", {})):
        yield key, "list of tables", shown(place.get("default")), place.get("description", "")
        yield from settings(schema, place["items"], f"{key}[]")
    else:
        yield key, type_of(place), shown(place.get("default")), place.get("description", "")


def type_of(place: dict[str, Any]) -> str:
    """The values that a setting takes, in few words."""
    if "enum" in place:
        return " ".join(f"`{value}`" for value in place["enum"])
    if "const" in place:
        return f"`{place['const']}`"
    if choices := place.get("anyOf"):
        return " or ".join(dict.fromkeys(type_of(choice) for choice in choices))
    limits = [
        f"{sign} {place[name]:g}"
        for name, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
        if name in place and abs(place[name]) < 1e6
    ]
    word = MORE_TYPES.get(place.get("type", ""), place.get("type", ""))
    return f"{word} {', '.join(limits)}".strip()


def shown(value: Any) -> str:
    """A default as TOML writes it, if it is short."""
    text = "" if value is None else json.dumps(value, ensure_ascii=False)
    return f"`{text}`" if 0 < len(text) < 60 else ""


def page_of_settings() -> str:
    """Every setting of a preset, a section for each stage."""
    schema = Preset.model_json_schema()
    lines = [
        "# Settings", "",
        "Every setting of a preset. `--set key=value` changes one for a command, a `.toml` file with `extends` many.",
        "`wsss presets show NAME --describe` prints those of a preset with their values.",
    ]  # fmt: skip
    rows: dict[str, list[str]] = {"general": []}
    for key, kind, default, description in settings(schema, schema):
        section = re.split(r"[.\[]", key)[0] if "." in key or "[" in key else "general"
        rows.setdefault(section, []).append(f"| `{key}` | {cell(kind)} | {cell(default)} | {cell(description)} |")
    for section, below in rows.items():
        lines += ["", f"## {section}", "", "| setting | values | default | |", "|---|---|---|---|", *below]
    return "\n".join(lines) + "\n"


def page_of_presets() -> str:
    """Every preset that comes with the program."""
    lines = ["# Presets", "", "| preset | | network | supervision | iterations |", "|---|---|---|---|---|"]
    for name in preset_names():
        preset = load_preset(name)
        train = preset.train
        words = (cell(preset.description), f"{train.head.kind}, {train.backbone.name}", train.supervision, train.iters)
        lines.append(f"| `{name}` | {' | '.join(map(str, words))} |")
    return "\n".join(lines) + "\n"


def title(page: Path) -> str:
    """The heading of a page."""
    return page.read_text().partition("\n")[0].removeprefix("# ").replace("`", "")


def sources(folder: Path) -> None:
    """Write the pages of the site into a folder: those that are kept, and those that are made."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(DOCS, folder, ignore=shutil.ignore_patterns("*.py", "*.toml", "__pycache__"))
    for name in REPOSITORY_FILES:
        shutil.copy(DOCS.parent / name, folder)
    reference = folder / "reference"
    reference.mkdir()
    (reference / "commands.md").write_text(page_of_commands())
    (reference / "settings.md").write_text(page_of_settings())
    (reference / "presets.md").write_text(page_of_presets())
    for page in folder.rglob("*.md"):
        text = page.read_text().replace("](../../", "](../").replace("](../README.md", "](../index.md")
        page.write_text(text.replace("](docs/", "]("))


def navigation(folder: Path) -> list[Any]:
    """The pages by part, those of a part by title, but for the first part."""
    parts = [{"Overview": "index.md"}]
    for part, name in PARTS.items():
        pages = sorted((folder / part).glob("*.md"), key=lambda page: (FIRST.get(page.stem, len(FIRST)), title(page)))
        parts.append({name: [{title(page): f"{part}/{page.name}"} for page in pages]})
    return [*parts, {"Contributing": "CONTRIBUTING.md"}, {"Changes": "CHANGELOG.md"}]


def main(build: Path) -> None:
    """Write the sources and a configuration, and build the site."""
    folder = build / "docs"
    sources(folder)
    lines = [f"nav = {toml(navigation(folder))}" if line.startswith("nav") else line for line in
             (DOCS / "site.toml").read_text().splitlines()]  # fmt: skip
    (build / "zensical.toml").write_text("\n".join(lines) + "\n")
    program = Path(sys.executable).with_name("zensical")
    subprocess.run([program, "build", "--clean", "--strict", "-f", "zensical.toml"], cwd=build, check=True)
    print(build / "site" / "index.html")


def toml(value: Any) -> str:
    """A value in one line of TOML."""
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{json.dumps(key)} = {toml(item)}' for key, item in value.items())} }}"
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
