"""Presets from TOML: one level of `extends`, `--set key=value`, and an answer that names the nearest key to a typo."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticUndefined

from wsss_cli import talk
from wsss_cli.config import renames
from wsss_cli.config.renames import Table, overlay
from wsss_cli.config.schema import Preset
from wsss_cli.errors import UsageError


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
    preset, found = _resolve(name_or_path, overrides, talk.silent)
    return {key: found.get(key, "default") for key, _ in leaves(preset.model_dump(mode="json"))}


def leaves(table: Table, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every value in nested tables; what is left out (None) has none."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", value


def _resolve(name_or_path: str, overrides: Sequence[str], say: Callable[[str], None]) -> tuple[Preset, dict[str, str]]:
    path = _find(name_or_path)
    own = _read(path)
    layers: list[tuple[str, Table]] = []
    if own.get("extends"):
        base = _find(str(own["extends"]), beside=path)
        table = _read(base)
        if table.get("extends"):
            raise UsageError(f"{path} extends {base.stem}, which itself extends another; one level is the limit")
        layers.append((base.stem, {key: value for key, value in table.items() if key not in ("name", "description")}))
    layers.append((path.stem if path.stem != "preset.lock" else str(path), own))
    merged = _defaults()
    found: dict[str, str] = {}
    together: Table = {}
    for text in overrides:
        overlay(together, _parse_override(text))  # first among themselves: `kind` may come before or after its keys
    for origin, given in (*layers, ("--set", together)):
        where = origin if origin == "--set" else f"preset {origin}"
        table, note = renames.renamed(given, merged, where, renames.RENAMES)
        if note:
            say(note)
        _begin_optional(merged, table, Preset)
        _check_keys(table, Preset, "", where, table, merged)
        _merge(merged, table, origin, found)
    merged.setdefault("name", path.stem)
    return _validated(merged, found, path, name_or_path), found


def _validated(merged: Table, found: dict[str, str], path: Path, name_or_path: str) -> Preset:
    try:
        preset = Preset.model_validate_json(json.dumps(merged, default=str))
    except ValidationError as error:
        lines = [f"preset {path.stem}: {_sentence(detail, found)}" for detail in error.errors()]
        raise UsageError("\n".join(lines), f"wsss presets show {name_or_path}") from None
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
    defaults = {name: field.default for name, field in Preset.model_fields.items()}
    return {name: value.model_dump(mode="json") for name, value in defaults.items() if isinstance(value, BaseModel)}


def _begin_optional(into: Table, table: Table, model: type[BaseModel]) -> None:
    """Where `table` is the first to give (part of) a table that may be left out, lay its defaults under it."""
    for key, value in table.items():
        variants = _models(model.model_fields[key].annotation) if key in model.model_fields else []
        if not isinstance(value, dict) or len(variants) != 1:
            continue
        if key in into and into[key] is None:
            into[key] = variants[0]().model_dump(mode="json")
        _begin_optional(_below(into, key), value, variants[0])


def _find(name: str, beside: Path | None = None) -> Path:
    if name.endswith(".toml") or "/" in name:
        path = Path(name) if beside is None else beside.parent / name
        if not path.is_file():
            raise UsageError(
                f"there is no preset file {name}", "wsss presets list names those that come with the program"
            )
        return path
    if beside is not None and (neighbour := beside.parent / f"{name}.toml").is_file():
        return neighbour
    path = preset_folder() / f"{name}.toml"
    if not path.is_file():
        near = difflib.get_close_matches(name, preset_names(), 1, 0.5)
        meant = f"did you mean {near[0]}? " if near else ""
        raise UsageError(f"there is no preset {name!r}", f"{meant}wsss presets list names all")
    return path


def _read(path: Path) -> Table:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
    except (ValueError, RecursionError) as error:  # a syntax error, a number without end, arrays without end
        raise UsageError(f"{path} is not TOML: {error}") from None


def _parse_override(text: str) -> Table:
    key, equals, value = text.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not text.isprintable() and any("\ud800" <= character <= "\udfff" for character in text):
        raise UsageError(f"--set {key}: the value is not UTF-8")
    if not equals or not all(parts):
        raise UsageError(f"--set {text}: not of the form key=value", "for example --set train.optim.lr=1e-3")
    try:
        parsed = tomllib.loads(f"value = {value}")
        if set(parsed) != {"value"}:
            raise UsageError(f"--set {text}: more than one value")
        table = parsed["value"]
    except RecursionError:
        raise UsageError(f"--set {key}: the value is nested too deeply") from None
    except ValueError:
        table = value.strip()
    for part in reversed(parts):
        table = {part: table}
    return table


def _merge(into: Table, table: Table, origin: str, found: dict[str, str], prefix: str = "") -> None:
    for key, value in table.items():
        name = f"{prefix}{key}"
        old = into.get(key)
        if isinstance(value, dict):
            if not isinstance(old, dict) or ("kind" in value and old.get("kind") != value["kind"]):
                into[key] = {}  # another kind has other keys: those of the old one go
                for stale in [k for k in found if k.startswith(f"{name}.")]:
                    del found[stale]
            _merge(into[key], value, origin, found, f"{name}.")
        else:
            into[key] = value
            found[name] = origin


def _check_keys(table: Table, model: type[BaseModel], prefix: str, where: str, layer: Table, merged: Table) -> None:
    """Refuse a key that the schema does not know, with the nearest one, its type and its default.

    The variant of a union is that of the `kind` in the whole `layer` which `table` is part of, or else in `merged`.
    """
    for key, value in table.items():
        field = model.model_fields.get(key)
        if field is None:
            raise UsageError(f"{where}: unknown key {prefix}{key}", _nearest(key, model, prefix))
        variants = _models(field.annotation)
        if variants and isinstance(value, dict):
            beside, below = _below(layer, key), _below(merged, key)
            variant = _variant(variants, {**below, **beside}.get("kind"))
            if variant is not None:
                _check_keys(value, variant, f"{prefix}{key}.", where, beside, below)
        elif isinstance(value, dict):
            inner = next(iter(value), "")
            what = "a list of tables, set as a whole" if _item_models(field.annotation) else "a value, not a table"
            raise UsageError(f"{where}: unknown key {prefix}{key}.{inner}", f"{prefix}{key} is {what}")
        elif isinstance(value, list):
            _check_items(value, _item_models(field.annotation), f"{prefix}{key}", where)


def _check_items(items: list[Any], models: list[type[BaseModel]], name: str, where: str) -> None:
    """`_check_keys` for the tables of a list; each is whole, as lists are not merged."""
    for number, item in enumerate(items):
        if not models or not isinstance(item, dict):
            continue  # values; and what is no table is refused with the types of all values
        variant = _variant(models, item.get("kind"))
        if variant is None:
            kinds = [str(model.model_fields["kind"].default) for model in models]
            near = difflib.get_close_matches(str(item.get("kind")), kinds, 1, 0.5)
            what = f"there is no kind {item['kind']!r}" if "kind" in item else "kind is missing"
            meant = f"did you mean {near[0]}? " if near else ""
            raise UsageError(f"{where}: {name}.{number}: {what}", f"{meant}kinds: {', '.join(kinds)}")
        _check_keys(item, variant, f"{name}.{number}.", where, item, {})


def _below(table: Table, key: str) -> Table:
    value = table.get(key)
    return value if isinstance(value, dict) else {}


def _models(annotation: Any) -> list[type[BaseModel]]:
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _models(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [model for arg in typing.get_args(annotation) for model in _models(arg)]
    return [annotation] if isinstance(annotation, type) and issubclass(annotation, BaseModel) else []


def _item_models(annotation: Any) -> list[type[BaseModel]]:
    """The models of the tables that a list holds; none for a list of values, and for what is no list."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _item_models(typing.get_args(annotation)[0])
    return _models(typing.get_args(annotation)[0]) if typing.get_origin(annotation) is tuple else []


