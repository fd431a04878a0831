"""What made each item of a folder of predictions: settings, and the photograph that it was made from."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wsss_cli.errors import DataError, WriteError

NAME = "made.jsonl"


def weights_digest(model: nn.Module) -> str:
    """SHA-256 of a network's tensors, hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class Journal:
    """made.jsonl of an output folder, written as items are finished: lines of settings, and lines of items.

    An item counts as made only where its line has these settings and the photograph's path, size and time as they are
    now. So what another network, other settings or another photograph of the same name has made is made anew.

    Args:
        settings: all that an item depends on besides its photograph; plain values.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.file = folder / NAME
        self.settings = settings
        self.key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
        self.items: dict[str, Any] = {}
        self.known = False  # whether the file has these settings
        text = self.file.read_text(encoding="utf-8", errors="replace") if self.file.is_file() else ""
        for line in text.splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):  # a line that was torn
                row = json.loads(line)
                if "settings" in row:
                    self.known = self.known or row["key"] == self.key
                else:
                    self.items[row["item"]] = row

    def has(self, item: str, photograph: Path, *, overlay: bool) -> bool:
        """Whether an item was made from a photograph as it is now, with these settings."""
        row = self.items.get(item, {})
        try:
            wanted = self._row(item, photograph, overlay)
        except DataError:
            return False
        return row in (wanted, {**wanted, "overlay": True})

    def forget(self, items: Iterable[str]) -> None:
        """Note that items are about to be written anew, and are of nobody knows what until then.

        Raises:
            WriteError: the disk is full.
        """
        self._append([{"item": item, "key": ""} for item in items if item in self.items])

    def add(self, item: str, photograph: Path, *, overlay: bool) -> None:
        """Note an item that is written.

        Raises:
            WriteError: the disk is full.
            DataError: its photograph is gone.
        """
        rows = [] if self.known else [{"settings": self.settings, "key": self.key}]
        self._append([*rows, self._row(item, photograph, overlay)])
        self.known = True

    def _append(self, rows: list[dict[str, Any]]) -> None:
        try:
            with self.file.open("a", encoding="utf-8") as file:
                file.write("".join("\n" + json.dumps(row) for row in rows))  # a torn line ends there
        except OSError as error:
            raise WriteError(f"cannot write {self.file}: {error.strerror}", "free space, then run again") from error

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
