"""A data set's own labels (`trusted/`) decoded and compared with their index, photographs, classes and tags."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from wsss_cli.data.dataset import Dataset, Sample
from wsss_cli.data.findings import Check, Finding, Progress, Report
from wsss_cli.data.images import image_size
from wsss_cli.data.joined import PARTS, Parts, part_place, read_parts
from wsss_cli.data.masks import read_mask
from wsss_cli.data.sources.mask_checks import look_at_mask
from wsss_cli.data.trusted import FOLDER, TrustedLabels, read_trusted
from wsss_cli.errors import DataError
from wsss_cli.files import sha256_file
from wsss_cli.labels import IGNORE
from wsss_cli.processes import in_processes
from wsss_cli.talk import counted

CODES = {
    "labels-index": "an index of the data set's own labels is damaged, or names a photograph that is in no list",
    "labels-unreadable": "a label map is missing, does not decode or is in colours",
    "labels-changed": "a label map has another SHA-256 than its index says",
    "labels-size": "a label map has another size than its photograph as shown",
    "labels-value": "a label map holds a value that is neither a class nor 255",
    "labels-all-255": "a label map says nothing",
    "labels-not-tagged": "a label map holds a class that is no tag of its photograph, which has tags",
    "labels-unlisted": "a file lies among the label maps that no index names",
}
AGAIN = "add it again: wsss prepare labels"


class Job(NamedTuple):
    """A label map, of which `where` is the right one of the places that it may have, and its photograph."""

    sample: Sample
    where: Path
    sha256: str


def look_at_labels(
    dataset: Dataset,
    samples: Mapping[str, Iterator[Sample]],
    workers: int,
    check: Check,
    progress: Progress,
    report: Report,
) -> None:
    """Add what is wrong with the labels of photographs to a report.

    Args:
        samples: of the splits that are looked at. Where these are all there are, labels of other photographs and files
            that no index names are findings, too.
    """
    folder = dataset.root / FOLDER
    try:
        trusted, parts = read_trusted(dataset.root), read_parts(folder)
    except DataError as error:
        report.findings.append(Finding("labels-index", str(folder), error.message, error.hint or AGAIN))
        return
    if not trusted.entries:
        return
    chosen = {one.id: one for rows in samples.values() for one in rows if one.id in trusted.entries}
    jobs = _jobs(trusted, parts, chosen)
    report.checked["labels"] = len(chosen)
    work = partial(_look, classes=dataset.classes)
    with (
        progress(len(jobs), "checking labels") as bar,
        contextlib.closing(in_processes(work, jobs, workers, check=check)) as looks,
    ):
        for findings in looks:
            report.findings += findings
            bar.advance(1)
    if set(samples) == set(dataset.split_sha256):
        report.findings += _strangers(trusted, parts, chosen)


def _jobs(trusted: TrustedLabels, parts: Parts, chosen: Mapping[str, Sample]) -> list[Job]:
    jobs = []
    for name, sample in chosen.items():
        jobs.append(Job(sample, trusted.file(name), trusted.entries[name].sha256))
        kinds = parts.get(name, {})
        if len(kinds) > 1:
            jobs += [Job(sample, part_place(trusted.folder, name, kind), part.sha256) for kind, part in kinds.items()]
    return jobs


def _look(job: Job, classes: tuple[str, ...]) -> list[Finding]:
    file, size = str(job.where), None
    with contextlib.suppress(DataError):  # a photograph that cannot be read is a finding of its own
        size = image_size(job.sample.image)
    if size is None:
        with contextlib.suppress(DataError):
            size = read_mask(job.where).shape
    look = look_at_mask(job.where, job.sample.image, size or (0, 0), len(classes))
    if look.code:
        return [Finding(f"labels-{look.code.removeprefix('mask-')}", file, look.problem, look.fix)]
    findings = []
    if sha256_file(job.where) != job.sha256:
        problem = f"{file} has another SHA-256 than its index says: it is not trained on"
        findings.append(Finding("labels-changed", file, problem, AGAIN))
    drawn = {value for value in look.values if 0 < value < IGNORE}
    if look.oddity == "all-255":
        findings.append(Finding("labels-all-255", file, f"{file} holds 255 only: it says nothing", "draw something"))
    elif job.sample.labels and (more := sorted(drawn - set(job.sample.labels))):
        shown = ", ".join(classes[value] for value in more)
        problem = f"{file} holds {shown}, not among the tags of {job.sample.id}"
        findings.append(Finding("labels-not-tagged", file, problem, "add the tag to the list, or mend the labels"))
    return findings


def _strangers(trusted: TrustedLabels, parts: Parts, chosen: Mapping[str, Sample]) -> Iterator[Finding]:
    """Labels of photographs that are in no list, and files that no index names."""
    if strangers := [name for name in trusted.entries if name not in chosen]:
        problem = (
            f"{trusted.folder} has labels of {counted(len(strangers), 'photograph')} of no list, first {strangers[0]}"
        )
        yield Finding("labels-index", str(trusted.file(strangers[0])), problem, "was the list changed? add labels anew")
    named = {trusted.file(name) for name in trusted.entries}
    for name, kinds in parts.items():
        named |= {part_place(trusted.folder, name, kind) for kind in kinds}
    for file in sorted(trusted.folder.rglob("*.png")):
        hidden = [one for one in file.relative_to(trusted.folder).parts if one.startswith(".") and one != PARTS]
        if file not in named and not hidden:
            problem = f"{file} is named by no index: it is not trained on"
            yield Finding("labels-unlisted", str(file), problem, "wsss prepare labels adds it; else take it away")
