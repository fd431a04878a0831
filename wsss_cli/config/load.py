"""Presets from TOML: what they extend, `--set key=value`, and an answer that names the nearest key to a typo."""

from __future__ import annotations

import difflib
import json
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from wsss_cli import talk
from wsss_cli.config import backbones, renames
from wsss_cli.config.base import RUN
from wsss_cli.config.faults import fault, table_models
from wsss_cli.config.renames import Table, overlay
from wsss_cli.config.schema import DatasetConfig, Preset
from wsss_cli.errors import UsageError
from wsss_cli.files import at_home


def preset_folder() -> Path:
    """Where the presets lie that come with the program: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "presets"
    return installed if installed.is_dir() else package.parent / "presets"


def preset_names() -> list[str]:
    """Names of the presets that come with the program, sorted."""
    return sorted(path.stem for path in preset_folder().glob("*.toml"))


def load_preset(name_or_path: str, overrides: Sequence[str] = (), say: Callable[[str], None] = talk.say) -> Preset:
    """Read, merge and validate a preset.

    Args:
        name_or_path: name of a preset that comes with the program, or the path of a .toml file.
        overrides: 'key.path=value', the value in TOML; a bare word is taken as a string.
        say: told of settings that were given under an old name, a line for each file and one for all overrides.
    Raises:
        UsageError: no such preset, not TOML, an unknown key, or a value out of range.
    """
    return _resolve(name_or_path, overrides, say)[0]


def origins(name_or_path: str, overrides: Sequence[str] = ()) -> dict[str, str]:
    """Where each value of a resolved preset comes from: a preset's name, '--set', or 'default', by dotted key."""
    preset, sources = _resolve(name_or_path, overrides, talk.silent)
    return {key: sources.get(key, "default") for key, _ in leaves(preset.model_dump(mode="json"))}


def leaves(table: Table, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every value in nested tables; what is left out (None) has none."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", value


def _resolve(name_or_path: str, overrides: Sequence[str], say: Callable[[str], None]) -> tuple[Preset, dict[str, str]]:
    path = _find(name_or_path)
    preset = _read(path)
    layers = [
        *_extended(preset, path, (path.resolve(),)),
        (path.stem if path.stem != "preset.lock" else str(path), preset),
    ]
    merged = _defaults()
    sources: dict[str, str] = {}
    together: Table = {}
    for text in overrides:
        overlay(together, _parse_override(text))  # first among themselves: `kind` may come before or after its keys
    if "extends" in together:
        raise UsageError(
            "--set extends: only the file of a preset says what it extends", "give another one to --preset"
        )
    for origin, layer in (*layers, ("--set", together)):
        where = origin if origin == "--set" else f"preset {origin}"
        table, note = renames.renamed(layer, merged, where, renames.RENAMES)
        if note:
            say(note)
        _begin_optional(merged, table, Preset)
        backbones.make_way(table, sources)
        _merge(merged, table, origin, sources)
    merged = {key: value if key in ("name", "description") else _at_home(value) for key, value in merged.items()}
    backbones.fill(merged, sources)
    merged.setdefault("name", path.stem)
    context = RUN if path.name == LOCK and not overrides else None
    shipped = [name for name, _ in layers if (preset_folder() / f"{name}.toml").is_file()]
    described = name_or_path if path.parent == preset_folder() else (shipped or ["toy"])[-1]  # one that can be shown
    return _validated(merged, sources, path, described, context), sources


def _extended(preset: Table, path: Path, above: tuple[Path, ...]) -> list[tuple[str, Table]]:
    """Names and tables of what a preset extends, the lowest first, without their names and descriptions."""
    if not preset.get("extends"):
        return []
    if not isinstance(preset["extends"], str):
        raise UsageError(f"{path}: extends is the name or the file of one preset", 'for example extends = "toy"')
    base = _find(preset["extends"], beside=path)
    if (file := base.resolve()) in above:
        circle = " extends ".join(name.stem for name in (*above[above.index(file) :], file))
        raise UsageError(f"{above[0]}: presets extend each other in a circle: {circle}", "take one `extends` out")
    table = _read(base)
    rest = {key: value for key, value in table.items() if key not in ("name", "description")}
    return [*_extended(table, base, (*above, file)), (base.stem, rest)]


def _validated(merged: Table, sources: dict[str, str], path: Path, described: str, context: str | None) -> Preset:
    try:
        preset = Preset.model_validate_json(json.dumps(merged, default=str), context=context)
    except ValidationError as error:
        raise fault(
            error.errors(), sources, path.stem, f"wsss presets show {shlex.quote(described)} --describe"
        ) from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"preset {path.stem}: {error}") from None
    if not re.fullmatch(r"[^/\\\x00-\x1f.][^/\\\x00-\x1f]{0,99}", preset.name):
        raise UsageError(
            f"preset {path.stem}: name {preset.name[:60]!r} cannot be part of a directory's name",
            "set name to letters, digits and hyphens",
        )
    return preset


