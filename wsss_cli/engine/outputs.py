"""What a finished run has made: a list of its files and their sizes, so that "done" is looked at and not believed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from wsss_cli.config.forms import NewerError
from wsss_cli.engine.records import read_inputs, read_record
from wsss_cli.engine.shards import FOLDER
from wsss_cli.errors import DataError
from wsss_cli.files import read_json, write_json

LIST = "outputs.json"
RECORDS = ("run.json", "inputs.json", "sources.json", "preset.lock.toml", "log.txt", "metrics.jsonl", "LOCK", LIST)
NOT_LISTED = {*RECORDS, FOLDER}


def list_outputs(run: Path) -> None:
    """Write outputs.json: {file: bytes} of all that is in a run directory but its records and evaluations."""
    write_json(run / LIST, dict(sorted(_sizes(run, ""))))


def damaged_outputs(run: Path) -> list[Path]:
    """Files of a finished run that are gone or have another size than when it was finished.

    Only sizes are compared: what changed within a file is found by whoever reads it. A run without a list, of an
    earlier version, is believed.
    """
    try:
        listed = read_json(run / LIST) if (run / LIST).is_file() else {}
    except DataError:
        listed = {}
    if not isinstance(listed, dict):
        return []
    now = dict(_sizes(run, ""))
    return [run / name for name, size in listed.items() if now.get(name) != size]


def is_whole(run: Path) -> bool:
    """Whether a run is done and all is there that it has made; one with a damaged record is opened, and mended.

    Raises:
        NewerError: its record was written by a newer version.
    """
    try:
        read_inputs(run)
        return read_record(run).state == "done" and not damaged_outputs(run)
    except NewerError:
        raise
    except DataError:
        return False


def remove_output(run: Path, file: Path) -> None:
    """Take a damaged file away, with the checkpoint that it is part of."""
    inside = file.relative_to(run).parts
    if inside[0] == "checkpoints" and len(inside) > 2:
        shutil.rmtree(run / inside[0] / inside[1], ignore_errors=True)
    else:
        file.unlink(missing_ok=True)


def _sizes(run: Path, below: str) -> Iterator[tuple[str, int]]:
    with os.scandir(run / below) as entries:
        for entry in entries:
            name = f"{below}/{entry.name}" if below else entry.name
            if entry.name.startswith(".") or (not below and (name in NOT_LISTED or name.startswith("eval"))):
                continue
            if entry.is_dir():
                yield from _sizes(run, name)
            else:
                yield name, entry.stat().st_size
