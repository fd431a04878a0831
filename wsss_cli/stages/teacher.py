"""Scores of a teacher, made elsewhere, as a cam run that every later stage takes."""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from wsss_cli.cam.imported import Imported, ImportJob, Kind, import_scores
from wsss_cli.cam.store import read_cam
from wsss_cli.config.schema import DatasetConfig, Preset
from wsss_cli.data.dataset import Dataset, Sample
from wsss_cli.data.sources.foreign import CONVERT, in_place_of_pngs
from wsss_cli.data.sources.mask_checks import say_swapped
from wsss_cli.data.sources.results import SCORES, Results, place_of, places_by_name, read_results
from wsss_cli.engine.context import Context
from wsss_cli.engine.records import Inputs
from wsss_cli.engine.rundir import RunDir, open_run, run_path
from wsss_cli.engine.sweep import Lost, SweepOptions, sweep_items
from wsss_cli.errors import DataError, UsageError
from wsss_cli.files import json_lines, sha256_file
from wsss_cli.processes import check_stop, cores
from wsss_cli.rows import Each
from wsss_cli.stages.paths import Files, cam_files, spread_for
from wsss_cli.stages.scored import score_seeds

HIGH_HIT, LOW_HIT, FEW_FALSE = 0.9, 0.5, 0.05  # of `Counts.advice`
JOURNAL = "teacher.jsonl"  # a line for each photograph that is done
ENDINGS: dict[str, Kind] = {".png": "label maps", ".npz": "scores"}


@dataclass(frozen=True)
class Source:
    """Where scores come from.

    Attributes:
        path: a JSON of results, or a folder of label maps (.png) or scores (.npz).
        teacher: what made them, in words; stands beside every figure that comes of them.
        renames: from a label of the results to a class.
        names_from: a JSON that names the ids of the results.
    """

    path: Path
    teacher: str
    renames: Mapping[str, str]
    names_from: Path | None = None


@dataclass(frozen=True)
class Counts:
    """Of a class the photographs with its tag, those of them where a score passes one half, all without the tag, and
    those of them where a score does."""

    tagged: int = 0
    taken: int = 0
    others: int = 0
    untagged: int = 0

    @property
    def hit(self) -> float | None:
        """Share of the tagged photographs in which the teacher finds the class; None: none is tagged."""
        return self.taken / self.tagged if self.tagged else None

    @property
    def false(self) -> float | None:
        """Share of the photographs without the tag in which it finds it all the same; None: all have the tag."""
        return self.untagged / self.others if self.others else None

    @property
    def advice(self) -> str:
        """'teacher', 'CAM' or 'both', by thresholds that are proposals: nobody has measured them."""
        hit, false = self.hit, self.false or 0.0
        if hit is None:
            return "-"
        if hit < LOW_HIT or false > hit / 2:
            return "CAM"
        return "teacher" if hit >= HIGH_HIT and false <= FEW_FALSE else "both"


@dataclass(frozen=True)
class Import:
    """What came of an import.

    Attributes:
        run: the cam run.
        lost: photographs without usable scores.
        counts: by class.
        notes: what was passed over, a line each.
        scores: the threshold curve, where the split has masks.
        skipped: it was there before.
    """

    run: Path
    lost: Lost
    counts: dict[str, Counts]
    notes: tuple[str, ...]
    scores: dict[str, Any]
    skipped: bool


def run_import(dataset: Dataset, split: str, source: Source, name: str, ctx: Context) -> Import:
    """Make the cam run of a teacher's scores, and score it where the split has masks. Resumes where it stopped.

    Raises:
        DataError: no source, or nothing in it is of the data set, or can be used.
        UsageError: ids without names, or a rename to no class.
    """
    samples = dataset.split(split)
    jobs, without, identity, notes = _source(samples, dataset, source, split)
    preset = Preset(
        name=name,
        description=f"scores of {source.teacher}",
        dataset=DatasetConfig(path=str(dataset.root), train=split, score=split),
    )
    inputs = Inputs(
        dataset=str(dataset.root),
        dataset_name=dataset.name,
        dataset_fingerprint=dataset.fingerprint,
        split_sha256=dataset.split_sha256,
        classes=dataset.classes,
        colors=dataset.colors,
        protocol=dataset.protocol,
        teacher=source.teacher,
    )
    path = run_path(ctx.runs, "cam", name, identity)
    with open_run(path, "cam", preset, identity, inputs, spread_for(len(samples))) as run:
        skipped = run.done and not run.lost
        lost = _make(samples, jobs, set(without), run, ctx)  # first: their reasons tell more
        lost += [{"id": samples[place].id, "reason": f"{source.path} has no file of it"} for place in without]
        if len(lost) == len(samples):
            why = f"the first: {lost[0]['reason']}"
            raise DataError(
                f"no photograph of {split!r} has scores in {source.path} that can be used; {why}", "nothing is imported"
            )
        counts = counted(path, dataset)
        if source.path.is_dir() and not any(one.taken or one.untagged for one in counts.values()):
            _refuse_classless(source.path)
        scores = score_seeds(dataset, preset, run, ctx, partial(_how, source.teacher))
        run.finish(lost=lost)
    return Import(path, lost, counts, notes, scores, skipped)


