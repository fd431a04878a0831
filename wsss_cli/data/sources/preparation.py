"""How a data set is made by several jobs: each looks at a share of its items, and one of them writes it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from wsss_cli.data.sources.mask_checks import MaskLook
from wsss_cli.data.sources.summary import Finding, Prepared
from wsss_cli.data.splits import Size

Look = tuple[Size | None, MaskLook | Finding | None]


@dataclass(frozen=True)
class Preparation:
    """What jobs do together.

    Attributes:
        asked: SHA-256 of all that the data set is made by but for the content of photographs and masks.
        ids: ids of the items, in order, anew at each call.
        begin: makes the directory ready, before an item is looked at; called where no other job is at work in it.
        look: what is seen of the items of some numbers, in their order, each as JSON has it.
        read: takes what JSON has of an item; ValueError, TypeError or KeyError: it is damaged.
        write: writes the data set, once what was read of all items comes, in the order of the ids.
    """

    asked: str
    ids: Callable[[], Iterable[str]]
    begin: Callable[[], None]
    look: Callable[[Sequence[int]], Iterator[Any]]
    read: Callable[[Any], Any]
    write: Callable[[Iterator[Any]], Prepared]


def digest_of(parts: Iterable[Any]) -> str:
    """SHA-256 of some parts, each of what JSON can say."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(json.dumps(part).encode() + b"\n")
    return digest.hexdigest()


def look_as_json(look: Look) -> list[Any]:
    """What is seen of a photograph and its mask, as JSON has it."""
    size, seen = look
    return [size, asdict(seen) if isinstance(seen, MaskLook) else seen]


def look_of_json(entry: Any) -> Look:
    """What `look_as_json` was given. Raises ValueError, TypeError or KeyError where it is damaged."""
    size, seen = entry
    if seen is not None and "values" in seen:
        seen = MaskLook(**{**seen, "values": tuple(seen["values"])})
    return (size[0], size[1]) if size else None, seen
