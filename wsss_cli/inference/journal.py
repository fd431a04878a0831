"""What made each item of a folder of predictions: settings, and the photograph that it was made from."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from wsss_cli.engine.shards import FOLDER, Shard
from wsss_cli.errors import DataError, UsageError, WriteError
from wsss_cli.files import how_to_write
from wsss_cli.labels import told_apart

NAME = "made.jsonl"
ALSO = "also"  # in a line of settings: kinds of files that an earlier version did not write
CLASSES = "classes"  # in a line of settings: names by number, background first
KEYS = ("item", "key", "source", "bytes", "changed", "overlay")


def weights_digest(model: nn.Module) -> str:
    """SHA-256 of a network's tensors, hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def noted_items(folder: Path) -> dict[str, dict[str, Any]]:
    """The last row of each item of a folder of predictions, by item."""
    return {row["item"]: row for row in _rows(folder) if "settings" not in row}


def refuse_other_classes(folder: Path, names: Iterable[str], classes: Sequence[str], where: str) -> None:
    """Refuse masks whose numbers mean other classes than those of a data set.

    Args:
        folder: of predictions; one that notes no classes, as earlier versions and other programs write it, is taken.
        names: of its masks, without their ending.
        classes: of the data set, background first.
        where: the data set.
    Raises:
        UsageError: a mask was predicted for other classes, or for these in another order.
    """
    noted = {row["key"]: row[CLASSES] for row in _rows(folder, f'"{CLASSES}"') if isinstance(row.get(CLASSES), list)}
    if all(before == list(classes) for before in noted.values()):
        return
    items = noted_items(folder)
    for name in names:
        before = noted.get(items.get(name, {}).get("key", ""), list(classes))
        if before != list(classes):
            then, now = told_apart(before, classes)
            raise UsageError(
                f"{folder}: the mask {name} was predicted for {then}; {where} has {now}",
                "name the data set of the network with --data, or predict by a network of this one",
            )


def later_kinds(folder: Path) -> frozenset[str]:
    """Kinds of files that earlier versions did not write and that were predicted into a folder."""
    return frozenset(kind for row in _rows(folder, f'"{ALSO}"') for kind in _also(row))


def _also(row: dict[str, Any]) -> list[str]:
    kinds = row.get(ALSO) if "settings" in row else None
    return [kind for kind in kinds if isinstance(kind, str)] if isinstance(kinds, list) else []


def gather_shards(folder: Path) -> None:
    """Put what shards have noted into the journal of all. None may be at work, and nobody else.

    Raises:
        WriteError: the disk is full.
    """
    for part in _of_shards(folder):  # where this is broken off, all is put there once more before anything else is
        try:
            with (folder / NAME).open("ab") as file, part.open("rb") as rows:
                file.write(b"\n")
                shutil.copyfileobj(rows, file)
        except OSError as error:
            raise WriteError(f"cannot write {folder / NAME}: {error.strerror}", how_to_write(error)) from error
        part.unlink()


def _of_shards(folder: Path) -> list[Path]:
    return sorted((folder / FOLDER).glob("*.jsonl"))


def _rows(folder: Path, having: str = "") -> Iterator[dict[str, Any]]:
    """Rows that have what they must have, those of shards last; a line that was torn, or lacks a text, is none."""
    for part in (folder / NAME, *_of_shards(folder)):
        if not part.is_file():
            continue
        with part.open(encoding="utf-8", errors="replace") as lines:
            for line in (line for line in lines if having in line):
                with contextlib.suppress(ValueError):
                    row = json.loads(line)
                    if isinstance(row, dict) and isinstance(row.get("key" if "settings" in row else "item"), str):
                        yield row


def _hash(row: dict[str, Any]) -> int:
    return hash(json.dumps([row.get(key) for key in KEYS]))