def _refuse_classless(folder: Path) -> None:
    """Refuse label maps without a class, and scores of 0; others may be below one half, and order pixels all the same.

    Bytes of 0 and 1 are scores up to 1 of 255: a map of 0..1 that was stored without the factor.
    """
    kind, files = _listed(folder)
    if kind == "scores" and not any(_tells(folder / file) for file in files):
        raise DataError(
            f"no score in {folder} is above 1/255: all maps are black",
            "scores are floats in 0..1, or bytes in 0..255, where 255 is 1: bytes of 0 and 1 lack the factor; "
            "nothing is imported",
        )
    if kind == "label maps":
        raise DataError(
            f"no label map in {folder} has a class: all pixels that were read are 0 or 255",
            "write class indices: 0 background, 1, 2, ... the classes; 255 is unknown; nothing is imported",
        )


def _tells(file: Path) -> bool:
    try:
        scores, _, _ = read_cam(file)
    except DataError:  # lost, and named as such
        return False
    return bool((scores > LEAST).any())


LEAST = 1 / 255 + 1e-6  # of a score that is not rounding
Job = Callable[[int, Path], ImportJob]  # (place in the list, the CAM file)


def _source(
    samples: Sequence[Sample], dataset: Dataset, source: Source, split: str
) -> tuple[Job, list[int], str, tuple[str, ...]]:
    """How a photograph's scores are read, which have none, the identity of the whole, and what is passed over."""
    if source.path.is_dir():
        if source.renames:
            raise UsageError(f"--rename is of the labels of a JSON, and {source.path} is none", "leave it out")
        kind, files = _listed(source.path)
        places = places_by_name(samples)
        mine: dict[int, str] = {}
        strangers: list[str] = []
        for file in files:
            place = place_of(file, places, of_map=True)
            if place is None:
                strangers.append(file)
            else:
                if place in mine:
                    raise DataError(f"{mine[place]} and {file} in {source.path} are of one photograph", "leave one")
                mine[place] = file
        if not mine:
            raise DataError(
                f"none of the {len(files):,} {kind} in {source.path} is of a photograph of split {split!r}",
                f"they are named like photographs: {samples[0].id}{Path(files[0]).suffix}",
            )
        if kind == "label maps":
            say_swapped([source.path / file for file in files])
        job = partial(_file_job, samples, kind, source.path, mine, dataset.num_classes)
        digest = hashlib.sha256()
        for place in sorted(mine):
            check_stop()
            digest.update(f"{samples[place].id}\0{sha256_file(source.path / mine[place])}\n".encode())
        notes = tuple(
            f"{len(strangers):,} of {len(files):,} files are of no photograph of the list, first {name}"
            for name in strangers[:1]
        )
        without = [place for place in range(len(samples)) if place not in mine]
        return job, without, _identity(dataset, split, source, digest.hexdigest()), notes
    if not source.path.is_file():
        raise DataError(f"there is no {source.path}", "a JSON of results, or a folder of label maps or .npz files")
    if source.path.suffix.lower() not in ("", ".json"):
        raise DataError(f"{source.path} is no .json", f"name a JSON of instances, or a folder; {CONVERT}")
    results = read_results(source.path, samples, dataset, source.renames, source.names_from)
    names = sha256_file(source.names_from) if source.names_from else ""
    identity = _identity(dataset, split, source, f"{sha256_file(source.path)} {names}")
    job = partial(_results_job, samples, results, dataset.num_classes)
    return job, [], identity, tuple(_notes(results))


def _listed(folder: Path) -> tuple[Kind, list[str]]:
    """The kind of the files of a folder and of those within it, and their paths there."""
    by_ending: dict[str, list[str]] = {ending: [] for ending in ENDINGS}
    for place, _, names in os.walk(folder):
        check_stop()
        for name in names:
            ending = Path(name).suffix.lower()
            if ending in by_ending and not name.startswith("."):
                by_ending[ending].append(str(Path(place, name).relative_to(folder)))
    there = [ending for ending, files in by_ending.items() if files]
    if len(there) != 1:
        lies, hint = in_place_of_pngs(folder) if not there else ("", "")
        what = f"neither .png nor .npz files{lies}" if not there else "both .png and .npz files"
        raise DataError(f"{folder} has {what}", hint or "label maps end in .png, scores in .npz; one kind is taken")
    return ENDINGS[there[0]], sorted(by_ending[there[0]])