def _variant(models: list[type[BaseModel]], kind: Any) -> type[BaseModel] | None:
    """The model of a union that `kind` names; None where none does."""
    if len(models) == 1:
        return models[0]
    return next((model for model in models if model.model_fields["kind"].default == kind), None)


def _nearest(key: str, model: type[BaseModel], prefix: str) -> str:
    near = difflib.get_close_matches(key, model.model_fields, 1, 0.6)
    if near:
        return f"did you mean {_described(prefix + near[0], model.model_fields[near[0]])}?"
    elsewhere = {name: field for name, field in all_keys(Preset) if name.rpartition(".")[2] == key}
    if prefix and (below := {name: field for name, field in elsewhere.items() if name.startswith(prefix)}):
        elsewhere = below
    depth = min((name.count(".") for name in elsewhere), default=0)  # keys of sections before those of kinds
    elsewhere = {name: field for name, field in elsewhere.items() if name.count(".") == depth}
    if elsewhere:  # the right key in the wrong table
        return f"did you mean {' or '.join(_described(name, field) for name, field in elsewhere.items())}?"
    return f"keys there: {', '.join(prefix + name for name in model.model_fields)}"


def all_keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """(dotted key, field) of every setting of a model, those of all variants and of lists (`steps[].kind`) too."""
    for key, field in model.model_fields.items():
        yield f"{prefix}{key}", field
        for inner in _models(field.annotation):
            yield from all_keys(inner, f"{prefix}{key}.")
        for inner in _item_models(field.annotation):
            yield from all_keys(inner, f"{prefix}{key}[].")


