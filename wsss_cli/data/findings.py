"""What is wrong with files, as `wsss verify` says it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Check = Callable[[], object]
Progress = Callable[[int, str], AbstractContextManager[Any]]


class Finding(NamedTuple):
    """Something that is wrong with a file; a note has the same form.

    Attributes:
        code: its kind, for scripts.
        fix: what to do about it.
    """

    code: str
    file: str
    problem: str
    fix: str = ""


@dataclass
class Report:
    """What was looked at, and what is wrong with it.

    Attributes:
        checked: how many of what.
        notes: what is worth knowing and no fault.
    """

    checked: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)