def _file_job(
    samples: Sequence[Sample], kind: Kind, folder: Path, files: Mapping[int, str], classes: int, place: int, out: Path
) -> ImportJob:
    sample = samples[place]
    return ImportJob(sample.id, sample.image, sample.labels, kind, folder / files[place], (), out, classes)


def _results_job(samples: Sequence[Sample], results: Results, classes: int, place: int, out: Path) -> ImportJob:
    sample, instances = samples[place], tuple(results.by_image.get(place, ()))
    size = results.sizes.get(place)
    return ImportJob(sample.id, sample.image, sample.labels, "results", results.path, instances, out, classes, size)


def _notes(results: Results) -> Iterator[str]:
    total = f"{results.instances:,}"
    if results.other_images:
        yield (
            f"{results.other_images:,} of {total} entries are of no photograph of the list, first {results.other_image}"
        )
    if results.empty:
        yield f"{results.empty:,} of {total} entries have no outline, or one of no more than a pixel"
    if results.unscored:
        yield f"{results.unscored:,} of {total} entries have no {' or '.join(SCORES)}, and count as 1"
    yield from results.marks
    if results.other_labels:
        most = sorted(results.other_labels.items(), key=lambda item: -item[1])
        shown = ", ".join(f"{name!r} ({count:,})" for name, count in most[:8])
        more = f" and {len(most) - 8} more" if len(most) > 8 else ""
        yield f"{sum(results.other_labels.values()):,} of {total} entries have labels that are no class: {shown}{more}"


def _identity(dataset: Dataset, split: str, source: Source, content: str) -> str:
    table = {
        "stage": "import-scores",
        "fingerprint": dataset.fingerprint,
        "split": split,
        "teacher": source.teacher,
        "renames": dict(source.renames),
        "content": content,
    }
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()


def _make(samples: Sequence[Sample], job: Job, without: set[int], run: RunDir, ctx: Context) -> Lost:
    """Write the CAMs that are not there yet; what cannot be used is lost."""
    cams = cam_files(run.path)
    journalled = {line["id"] for line in json_lines(run.path / JOURNAL)}
    there = cams.there(samples)
    pending = array(
        "Q",
        (
            place
            for place, sample in enumerate(samples)
            if place not in without and not (there[place] and sample.id in journalled)
        ),
    )
    lost: Lost = []
    options = SweepOptions("teacher's scores", workers=cores(), processes=True)
    jobs = Each(pending, partial(_job_of, samples, job, cams))
    with (run.path / JOURNAL).open("a", encoding="utf-8") as journal:
        for item, one in sweep_items(jobs, import_scores, options, lost, ctx, run.log):
            journal.write(json.dumps({"id": item.id, **vars(one)}) + "\n")
            journal.flush()
    return lost


def _job_of(samples: Sequence[Sample], job: Job, cams: Files, place: int) -> ImportJob:
    return job(place, cams.of(samples[place].id))


def counted(run: Path, dataset: Dataset) -> dict[str, Counts]:
    """What a teacher has found, by class.

    Raises:
        UsageError: the run is none of a teacher's scores.
    """
    if not (run / JOURNAL).is_file():
        raise UsageError(f"{run} is no run of a teacher's scores", "wsss import-scores makes one")
    table = [[0, 0, 0] for _ in dataset.classes]
    keys = ("tagged", "untagged", "missing")
    seen = set[str]()
    for line in json_lines(run / JOURNAL):
        if line["id"] in seen:  # made again after a kill, of the same source
            continue
        seen.add(line["id"])
        one = Imported(*(tuple(line[key]) for key in keys))
        for label in (*one.tagged, *one.missing):
            table[label][0] += 1
        for column, labels in ((1, one.tagged), (2, one.untagged)):
            for label in labels:
                table[label][column] += 1
    rows = zip(dataset.classes[1:], table[1:], strict=True)
    return {name: Counts(tagged, taken, len(seen) - tagged, more) for name, (tagged, taken, more) in rows}


def _how(teacher: str, what: str) -> str:
    return (
        f"scores of {teacher} within the tags, on {what}, no CRF; background threshold chosen on this split; "
        "255 in the truth ignored; not of image tags alone"
    )
