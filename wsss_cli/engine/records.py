"""What a run directory says of itself: run.json (`RunRecord`) and inputs.json (`Inputs`). Read and written here."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from wsss_cli.config.forms import Form, read_form, write_form
from wsss_cli.errors import DataError, UsageError
from wsss_cli.labels import told_apart
from wsss_cli.talk import counted, silent

State = Literal["created", "running", "killed", "preempted", "failed", "done"]  # killed: shown, never written
Color = tuple[int, int, int]
Value = TypeVar("Value")


class Lost(TypedDict):
    """An item that could not be worked on."""

    id: str
    reason: str


class Attempt(BaseModel):
    """One process that worked in the directory; times in seconds since 1970, `end` None while it works."""

    model_config = ConfigDict(frozen=True, strict=True)

    host: str
    pid: int
    start: float
    end: float | None = None
    exit: int | None = None


class RunRecord(Form):
    """run.json: what a run is, how far it got, and what it ended with; results of a stage may be extra keys."""

    stage: str
    state: State
    preset: str = ""
    identity: str = ""
    created: float = 0.0
    versions: dict[str, str] = Field(default_factory=dict)
    argv: tuple[str, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    lost: tuple[Lost, ...] = ()
    device: str | None = None
    labelled: bool | None = None  # whether a training saw a pixel with a label
    ended_early: int | None = None  # the iteration at which validations had not been better for long enough
    fg_threshold: float | None = None
    bg_threshold: float | None = None
    spread: int = 0  # of the files of images: see `Files` in stages/paths.py

    def changed(self, **changes: Any) -> Self:
        """The record with other values, checked like one that is read."""
        table = self.model_dump(mode="json", exclude_unset=True) | changes
        return type(self).model_validate_json(json.dumps(table, default=lambda attempt: attempt.model_dump()))


class Inputs(Form):
    """inputs.json: the data set and the earlier runs that a run reads. Background first, colours RGB.

    Attributes:
        split_sha256: of each list of the data set as the run was made from it; empty in runs of earlier versions.
        limit: images of each list that counted, the first ones; 0: all.
    """

    dataset: str
    classes: tuple[str, ...]
    colors: tuple[Color, ...]
    dataset_name: str = ""
    dataset_fingerprint: str = ""
    split_sha256: dict[str, str] = Field(default_factory=dict)
    protocol: tuple[str, ...] = ()
    trusted: str = ""  # fingerprint of the data set's own labels that stand in the masks it goes back to; empty: none
    trusted_words: str = ""  # which those are
    teacher: str = ""  # whose scores or masks the run goes back to, in words; empty: tags or true masks alone
    limit: int = 0
    classifier_run: str | None = None
    classifier_identity: str | None = None
    recam_run: str | None = None
    recam_identity: str | None = None
    cam_run: str | None = None
    cam_identity: str | None = None
    judge_run: str | None = None
    judge_identity: str | None = None
    irn_run: str | None = None
    irn_identity: str | None = None
    psa_run: str | None = None
    psa_identity: str | None = None
    pseudo_run: str | None = None
    pseudo_identity: str | None = None
    train_run: str | None = None
    train_identity: str | None = None


def is_run(path: Path) -> bool:
    """Whether a directory is one of a run."""
    return (Path(path) / "run.json").is_file()


def read_record(path: Path) -> RunRecord:
    """run.json of a run directory.

    Raises:
        UsageError: no run directory.
        DataError: the record is damaged or was written by a newer version.
    """
    if not is_run(path):
        if (Path(path) / "model.safetensors").is_file():
            what = f"{path} has weights, but no run.json or meta.json, which say of what network"
            raise UsageError(what, "copy, publish or import it again")
        near = Path("runs") / Path(path).name
        meant = f"did you mean {near}? " if is_run(near) else ""
        raise UsageError(f"{path} is no run directory", f"{meant}{those_beside(path)}")
    return read_form(Path(path) / "run.json", RunRecord)


def those_beside(path: Path) -> str:
    """What names the runs that lie where a path does; the folder `runs` needs not be named."""
    folder = Path(path).parent
    there = folder != Path("runs") and folder != Path() and folder.is_dir()
    words = ["wsss", "runs", "list", *(("--runs", str(folder)) if there else ())]
    return f"{shlex.join(words)} names those there are"


def write_record(path: Path, record: RunRecord) -> None:
    write_form(Path(path) / "run.json", record)


def namer(folder: Path) -> Callable[[Path], str]:
    """From a file in a folder to the id that it is named after: its path there without its ending.

    Where the folder is one of a run whose files are spread over folders in it, without that folder, too.
    """
    first = 1 if is_run(folder.parent) and read_record(folder.parent).spread else 0
    return lambda file: Path(*file.relative_to(folder).with_suffix("").parts[first:]).as_posix()


def read_inputs(path: Path) -> Inputs:
    """inputs.json of a run directory.

    Raises:
        DataError: it is missing, damaged or was written by a newer version.
    """
    return read_form(Path(path) / "inputs.json", Inputs)


def write_inputs(path: Path, inputs: Inputs) -> None:
    write_form(Path(path) / "inputs.json", inputs)


def read_run(path: Path, stage: str) -> RunRecord:
    """run.json of a finished run of a stage that the user named.

    Raises:
        UsageError: no such run, a run of another stage, or one that is not done.
        DataError: the record is damaged or was written by a newer version.
    """
    record = read_record(path)
    if record.stage != stage:
        raise UsageError(f"{path} is a {record.stage} run; a {stage} run is needed here", those_beside(path))
    if record.state != "done":
        raise UsageError(f"{path} is not finished (state: {record.state})", "run its command again to finish it")
    return record


def required(value: Value | None, where: str) -> Value:
    """A value that some runs lack and this one must have; `where` is its file and key.

    Raises:
        DataError: it is missing.
    """
    if value is None:
        raise DataError(f"{where} is missing")
    return value


def find_runs(
    runs: Path, stage: str | None = None, say: Callable[[str], None] = silent
) -> list[tuple[Path, RunRecord]]:
    """(directory, run.json) of the runs of a stage, newest first.

    Args:
        say: told of each record that cannot be read, which is passed over.
    """
    stage_runs = []
    for file in sorted(filter(Path.is_file, Path(runs).glob("*/run.json"))):
        try:
            record = read_record(file.parent)
        except DataError as error:
            say(f"passed over: {error}")
            continue
        if stage is None or record.stage == stage:
            stage_runs.append((file.parent, record))
    return sorted(stage_runs, key=lambda pair: pair[1].created, reverse=True)


# -- limits ------------------------------------------------------------------------------------------------------------


def limit_of(path: Path) -> int:
    """The limit that a run was made with, 0 where there was none.

    Args:
        path: a run, or a folder in it such as a checkpoint; what is neither has no limit.
    """
    run = next((place for place in (path, *path.absolute().parents[:2]) if is_run(place)), None)
    try:
        return 0 if run is None else read_inputs(run).limit
    except DataError:
        return 0  # whoever needs its inputs says what is wrong with them


def refuse_limited(path: Path, limit: int) -> None:
    """Refuse to read a run that was made with a limit for one without.

    Args:
        path: as for `limit_of`.
        limit: of what is made from it.
    Raises:
        UsageError: it has a limit.
    """
    if not limit and (before := limit_of(path)):
        raise UsageError(
            f"{path} was made with a limit of {counted(before, 'image')}: what comes of it is not a result",
            f"give --limit {before}, too, or another run",
        )


def other_classes(weights: Path, classes: Sequence[str]) -> str:
    """What classes a network of a run was trained for where these are others, or in another order; else empty.

    Args:
        weights: a run, a folder in its checkpoints/, or a file in that; of a file elsewhere no classes are known.
        classes: of the data set, background first; empty where they are not known.
    """
    run = next((place for place in (weights, *weights.resolve().parents[:3]) if is_run(place)), None)
    if run is None or not classes or (before := read_inputs(run).classes) == tuple(classes):
        return ""
    then, now = told_apart(before, classes)
    return f"{run} was trained for {then}; the data set has {now}"


def refuse_other_classes(weights: Path, classes: Sequence[str]) -> None:
    """Refuse a network of a run whose classes are not these: what one scores would pass for another.

    Args:
        weights, classes: as for `other_classes`.
    Raises:
        UsageError: they are others, or in another order.
    """
    if others := other_classes(weights, classes):
        raise UsageError(
            others, "train on this data set, or prepare it with the classes in that order (--classes of wsss prepare)"
        )
