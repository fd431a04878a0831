"""What a finished run has made: a list of its files and their sizes, so that "done" is looked at and not believed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from wsss_cli.config.forms import NewerError
from wsss_cli.engine.records import is_run, read_inputs, read_record
from wsss_cli.engine.shards import FOLDER
from wsss_cli.errors import DataError
from wsss_cli.files import read_json, whole_file

LIST = "outputs.json"
RECORDS = ("run.json", "inputs.json", "sources.json", "preset.lock.toml", "log.txt", "metrics.jsonl", "LOCK", LIST)
TO_LOOK_AT = ("report.html", "examples.jpg", "show.png")  # made anew at any time, as are the pictures of layers
NOT_LISTED = {*RECORDS, FOLDER, *TO_LOOK_AT}


def list_outputs(run: Path) -> None:
    """Write outputs.json: {file: bytes} of all in a run directory but records, evaluations and what is to look at."""
    with whole_file(run / LIST) as file:
        file.write(b"{")
        for number, (name, size) in enumerate(_sizes(run, "")):
            file.write(f"{',' if number else ''}\n  {json.dumps(name, ensure_ascii=False)}: {size}".encode())
        file.write(b"\n}\n")


def damaged_outputs(run: Path) -> list[Path]:
    """Files of a finished run that are gone or have another size than when it was finished.

    Only sizes are compared: what changed within a file is found by whoever reads it. A run without a list, of an
    earlier version, is believed.
    """
    if not (run / LIST).is_file():
        return []
    try:
        return list(_differing(run, _listed(run / LIST)))
    except (ValueError, OSError):  # no list as `list_outputs` writes it
        pass
    try:
        listed = read_json(run / LIST)
    except DataError:
        return []
    return list(_differing(run, sorted(listed.items()))) if isinstance(listed, dict) else []


def _listed(file: Path) -> Iterator[tuple[str, int]]:
    """What a list holds, line by line.

    Raises:
        ValueError: a line or its place is another than that in which `list_outputs` writes it.
    """
    before = ""
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            if line not in ("{\n", "}\n"):
                name, _, size = line.rstrip(",\n").rpartition(": ")
                name = json.loads(name)
                if not isinstance(name, str) or name <= before:
                    raise ValueError(line)
                yield name, int(size)
                before = name


def _differing(run: Path, listed: Iterable[tuple[str, int]]) -> Iterator[Path]:
    """Listed files that are gone or have another size; both what is listed and what is there come in order."""
    there = _sizes(run, "")
    now = next(there, None)
    for name, size in listed:
        if _is_beside(name):  # as earlier versions list it
            continue
        while now is not None and now[0] < name:
            now = next(there, None)
        if now != (name, size):
            yield run / name


def is_whole(run: Path) -> bool:
    """Whether a run is done and all is there that it has made; one with a damaged record is opened, and mended.

    Raises:
        NewerError: its record was written by a newer version.
    """
    if not is_run(run):  # another process, or one that was killed, has begun to make it
        return False
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


def _is_beside(name: str) -> bool:
    """Whether what lies in a run directory is no output: a record, an evaluation, or made to be looked at."""
    return name in NOT_LISTED or name.startswith(("eval", "features."))


def _sizes(run: Path, below: str) -> Iterator[tuple[str, int]]:
    """(name, bytes) of the files below a folder of a run, in the order of their names."""
    with os.scandir(run / below) as scanned:
        entries = [(f"{entry.name}/" if entry.is_dir() else entry.name, entry) for entry in scanned]
    for name, entry in sorted(entries, key=lambda pair: pair[0]):
        if name.startswith(".") or (not below and _is_beside(entry.name)):
            continue
        if name.endswith("/"):
            yield from _sizes(run, below + name)
        else:
            yield below + name, entry.stat().st_size
