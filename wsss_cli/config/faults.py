"""What pydantic finds wrong in a preset, in sentences: where it comes from, and the nearest key to a typo."""

from __future__ import annotations

import difflib
import json
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticUndefined

from wsss_cli.config.schema import Preset
from wsss_cli.errors import UsageError


def fault(details: Sequence[ErrorDetails], origins: Mapping[str, str], name: str, hint: str) -> UsageError:
    """The error to raise: the first key or kind that there is not, else a line for each value that cannot be taken.

    Args:
        details: what pydantic found, of `Preset`.
        origins: a preset's name or '--set' by dotted key, for all values that were given.
        name: of the preset, for what no layer has given.
        hint: where no better one is at hand.
    """
    for detail in details:
        key, models = _place(detail["loc"])
        source = next((where for dotted, where in origins.items() if _overlap(dotted, key)), name)
        where = source if source == "--set" else f"preset {source}"
        match detail["type"]:
            case "extra_forbidden":
                prefix, _, last = key.rpartition(".")
                if "." in str(detail["loc"][-1]):
                    quoted = str(detail["loc"][-1])
                    return UsageError(f"{where}: unknown key {json.dumps(quoted)}", f"without quotes: {quoted} = ...")
                return UsageError(
                    f"{where}: unknown key {key}", _nearest(last, models[0], f"{prefix}." if prefix else "")
                )
            case "union_tag_not_found":
                return UsageError(f"{where}: {key}: kind is missing", f"kinds: {', '.join(_kinds(models))}")
            case "union_tag_invalid":
                kind = str(detail["input"].get("kind"))
                meant = "".join(f"did you mean {near}? " for near in _near(kind, _kinds(models), 0.5))
                return UsageError(
                    f"{where}: {key}: there is no kind {kind!r}", f"{meant}kinds: {', '.join(_kinds(models))}"
                )
            case wrong if isinstance(detail["input"], dict) and (wrong.endswith("_type") or wrong == "literal_error"):
                what = "a list of tables, set as a whole" if models else "a value, not a table"
                return UsageError(f"{where}: unknown key {key}.{next(iter(detail['input']), '')}", f"{key} is {what}")
    said = [detail for detail in details if not _is_echo(detail)]
    return UsageError("\n".join(f"preset {name}: {_sentence(detail, origins)}" for detail in said), hint)


def _is_echo(detail: ErrorDetails) -> bool:
    """Whether a list is called too short as its items cannot be taken, which is said of these."""
    return detail["type"] == "too_short" and len(detail["input"]) > detail["ctx"]["actual_length"]


FORMS = {
    "boolean": ", true or false",
    "number": ", as TOML writes it: 0.001, 1.0 or 1e-4, without quotes",
    "integer": ", as TOML writes it: 1000, without quotes, point and exponent",
}
"""How the kinds of values are written, to follow the word."""