def _defaults() -> Table:
    """The schema's own sections as the lowest layer, so that changing one key of a section keeps its others."""
    sections = {name for name, field in Preset.model_fields.items() if isinstance(field.default, BaseModel)}
    preset = Preset.model_construct(name="", dataset=DatasetConfig.model_construct(path=""))
    return preset.model_dump(mode="json", include=sections)


def _begin_optional(into: Table, table: Table, model: type[BaseModel]) -> None:
    """Where `table` is the first to give (part of) a table that may be left out, lay its defaults under it."""
    for key, value in table.items():
        variants = table_models(model.model_fields[key].annotation) if key in model.model_fields else []
        if not isinstance(value, dict) or len(variants) != 1:
            continue
        if key in into and into[key] is None:
            into[key] = variants[0]().model_dump(mode="json")
        _begin_optional(_below(into, key), value, variants[0])


def _at_home(value: Any) -> Any:
    """A value of a preset with each path below ~ as it is below the home folder."""
    if isinstance(value, dict):
        return {key: _at_home(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_at_home(each) for each in value]
    return at_home(value) if isinstance(value, str) else value


LOCK = "preset.lock.toml"
WHOLE = "copy the whole run again; its weights alone start another training: wsss train --preset NAME --init RUN"


def _find(name: str, beside: Path | None = None) -> Path:
    if name.endswith(".toml") or "/" in name:
        name = at_home(name)
        path = Path(name) if beside is None else beside.parent / name
        if not path.is_file():
            if path.exists():
                raise UsageError(f"preset {name} is no plain file", "write the preset into a file, and name that")
            if path.name == LOCK:
                raise UsageError(f"{name} is missing: it has the settings of the run", WHOLE)
            raise UsageError(
                f"there is no preset file {name}", "wsss presets list names those that come with the program"
            )
        return path
    if beside is not None and (neighbour := beside.parent / f"{name}.toml").is_file():
        return neighbour
    path = preset_folder() / f"{name}.toml"
    if not path.is_file():
        if Path(name).is_file():
            raise UsageError(f"{name} is no preset", "presets are TOML, and the name of a preset's file ends in .toml")
        beside = Path(f"{name}.toml")
        near = [str(beside)] if beside.is_file() else difflib.get_close_matches(name, preset_names(), 1, 0.5)
        meant = f"did you mean {near[0]}? " if near else ""
        raise UsageError(f"there is no preset {name!r}", f"{meant}wsss presets list names all")
    return path


def _read(path: Path) -> Table:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.name == LOCK and not text.strip():
            raise UsageError(f"{path} is empty: it had the settings of the run", WHOLE)
        return tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path} is not UTF-8: {error.reason} at {error.start:,}", "is it TOML? if so, save it as UTF-8"
        ) from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # a syntax error, a number without end, arrays without end
        raise UsageError(f"{path} is not TOML: {error}", WHOLE if path.name == LOCK else "") from None


def _parse_override(text: str) -> Table:
    key, equals, value = text.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not text.isprintable() and any("\ud800" <= character <= "\udfff" for character in text):
        raise UsageError(
            f"--set {key}: the value is not UTF-8: {value[:100]!r}", "of a path: link to it by another name"
        )
    if not equals or not all(parts):
        raise UsageError(f"--set {text}: not of the form key=value", "for example --set train.optim.lr=1e-3")
    try:
        parsed = tomllib.loads(f"value = {value}")
        if set(parsed) != {"value"}:
            raise UsageError(f"--set {text}: more than one value")
        value = parsed["value"]
    except RecursionError:
        raise UsageError(f"--set {key}: the value is nested too deeply") from None
    except ValueError:
        value = value.strip()
    nested: Table = {parts[-1]: value}
    for part in reversed(parts[:-1]):
        nested = {part: nested}
    return nested


def _merge(into: Table, table: Table, origin: str, sources: dict[str, str], prefix: str = "") -> None:
    for key, value in table.items():
        name = f"{prefix}{key}"
        old = into.get(key)
        if isinstance(value, dict):
            if not isinstance(old, dict) or ("kind" in value and old.get("kind") != value["kind"]):
                into[key] = {}  # another kind has other keys: those of the old one go
                for stale in [k for k in sources if f"{k}.".startswith(f"{name}.")]:
                    del sources[stale]
                if not value:
                    sources[name] = origin
            _merge(into[key], value, origin, sources, f"{name}.")
        else:
            into[key] = value
            sources[name] = origin


def _below(table: Table, key: str) -> Table:
    value = table.get(key)
    return value if isinstance(value, dict) else {}
