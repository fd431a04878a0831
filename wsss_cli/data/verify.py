"""All of a data set decoded and compared with what its lists say: photographs, masks, tags, names, twins."""

from __future__ import annotations

import contextlib
import os
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from wsss_cli.data.dataset import Dataset, Sample, open_dataset
from wsss_cli.data.findings import Check, Finding, Progress, Report
from wsss_cli.data.images import decode_and_tell, read_plain_file, stored_size
from wsss_cli.data.masks import read_mask
from wsss_cli.data.similar import NEAR, Member, Signatures, equal_files, look_alikes, picture_hash, short_hash
from wsss_cli.data.sources.mask_checks import look_at_mask
from wsss_cli.data.verify_labels import CODES as LABEL_CODES
from wsss_cli.data.verify_labels import look_at_labels
from wsss_cli.errors import DataError
from wsss_cli.labels import IGNORE
from wsss_cli.processes import in_processes
from wsss_cli.talk import silent

SCORING = ("val", "test")
"""How names of splits begin that are scored on; those of all others are trained on."""
CODES = {
    "unreadable": "a photograph is missing or does not decode",
    "damaged": "a photograph decodes, but its decoder says that something is wrong in it",
    "listed-size": "a photograph has another size as shown than its list says",
    "mask-unreadable": "a mask is missing, does not decode or is in colours",
    "mask-size": "a mask has another size than its photograph as shown",
    "mask-value": "a mask holds a value that is neither a class nor 255",
    "mask-all-255": "a mask holds 255 only",
    "not-tagged": "a mask holds a class that is no tag of its photograph",
    "not-in-mask": "a mask has no pixel of a tag of its photograph",
    "same-name": "two ids or files of a split differ in case only",
    "list-changed": "a list has another SHA-256 than the one on record",
    "duplicate": "two photographs have the same bytes",
    "leak": "a photograph of a split that is scored on has the bytes of one that is trained on",
    "look-alike": "a photograph of a split that is scored on looks like one that is trained on",
    **LABEL_CODES,
}
"""Kinds of findings of a data set."""


class Look(NamedTuple):
    """What is known of a row once its files were read; see `Signatures` for the first four."""

    content: int
    picture: int
    state: int
    turned: int  # its EXIF orientation
    findings: list[Finding]


def verify_dataset(root: Path, splits: Sequence[str], workers: int, check: Check, progress: Progress) -> Report:
    """Decode everything of a data set directory.

    No more is kept of a photograph than 25 bytes, and no list longer than it is worked on.

    Args:
        splits: those to look at; empty: all.
        check: called at least once a second; what it raises ends the work.
        progress: (total, title) -> a bar whose `advance` is called for each row.
    Raises:
        DataError: no data set, no such split, or a list that cannot be read.
    """
    dataset = open_dataset(root, silent)
    names = list(dict.fromkeys(splits)) or list(dataset.split_sha256)
    report, signatures = Report(), dict[str, Signatures]()
    for name in names:
        if name in dataset.edited:
            fix = f"run `wsss prepare` again, or write {dataset.split_sha256[name]} into dataset.json if it is meant"
            file = f"{root}/splits/{name}.csv"
            problem = f"{file} has another SHA-256 than dataset.json says: it was changed after `wsss prepare`"
            report.findings.append(Finding("list-changed", file, problem, fix))
    for name in names:
        samples = dataset.split(name)
        report.findings += _equal_names(samples, name)
        signatures[name] = _look_at_split(samples, name, dataset, workers, check, progress, report)
        report.checked[name] = len(samples)
    look_at_labels(dataset, {name: iter(dataset.split(name)) for name in names}, workers, check, progress, report)
    _add_twins(dataset, signatures, check, report)
    return report


def _look_at_split(
    samples: Sequence[Sample],
    name: str,
    dataset: Dataset,
    workers: int,
    check: Check,
    progress: Progress,
    report: Report,
) -> Signatures:
    signatures = Signatures.empty(len(samples))
    with (
        progress(len(samples), f"checking {name}") as bar,
        contextlib.closing(
            in_processes(partial(look_at, classes=dataset.classes), samples, workers, check=check)
        ) as looks,
    ):
        for row, (sample, look) in enumerate(zip(samples, looks, strict=True)):
            signatures.content[row], signatures.picture[row], signatures.state[row] = look[:3]
            signatures.place[row] = short_hash(os.fsencode(sample.image))
            report.findings += look.findings
            if look.turned != 1:
                said = f"{sample.image} is turned by EXIF (orientation {look.turned}); its mask fits it as shown"
                report.notes.append(
                    Finding("orientation", str(sample.image), said if sample.mask else said.split(";")[0])
                )
            bar.advance(1)
    return signatures