def _overlap(one: str, other: str) -> bool:
    """Whether a key is another, or within it, or the other way."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def _sentence(detail: ErrorDetails, origins: Mapping[str, str]) -> str:
    key, models = _place(detail["loc"])
    message = _words(detail, key, _kinds(models) if all("kind" in model.model_fields for model in models) else [])
    shown = "" if isinstance(detail["input"], dict) else json.dumps(detail["input"], default=str)
    quoted = f" (given: {shown[:60]}{'...' if len(shown) > 60 else ''})" if shown and key else ""
    origin = next((f" from {where}" for name, where in origins.items() if f"{key}.".startswith(f"{name}.")), "")
    said = f"{message[:1].lower()}{message[1:]}"
    return f"{key}{quoted}{origin}: {said}" if key else said


def _words(detail: ErrorDetails, key: str, kinds: Sequence[str]) -> str:
    """What is wrong, in words of presets; `kinds`: of the tables that a list holds."""
    text = detail["input"]
    if detail["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return f"it should be a table, {key}.kind one of: {', '.join(kinds)}" if kinds else "it should be a table"
    if detail["type"] == "missing":
        return "it is missing"
    if detail["type"] == "tuple_type" and kinds:
        kind = text if text in kinds else kinds[0]
        return f'a list of tables is needed, as TOML writes it: {key} = [{{kind = "{kind}"}}]'
    if detail["type"] == "tuple_type" and isinstance(text, str) and text:
        items = ", ".join(part.strip() for part in text.strip("[]() ").split(","))
        return f"a list is needed, as TOML writes it: --set '{key}=[{items}]'"
    message = (
        detail["msg"]
        .removeprefix("Value error, ")
        .replace("Tuple", "List")
        .replace("tuple", "list")
        .replace(" after validation", "")
    )
    message = message.replace("valid array", "valid list")
    article = "an" if message.startswith("Input should be a valid integer") else "a"
    words = message.replace("Input should be a valid ", f"it should be {article} ")
    return words.replace("Input should be ", "it should be ") + FORMS.get(words.split(" ")[-1], "")


def _place(location: tuple[int | str, ...]) -> tuple[str, list[type[BaseModel]]]:
    """The dotted key of a place that pydantic names, and the models of a table there, or of the table that lacks it.

    Pydantic puts the `kind` of a union's variant into the path, which is no key.
    """
    parts: list[str] = []
    models: list[type[BaseModel]] = [Preset]
    for part in location:
        if len(models) > 1 and part in _kinds(models):
            models = [model for model in models if model.model_fields["kind"].default == part]
            continue
        parts.append(str(part))
        if not isinstance(part, int) and len(models) == 1 and part in models[0].model_fields:
            models = table_models(models[0].model_fields[part].annotation)
    return ".".join(parts), models


def table_models(annotation: Any) -> list[type[BaseModel]]:
    """The models of a table, or of the tables in a list; none for what is a value."""
    if typing.get_origin(annotation) is None:
        return [annotation] if isinstance(annotation, type) and issubclass(annotation, BaseModel) else []
    return [model for part in typing.get_args(annotation) for model in table_models(part)]


def _kinds(models: Sequence[type[BaseModel]]) -> list[str]:
    return [str(model.model_fields["kind"].default) for model in models]


def _near(word: str, words: Sequence[str], cutoff: float) -> list[str]:
    return difflib.get_close_matches(word, words, 1, cutoff)


def _kinds_with(key: str, prefix: str) -> list[str]:
    """Kinds of the table at `prefix` that have a setting."""
    models: list[type[BaseModel]] = [Preset]
    for part in prefix.split(".")[:-1]:
        fields = [model.model_fields[part] for model in models if part in model.model_fields]
        models = [inner for field in fields for inner in table_models(field.annotation)]
    return _kinds([model for model in models if "kind" in model.model_fields and key in model.model_fields])


def _nearest(key: str, model: type[BaseModel], prefix: str) -> str:
    if kinds := _kinds_with(key, prefix):
        return f"{prefix}{key} belongs to kind {' and '.join(map(repr, kinds))}; {prefix}kind is another"
    if same := {name: field for name, field in all_keys(Preset) if _letters(name) == _letters(prefix + key)}:
        return f"did you mean {' or '.join(_described(name, field) for name, field in same.items())}?"
    fields = list(model.model_fields)
    words = [word for word in re.split("[-_]", key) if word in fields]
    if near := _near(key, fields, 0.85) or words or _near(key, fields, 0.6):
        return f"did you mean {_described(prefix + near[0], model.model_fields[near[0]])}?"
    elsewhere = {name: field for name, field in all_keys(Preset) if name.rpartition(".")[2] == key}
    if prefix and (below := {name: field for name, field in elsewhere.items() if name.startswith(prefix)}):
        elsewhere = below
    depth = min((name.count(".") for name in elsewhere), default=0)  # keys of sections before those of kinds
    elsewhere = {name: field for name, field in elsewhere.items() if name.count(".") == depth}
    if elsewhere:  # the right key in the wrong table
        return f"did you mean {' or '.join(_described(name, field) for name, field in elsewhere.items())}?"
    return f"keys there: {', '.join(prefix + name for name in model.model_fields)}"


def _letters(name: str) -> str:
    """A key without what joins its words: train_iters is train.iters, data-workers is data_workers."""
    return re.sub(r"[-_.]|\[\]|\b\d+\b", "", name).lower()


def all_keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """(dotted key, field) of every setting of a model, those of all variants and of lists (`steps[].kind`) too."""
    for key, field in model.model_fields.items():
        yield f"{prefix}{key}", field
        item = "[]" if typing.get_origin(field.annotation) is tuple else ""
        for inner in table_models(field.annotation):
            yield from all_keys(inner, f"{prefix}{key}{item}.")


def _described(name: str, field: FieldInfo) -> str:
    match field.default:
        case default if default is PydanticUndefined:
            shown = "required"
        case BaseModel():
            shown = "a table"
        case tuple() as default if any(isinstance(item, BaseModel) for item in default):
            shown = "a list of tables"
        case None:
            shown = "left out"
        case default:
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
    if origin in (typing.Union, types.UnionType) or table_models(annotation):
        return "table"
    return getattr(annotation, "__name__", str(annotation))
