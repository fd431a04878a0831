"""Files that say what they are (run.json, inputs.json, dataset.json), read by one function whoever wrote them.

Such a file has a number `form`; one without is of form 1. It goes up when a version writes what earlier ones would read
wrong, and an upgrade is added, which turns a table of the form before into one of the next. A key that is added with a
default needs neither.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from wsss_cli.errors import DataError
from wsss_cli.files import read_json, write_json
from wsss_cli.talk import say

Upgrade = Callable[[dict[str, Any]], dict[str, Any]]


class NewerError(DataError):
    """A record of a newer version, which this one must not touch."""


class Form(BaseModel):
    """The content of such a file; what this version does not know stays and is written again."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False)
    form: int = 1


Known = TypeVar("Known", bound=Form)


def read_form(
    path: Path,
    model: type[Known],
    upgrades: Sequence[Upgrade] = (),
    say: Callable[[str], None] = say,
    hint: str = "",
) -> Known:
    """The content of a file in the newest form, 1 + the number of upgrades.

    Args:
        upgrades: from form 1 to 2, from 2 to 3, ...
        say: told where the file is of an older form.
        hint: how such a file looks, for one that does not.
    Raises:
        DataError: the file is missing, is no JSON, or has a key of another shape.
        NewerError: it was written by a newer version.
    """
    table, newest = read_json(path), 1 + len(upgrades)
    if not isinstance(table, dict):
        raise DataError(f"{path} is not a JSON object", hint)
    form = table.get("form", 1)
    if not isinstance(form, int) or isinstance(form, bool) or form < 1:
        raise DataError(f"{path}: form {form!r} is no version of the file", f"leave it out, or write {newest}")
    if form > newest:
        raise NewerError(
            f"{path} was written by a newer version of wsss (form {form}, this one reads up to {newest})",
            "upgrade wsss",
        )
    for upgrade in upgrades[form - 1 :]:
        table = upgrade(table)
    if form < newest:
        say(f"{path} was written by an older version of wsss (form {form}); read as form {newest}")
    try:
        return model.model_validate_json(json.dumps({**table, "form": newest}))
    except ValidationError as error:
        detail = error.errors()[0]
        key = ".".join(str(part) for part in detail["loc"])
        message = detail["msg"].removeprefix("Value error, ")
        raise DataError(f"{path}: {key}: {message[:1].lower()}{message[1:]}", hint) from None


def write_form(path: Path, content: Form) -> None:
    """Write what `read_form` reads, whole or not at all; keys that were never set are left out."""
    write_json(path, {"form": content.form, **content.model_dump(mode="json", exclude_unset=True)})