# -- one row, in a worker process --------------------------------------------------------------------------------------


def look_at(sample: Sample, classes: tuple[str, ...]) -> Look:
    """Decode the photograph and the mask of a row, and compare them with each other and with its tags."""
    findings: list[Finding] = []
    content, picture, state, turned, size = 0, 0, 0, 1, None
    file = str(sample.image)
    try:
        data = read_plain_file(sample.image)
        with library_talk() as lines:
            image, damage = decode_and_tell(data, file)
        _, turned = stored_size(sample.image)
    except DataError as error:
        findings.append(Finding("unreadable", file, error.message, error.hint))
    else:
        size, content = (image.shape[0], image.shape[1]), short_hash(data)
        if sample.size is not None and sample.size != size:
            problem = f"{file} is {size[1]}x{size[0]} as shown; its list says {sample.size[1]}x{sample.size[0]}"
            findings.append(Finding("listed-size", file, problem, "run `wsss prepare` again"))
        picture, blank = picture_hash(image)
        state = 1 if blank else 2
        if damage := damage or next((line for line in lines if line.startswith(DAMAGE)), ""):
            problem = f"{file} is damaged within: {damage}"
            findings.append(Finding("damaged", file, problem, "fetch the file again; what is decoded of it is used"))
    if sample.mask is not None:
        wrong = _look_at_mask(sample, sample.mask, size, classes)
        findings += wrong
        if any(finding.code == "mask-size" for finding in wrong):
            turned = 1  # the finding says so
    return Look(content, picture, state, turned, findings)


def _look_at_mask(sample: Sample, mask: Path, size: tuple[int, int] | None, classes: tuple[str, ...]) -> list[Finding]:
    if size is None:  # of a photograph that cannot be read
        with contextlib.suppress(DataError):
            size = read_mask(mask).shape
    look = look_at_mask(mask, sample.image, size or (0, 0), len(classes))
    file = str(mask)
    if look.code:
        code = "mask-unreadable" if look.code == "unreadable" else look.code
        return [Finding(code, file, look.problem, look.fix)]
    if look.oddity == "all-255":
        return [Finding("mask-all-255", file, f"{file} holds 255 only: nothing in it is scored", "leave the mask out")]
    drawn, tagged = {value for value in look.values if 0 < value < IGNORE}, set(sample.labels)
    findings = []
    if more := sorted(drawn - tagged):
        problem = f"{file} holds {_listed(more, classes)}, not among the tags of {sample.id}"
        findings.append(Finding("not-tagged", file, problem, "add the tag to the list, or mend the mask"))
    if less := sorted(tagged - drawn):
        problem = f"{file} has no pixel of {_listed(less, classes)}, which {sample.id} is tagged with"
        findings.append(Finding("not-in-mask", file, problem, "take the tag out of the list, or mend the mask"))
    return findings


def _listed(values: Sequence[int], classes: tuple[str, ...]) -> str:
    return ", ".join(classes[value] for value in values)


DAMAGE = ("Corrupt JPEG data", "Premature end of JPEG file", "Unsupported marker type", "Invalid SOS parameters")
"""How lines of libjpeg begin that say a file is damaged; it decodes it all the same, and OpenCV says nothing."""
KNOWN = (*DAMAGE, "libpng ", "TIFF", "[ WARN", "[ERROR")


@contextlib.contextmanager
def library_talk() -> Iterator[list[str]]:
    """Lines that libraries in C write to stderr while the body runs; of others (a bar in a thread) nothing is lost."""
    lines: list[str] = []
    with tempfile.TemporaryFile() as file:
        before = os.dup(2)
        try:
            os.dup2(file.fileno(), 2)
            yield lines
        finally:
            os.dup2(before, 2)
            os.close(before)
            if file.seek(0, os.SEEK_END):
                file.seek(0)
                text = file.read()
                lines += [line.decode(errors="replace") for line in text.splitlines()]
                others = [
                    line
                    for line in text.splitlines(keepends=True)
                    if not line.decode(errors="replace").startswith(KNOWN)
                ]
                with contextlib.suppress(OSError):
                    os.write(2, b"".join(others))


