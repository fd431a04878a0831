"""What worker processes of the tests get: they need not load torch for it."""

from dataclasses import dataclass
from pathlib import Path

from wsss_cli.files import read_json, write_json


@dataclass(frozen=True)
class Item:
    id: str


@dataclass(frozen=True)
class File:
    id: str
    path: Path

    def read(self):
        return read_json(self.path)

    def write(self):
        write_json(self.path, self.id)