class Journal:
    """made.jsonl of an output folder, written as items are finished: lines of settings, and lines of items.

    An item counts as made only where its line has these settings and the photograph's path, size and time as they are
    now. So what another network, other settings or another photograph of the same name has made is made anew.

    Args:
        settings: all that an item depends on besides its photograph; plain values.
        shard: that this process makes; it has a file of its own, see `gather_shards`.
        also: kinds of files that are to be written now and that earlier versions did not write.
        classes: names of the numbers in masks, noted beside the settings.
    Attributes:
        begun: whether anything was predicted into the folder before, or was about to be.
        kinds: of those in `also`, what was predicted into the folder before, or was about to be.
    """

    def __init__(
        self,
        folder: Path,
        settings: dict[str, Any],
        shard: Shard | None = None,
        also: Iterable[str] = (),
        classes: Sequence[str] = (),
    ) -> None:
        self.classes = list(classes)
        self.also = sorted(also)
        self.file = shard.file(folder, "jsonl") if shard else folder / NAME
        self.settings = settings
        self.key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
        self.begun = (folder / NAME).exists() or bool(_of_shards(folder))
        self.known = False  # whether the file has these settings
        items, rows, kinds = array("q"), array("q"), set[str]()
        for row in _rows(folder):
            if "settings" in row:
                self.known = self.known or row["key"] == self.key
                kinds.update(_also(row))
            else:
                items.append(hash(row["item"]))
                rows.append(_hash(row))
        last = np.argsort(np.frombuffer(items, np.int64), kind="stable") if items else np.empty(0, np.int64)
        self._items = np.asarray(items, np.int64)[last]
        self.kinds = frozenset(kinds)
        self._rows = np.asarray(rows, np.int64)[last]  # of several rows of an item the last holds

    def has(self, item: str, photograph: Path, *, overlay: bool) -> bool:
        """Whether an item was made from a photograph as it is now, with these settings."""
        row = self._row_of(item)
        try:
            wanted = self._row(item, photograph, overlay)
        except DataError:
            return False
        return row is not None and row in (_hash(wanted), _hash({**wanted, "overlay": True}))

    def _row_of(self, item: str) -> int | None:
        """The hash of what is noted of an item."""
        at = int(np.searchsorted(self._items, hash(item), "right")) - 1
        return int(self._rows[at]) if at >= 0 and self._items[at] == hash(item) else None

    def forget(self, items: Iterable[str]) -> None:
        """Note that items are about to be written anew, and are of nobody knows what until then.

        Raises:
            WriteError: the disk is full.
        """
        self._append([{"item": item, "key": ""} for item in items if self._row_of(item) is not None])

    def begin(self) -> None:
        """Note settings and kinds: what is written from here on is known to be predicted, wherever work is broken off.

        Raises:
            WriteError: the disk is full.
        """
        if not self.known or not self.kinds.issuperset(self.also):
            more = {**({ALSO: self.also} if self.also else {}), **({CLASSES: self.classes} if self.classes else {})}
            self._append([{"settings": self.settings, "key": self.key, **more}])
            self.known, self.kinds = True, self.kinds.union(self.also)

    def add(self, item: str, photograph: Path, *, overlay: bool) -> None:
        """Note an item that is written; threads may do so at once: a line is one call of the system.

        Raises:
            WriteError: the disk is full.
            DataError: its photograph is gone.
        """
        self.begin()
        self._append([self._row(item, photograph, overlay)])

    def _append(self, rows: list[dict[str, Any]]) -> None:
        try:
            with self.file.open("a", encoding="utf-8") as file:
                file.write("".join("\n" + json.dumps(row) for row in rows))  # a torn line ends there
        except OSError as error:
            raise WriteError(f"cannot write {self.file}: {error.strerror}", how_to_write(error)) from error

    def _row(self, item: str, photograph: Path, overlay: bool) -> dict[str, Any]:
        try:
            state = photograph.stat()
        except OSError as error:
            raise DataError(f"cannot read {photograph}: {error.strerror}") from error
        source = str(photograph.absolute())
        return {
            "item": item,
            "key": self.key,
            "source": source,
            "bytes": state.st_size,
            "changed": state.st_mtime_ns,
            "overlay": overlay,
        }
