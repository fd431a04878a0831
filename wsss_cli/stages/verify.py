"""All that a run says it has made, decoded: records, CAMs, masks, checkpoints; and the lists it was made from."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from wsss_cli.config.forms import NewerError
from wsss_cli.config.load import load_preset
from wsss_cli.data.dataset import Dataset, open_dataset
from wsss_cli.data.findings import Check, Finding, Progress, Report
from wsss_cli.engine.outputs import LIST, damaged_outputs
from wsss_cli.engine.pointers import find_checkpoint, pointed
from wsss_cli.engine.records import Inputs, RunRecord, is_run, read_inputs, read_record
from wsss_cli.engine.rundir import state_of
from wsss_cli.errors import DataError, UsageError, WeightsError
from wsss_cli.files import read_json
from wsss_cli.labels import IGNORE
from wsss_cli.processes import in_processes
from wsss_cli.scoring.stored import FILE, read_scores
from wsss_cli.stages.changes import changed_lists
from wsss_cli.stages.products import AGAIN, Product, look_at_product, predicted_products, run_products
from wsss_cli.talk import counted, silent

CODES = {
    "record": "a record of the run does not parse",
    "gone": "a file that the run has made is gone",
    "size-changed": "a file has another size than when the run was finished",
    "unreadable": "a CAM, a mask or another file does not decode",
    "wrong-size": "a CAM or a mask is of a photograph of another size",
    "wrong-value": "a CAM or a mask holds values or classes that it cannot have",
    "checkpoint": "a checkpoint is damaged: its SHA-256, its layout, or values that are not finite",
    "list-changed": "a list of the data set is another one than the run was made from",
    "data": "the data set of the run cannot be read, or has other classes",
    "input-changed": "a run that this one was made from was replaced by another",
}
"""Kinds of findings of a run."""
TRAINED = ("classifier", "recam", "irn", "psa", "train")


def verify_run(run: Path, workers: int, check: Check, progress: Progress) -> Report:
    """Read everything of a run directory, of a finished one also what should be there.

    Args:
        check: called at least once a second; what it raises ends the work.
        progress: (total, title) -> a bar whose `advance` is called for each image.
    Raises:
        UsageError: no run directory.
        NewerError: a record was written by a newer version.
    """
    report = Report()
    record = _parsed(lambda: read_record(run), run / "run.json", report)
    inputs = _parsed(lambda: read_inputs(run), run / "inputs.json", report)
    preset = _parsed(lambda: load_preset(str(run / "preset.lock.toml"), say=silent), run / "preset.lock.toml", report)
    _other_records(run, report)
    for file in damaged_outputs(run):
        code, said = (
            ("size-changed", "has another size than when the run was finished")
            if file.is_file()
            else ("gone", "is gone")
        )
        report.findings.append(Finding(code, str(file), f"{file} {said}", AGAIN))
    if record is None:
        return report
    done = record.state == "done"
    if not done:
        said = f"{run} is not finished (state: {state_of(run, record)}): what is there was looked at"
        report.notes.append(Finding("state", str(run), said))
    elif not (run / LIST).is_file():
        report.notes.append(
            Finding("no-list", str(run), f"{run} has no {LIST}: files of an earlier version are not listed")
        )
    if record.lost:
        said = (
            f"{run} lost {counted(len(record.lost), 'item')}, first {record.lost[0]['id']}: {record.lost[0]['reason']}"
        )
        report.notes.append(Finding("lost", str(run), said))
    dataset = _same_data(inputs, report) if inputs else None
    if inputs:
        _upstream(run, inputs, report)
    _checkpoints(run, record, check, report)
    products = run_products(run, record, preset, dataset)
    num_classes = len(inputs.classes) if inputs else IGNORE
    _look_at_all(products, record.stage, report, (num_classes, done), workers, check, progress)
    return report


def verify_predictions(folder: Path, workers: int, check: Check, progress: Progress) -> Report:
    """Read all that a folder of predictions says it has made; see `verify_run`.

    Args:
        folder: what `wsss infer --out` wrote.
    """
    report = Report()
    products, gone = predicted_products(folder)
    if gone:
        said = (
            f"gone, so that sizes were not compared: {counted(gone, 'photograph')} that masks in {folder} were made of"
        )
        report.notes.append(Finding("input-gone", str(folder), said))
    _look_at_all((len(products), iter(products)), "predictions", report, (IGNORE, True), workers, check, progress)
    return report


def _look_at_all(
    products: tuple[int, Iterator[Product]],
    title: str,
    report: Report,
    how: tuple[int, bool],
    workers: int,
    check: Check,
    progress: Progress,
) -> None:
    count, each = products
    if not count:
        return
    gone = {finding.file for finding in report.findings}
    look = partial(look_at_product, num_classes=how[0], done=how[1])
    with (
        progress(count, f"checking {title}") as bar,
        contextlib.closing(in_processes(look, each, workers, check=check)) as looks,
    ):
        for findings in looks:
            report.findings += [finding for finding in findings if finding.file not in gone]
            bar.advance(1)
    report.checked[title] = count


# -- records -----------------------------------------------------------------------------------------------------------


def _parsed(read: Callable[[], Any], file: Path, report: Report) -> Any:
    try:
        return read()
    except NewerError:
        raise
    except UsageError as error:
        if not file.parent.is_dir() or file.name == "run.json":
            raise
        report.findings.append(Finding("record", str(file), error.message, error.hint or AGAIN))
    except DataError as error:
        report.findings.append(Finding("record", str(file), error.message, AGAIN))
    return None


def _other_records(run: Path, report: Report) -> None:
    """Look at the evaluations, the list of files and the rows of metrics."""
    for file in [*sorted(run.glob("eval*.json")), run / LIST]:
        if file.is_file():
            table = _parsed(partial(read_json, file), file, report)
            if file.name == FILE and table is not None:
                _parsed(partial(read_scores, run), file, report)
            elif table is not None and not isinstance(table, dict):
                report.findings.append(Finding("record", str(file), f"{file} is not a JSON object", AGAIN))
    file = run / "metrics.jsonl"
    lines = file.read_text(encoding="utf-8", errors="replace").split("\n") if file.is_file() else []
    for number, line in enumerate(lines[:-1], 1):  # after the last line feed: nothing, or a line that was torn
        try:
            json.loads(line)
        except ValueError:
            report.findings.append(
                Finding("record", str(file), f"{file}, line {number} is not JSON", "take the line out")
            )


# -- what it was made from ---------------------------------------------------------------------------------------------


def _same_data(inputs: Inputs, report: Report) -> Dataset | None:
    """The data set of a run, None where it cannot be read; with a finding where it is another one by now."""
    try:
        dataset = open_dataset(inputs.dataset, silent, inputs.limit)
    except DataError as error:
        fix = "put the data set back, or give the run's command --data; files were looked at without their photographs"
        report.findings.append(Finding("data", inputs.dataset, error.message, fix))
        return None
    if dataset.classes != inputs.classes:
        problem = f"{dataset.root} has other classes than the run was made with"
        report.findings.append(Finding("data", inputs.dataset, problem, "run its command anew, into another folder"))
        return None
    if changed := changed_lists(inputs, dataset):
        problem = f"{changed} of {dataset.root} changed since the run was made (another SHA-256)"
        report.findings.append(
            Finding("list-changed", inputs.dataset, problem, "run its command: that makes a run anew")
        )
    elif not inputs.split_sha256 and not inputs.dataset_fingerprint:
        said = f"whether lists of {dataset.root} changed is not known: the run is of an earlier version"
        report.notes.append(Finding("lists-unknown", inputs.dataset, said))
    return dataset


def _upstream(run: Path, inputs: Inputs, report: Report) -> None:
    """Look at the runs that a run was made from; one that was removed is a note, as it is read no more."""
    for stage in ("classifier", "recam", "cam", "irn", "psa", "pseudo", "train"):
        stored, identity = getattr(inputs, f"{stage}_run"), getattr(inputs, f"{stage}_identity")
        if stored is None:
            continue
        places = [Path(stored), run.parent / Path(stored).name]  # a path as it was given, from a folder not known here
        path = next((place for place in places if place.exists()), None)
        if path is None:
            report.notes.append(Finding("input-gone", stored, f"{stored}, which the run was made from, is not here"))
        elif is_run(path):
            with contextlib.suppress(DataError):  # a damaged record is a finding of that run
                if identity and read_record(path).identity != identity:
                    problem = f"{path} is another run than the one that this was made from"
                    report.findings.append(Finding("input-changed", str(path), problem, "run its command anew"))


# -- checkpoints -------------------------------------------------------------------------------------------------------


def _checkpoints(run: Path, record: RunRecord, check: Check, report: Report) -> None:
    folder = run / "checkpoints"
    steps = sorted(folder.glob("step-*"))
    if record.stage in TRAINED and record.state == "done" and find_checkpoint(folder) is None:
        report.findings.append(Finding("gone", str(folder), f"{run} is done and has no checkpoint", AGAIN))
    for pointer in ("latest", "best"):
        name = pointed(folder, pointer)
        if name and not (folder / name).is_dir():
            file = folder / pointer
            report.findings.append(Finding("gone", str(file), f"{file} names {name}, which is gone", AGAIN))
    for step in steps:
        check()
        try:
            _look_at_checkpoint(step)
        except WeightsError as error:
            report.findings.append(Finding("checkpoint", str(step), error.message, error.hint))
    prototypes = run / "prototypes.safetensors"
    if prototypes.is_file():
        try:
            _look_at_prototypes(prototypes)
        except WeightsError as error:
            report.findings.append(Finding("checkpoint", str(prototypes), error.message, AGAIN))
    if steps:
        report.checked["checkpoints"] = len(steps)


def _look_at_checkpoint(step: Path) -> None:
    from wsss_cli.engine.checkpoint import AVERAGE, load_trainer, load_weights  # torch

    _, meta = load_weights(step)
    if AVERAGE in meta["sha256"]:
        load_weights(step, AVERAGE)
    _refuse_infinite(load_trainer(step), step / "trainer.pt")


def _look_at_prototypes(file: Path) -> None:
    import safetensors.torch

    try:
        state = safetensors.torch.load_file(file)
    except Exception as error:  # safetensors raises its own Rust error type
        raise WeightsError(f"{file} cannot be read: {error}") from error
    _refuse_infinite(state, file)


def _refuse_infinite(value: Any, file: Path, name: str = "") -> None:
    import torch

    if isinstance(value, torch.Tensor):
        if not torch.isfinite(value).all():
            raise WeightsError(f"{file} is damaged: {name} is not finite", "take its checkpoint away, and run again")
        return
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    for key, part in inner:
        _refuse_infinite(part, file, f"{name}.{key}" if name else f"{key}")
