"""Settings that got another name or place. The old name is still taken, with a line that says the new one.

A line of RENAMES for each setting, old dotted key first:

    "cam.iters": "classifier.iters",                      the value as it is; a whole table moves likewise
    "train.loss_average": Rewrite(_average, "valid"),     a function makes the new settings; "valid" is one old value

The function of a Rewrite gets (value, below): the old value, and the whole preset as it stands when this value comes,
which is all earlier layers and this layer, nested, each setting under its new name. It returns the new settings by
dotted key, `{"train.loss": [...]}`; `{}` where the setting is gone; None where the value is no old one after all, which
is for a key that goes on with another meaning. It must not change `below`.

Deeper keys are taken first ("train.model.aux_weight" before "train.model"), otherwise the order is that of the table.
A setting that moves a second time gets its first line changed to the last place, beside the new line.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from wsss_cli.errors import UsageError

Table = dict[str, Any]


@dataclass(frozen=True)
class Rewrite:
    """A setting that takes more than another key.

    Attributes:
        by: (old value, preset so far) -> new settings by dotted key, or None; see above.
        example: an old value that `by` takes; a test holds what comes out against the schema.
    """

    by: Callable[[Any, Table], Table | None]
    example: Any


def _thresholds(section: str, *, word: str, bg: float) -> dict[str, str | Rewrite]:
    """`threshold` was a word, which made scores or offsets of the two numbers beside it.

    Args:
        word, bg: examples.
    """

    def table(below: Table) -> Table:
        return _get(below, f"{section}.threshold") or {"kind": "fixed", "fg": 0.30, "bg": 0.05}

    def kind(value: Any, below: Table) -> Table | None:
        if not isinstance(value, str):
            return None
        before = table(below)
        old, new = ("" if kind == "fixed" else "_offset" for kind in (before["kind"], value))
        numbers = {f"{end}{new}": before[f"{end}{old}"] for end in ("fg", "bg")}
        by_class = {"per_class": True} if before.get("per_class") and value != "fixed" else {}
        return {f"{section}.threshold": {"kind": value, **numbers, **by_class}}

    def number(end: str, value: Any, below: Table) -> Table:
        return {f"{section}.threshold.{end}" + ("" if table(below)["kind"] == "fixed" else "_offset"): value}

    return {
        f"{section}.threshold": Rewrite(kind, word),
        f"{section}.fg_threshold": Rewrite(partial(number, "fg"), 0.9),
        f"{section}.bg_threshold": Rewrite(partial(number, "bg"), bg),
    }


def _per_class(value: Any, below: Table) -> Table:
    fixed = below["pseudo"]["threshold"]["kind"] == "fixed"
    return {} if fixed and value is False else {"pseudo.threshold.per_class": value}


def _terms(below: Table) -> list[Table]:
    return below.get("train", {}).get("loss") or [{"kind": "cross-entropy"}]


def _average(value: Any, below: Table) -> Table:
    averaged = ("cross-entropy", "gated-crf")
    return {"train.loss": [term | ({"average": value} if term["kind"] in averaged else {}) for term in _terms(below)]}


def _balance(value: Any, below: Table) -> Table:
    balanced = ({"balance": value} if term["kind"] == "cross-entropy" else {} for term in _terms(below))
    return {"train.loss": [term | more for term, more in zip(_terms(below), balanced, strict=True)]}


def _gated_crf(value: Any, below: Table) -> Table | None:
    terms = _terms(below)
    before = next((term for term in terms if term["kind"] == "gated-crf"), {"kind": "gated-crf"})
    before.setdefault("average", terms[0].get("average", "all"))
    rest = [term for term in terms if term["kind"] != "gated-crf"]
    if value is False:
        return {"train.loss": rest}
    return {"train.loss": [*rest, before | value]} if isinstance(value, dict) else None


RENAMES: dict[str, str | Rewrite] = {
    **_thresholds("pseudo", word="self", bg=-0.9),
    **_thresholds("affinity.irn", word="train-curve", bg=0.0),
    "pseudo.per_class": Rewrite(_per_class, True),
    "cam.backbone": "classifier.backbone",
    "cam.consistency": "classifier.consistency",
    "cam.iters": "classifier.iters",
    "cam.batch": "classifier.batch",
    "cam.crop": "classifier.crop",
    "cam.resize_min": "classifier.resize_min",
    "cam.resize_max": "classifier.resize_max",
    "cam.optim": "classifier.optim",
    "cam.schedule": "classifier.schedule",
    "cam.precision": "classifier.precision",
    "cam.classifier": "classifier.weights",
    "train.model.aux_weight": "train.aux.weight",
    "train.model": "train.head",
    "train.workers": "train.data_workers",
    "affinity.irn.workers": "affinity.irn.label_workers",
    "affinity.psa.workers": "affinity.psa.label_workers",
    "train.loss_average": Rewrite(_average, "valid"),
    "train.noise.balance": Rewrite(_balance, "fg-bg"),
    "train.noise.gated_crf": Rewrite(_gated_crf, False),
}


def renamed(
    layer: Table, below: Table, where: str, renames: Mapping[str, str | Rewrite] = RENAMES
) -> tuple[Table, str]:
    """A layer of a preset with each setting under its new name.

    Args:
        layer: nested settings as they were given; it stays as it is.
        below: the layers under it, merged.
        where: what the layer is, for messages: 'preset toy', '--set'.
    Returns:
        The layer to go on with, and a line that says what was taken as what; empty where nothing was old.
    Raises:
        UsageError: a setting is given by its old and by its new name.
    """
    new = copy.deepcopy(layer)
    notes = []
    for old in sorted(renames, key=lambda key: -key.count(".")):
        value = _get(new, old)
        if value is None:
            continue
        to, rest = renames[old], copy.deepcopy(new)
        _pop(rest, old)
        settings = {to: value} if isinstance(to, str) else to.by(value, overlaid(below, rest))
        if settings is None:
            continue
        new = rest
        for key, setting in settings.items():
            if key != old and _collide(_get(layer, key), setting):
                raise UsageError(f"{where}: {old} is now {key}, and both are given", f"leave out {old}")
            overlay(new, _nested(key, setting))
        notes.append(_note(old, list(settings)))
    more = f", and {len(notes) - 6} more such" if len(notes) > 6 else ""
    return new, f"{where}: {', '.join(notes[:6])}{more}; taken as that" if notes else ""


def _note(old: str, new: list[str]) -> str:
    if new == [old]:
        return f"{old} has another form now"
    return f"{old} is now {' and '.join(new)}" if new else f"{old} has no effect any more"


def overlaid(below: Table, above: Table) -> Table:
    """A new table: `below`, and over it `above`; tables are merged, all else is replaced."""
    both = copy.deepcopy(below)
    overlay(both, copy.deepcopy(above))
    return both


def overlay(into: Table, table: Table) -> None:
    """Lay `table` over `into`, which changes."""
    for key, value in table.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            overlay(into[key], value)
        else:
            into[key] = value


def _collide(there: Any, value: Any) -> bool:
    """Whether two settings for one place cannot both hold: not so for tables with different keys."""
    if isinstance(there, dict) and isinstance(value, dict):
        return any(_collide(there[key], value[key]) for key in there.keys() & value.keys())
    return there is not None


def _get(table: Any, key: str) -> Any:
    for part in key.split("."):
        table = table.get(part) if isinstance(table, dict) else None
    return table


def _pop(table: Table, key: str) -> None:
    """Take a key that is there out of nested tables, and the tables that it leaves empty."""
    first, _, rest = key.partition(".")
    if rest:
        _pop(table[first], rest)
    if not rest or not table[first]:
        del table[first]


def _nested(key: str, value: Any) -> Table:
    first, _, rest = key.partition(".")
    return {first: _nested(rest, value) if rest else value}