def _described(name: str, field: FieldInfo) -> str:
    default = field.default
    if default is PydanticUndefined:
        shown = "required"
    elif isinstance(default, BaseModel):
        shown = "a table"
    elif isinstance(default, tuple) and any(isinstance(item, BaseModel) for item in default):
        shown = "a list of tables"
    elif default is None:
        shown = "left out"
    else:
        shown = f"default {json.dumps(default)}"
    return f"{name} ({_type_name(field.annotation)}, {shown})"


def _type_name(annotation: Any) -> str:
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _type_name(typing.get_args(annotation)[0])
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, typing.get_args(annotation)))
    if origin is tuple:
        return f"list of {_type_name(typing.get_args(annotation)[0])}"
    if origin in (typing.Union, types.UnionType) or _models(annotation):
        return "table"
    return getattr(annotation, "__name__", str(annotation))


def _sentence(detail: ErrorDetails, found: dict[str, str]) -> str:
    key = _key(detail["loc"])
    message = detail["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(detail["input"], dict) else json.dumps(detail["input"], default=str)
    given = f" (given: {shown[:60]}{'...' if len(shown) > 60 else ''})" if shown and key else ""
    origin = next((f" from {where}" for name, where in found.items() if f"{key}.".startswith(f"{name}.")), "")
    return f"{key or 'preset'}{given}{origin}: {message[:1].lower()}{message[1:]}"


def _key(location: tuple[int | str, ...]) -> str:
    """The dotted key of a place that pydantic names: it puts the `kind` of a union's variant into the path."""
    parts: list[str] = []
    models: list[type[BaseModel]] = [Preset]
    for part in location:
        variant = _variant(models, part) if len(models) > 1 else None
        if variant is not None:
            models = [variant]
            continue
        parts.append(str(part))
        if isinstance(part, int):
            continue  # the place in a list, whose tables are of the models found before
        field = models[0].model_fields.get(str(part)) if len(models) == 1 else None
        models = [*_models(field.annotation), *_item_models(field.annotation)] if field is not None else []
    return ".".join(parts)