# -- names, and what occurs twice --------------------------------------------------------------------------------------


def _equal_names(samples: Sequence[Sample], split: str) -> Iterator[Finding]:
    """Ids, and else files, of a split that are one name where letters are not told apart by case (macOS, Windows)."""
    fix = "rename one of them: on a disk that does not tell case apart, what is made of one replaces the other's"
    by_id: dict[str, Sample] = {}
    by_file: dict[str, Sample] = {}
    for sample in samples:
        other = by_id.setdefault(_folded(sample.id), sample)
        if other is not sample:
            problem = f"{split}: the ids {other.id} and {sample.id} differ in case only"
            yield Finding("same-name", str(sample.image), problem, fix)
            continue
        other = by_file.setdefault(_folded(str(sample.image)), sample)
        if other.image != sample.image:
            problem = f"{split}: {other.image} and {sample.image} differ in case only"
            yield Finding("same-name", str(sample.image), problem, fix)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _add_twins(dataset: Dataset, signatures: dict[str, Signatures], check: Check, report: Report) -> None:
    """Add what occurs twice; lists are read again only where something does."""
    groups, listed = [], Counter[tuple[str, ...]]()
    for group in equal_files(signatures):
        check()
        places = {int(signatures[split].place[row]) for split, row in group}
        splits = [split for split, _ in group]
        if len(places) > 1 or len(set(splits)) < len(splits) or len({_scored(split) for split in splits}) > 1:
            groups.append(group)
        else:
            listed[tuple(splits)] += 1  # train and train_aug of VOC share photographs
    many, few = (
        [name for name in signatures if not _scored(name)],
        [name for name in signatures if _scored(name)],
    )
    alike = list(look_alikes(signatures, many, few, check))
    wanted = [member for group in groups for member in group] + [
        member for a in alike for member in (a.member, a.other)
    ]
    files = _files(dataset, wanted)
    for group in groups:
        report.findings.append(_twins(group, files))
    for one in alike:
        file, other = files[one.member], files[one.other]
        more = f", and {one.near - 1:,} more" if one.near > 1 else ""
        problem = (
            f"{one.member.split}: {file} looks like {other} of {one.other.split} ({one.bits} of 64 bits differ){more}"
        )
        report.findings.append(Finding("look-alike", file, problem, "look at both, and take one out of its list"))
    for splits_, count in listed.items():
        said = f"{count:,} photographs are listed in {' and in '.join(splits_)}"
        report.notes.append(Finding("in-two-lists", "", said))
    if blank := sum(int((one.state == 1).sum()) for one in signatures.values()):
        said = f"{blank:,} blank photographs were not compared with look-alikes (at most {NEAR} of 64 bits differ)"
        report.notes.append(Finding("blank", "", said))


def _twins(group: list[Member], files: Mapping[Member, str]) -> Finding:
    scored = [member for member in group if _scored(member.split)]
    trained = [member for member in group if not _scored(member.split)]
    first, *others = [*scored, *trained] if scored and trained else group
    shown = ", ".join(f"{files[other]} ({other.split})" for other in others[:3])
    more = f" and {len(others) - 3:,} more" if len(others) > 3 else ""
    problem = f"{files[first]} ({first.split}) has the bytes of {shown}{more}"
    if scored and trained:
        return Finding(
            "leak", files[first], f"{problem}: it is trained on and scored on", "take it out of one of the lists"
        )
    return Finding("duplicate", files[first], problem, "keep one of them in the list")


def _scored(split: str) -> bool:
    return split.startswith(SCORING)


def _files(dataset: Dataset, members: Sequence[Member]) -> dict[Member, str]:
    files: dict[Member, str] = {}
    for split in dict.fromkeys(member.split for member in members):
        samples = dataset.split(split)
        files |= {member: str(samples[member.row].image) for member in members if member.split == split}
    return files
