"""Pascal VOC 2012 with the SBD masks (train_aug), or a part of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from wsss_cli.data.dataset import Sample, begin_dataset, nearest, write_dataset
from wsss_cli.data.images import image_size
from wsss_cli.data.masks import clear_other_masks, write_mask
from wsss_cli.data.sources.devkit import CLASSES, VocSource, find_mask, read_lists
from wsss_cli.data.sources.mask_checks import MaskLook, MaskTally, look_at_mask
from wsss_cli.data.sources.preparation import Look, Preparation, digest_of, look_as_json, look_of_json
from wsss_cli.data.sources.sbd import read_labels, sbd_root
from wsss_cli.data.sources.summary import Prepared, summarise, summary_lines
from wsss_cli.data.sources.table import show_some, smallest
from wsss_cli.data.sources.tags import Tags, annotation_tags, mask_tags, read_tags
from wsss_cli.data.splits import Size
from wsss_cli.errors import DataError, UsageError
from wsss_cli.files import names_below
from wsss_cli.labels import voc_palette
from wsss_cli.processes import Check, check_stop, in_processes
from wsss_cli.rows import Rows
from wsss_cli.talk import counted

SOURCE = "PASCAL VOC 2012 + SBD"
OFFICIAL = {"train_aug": 10582, "train": 1464, "val": 1449}
Tick = Callable[[int, int], None]


@dataclass(frozen=True)
class Plan:
    """What the devkit has.

    Attributes:
        lists: ids by split.
        masks: the mask of each image, as the devkit has it; None: there is none.
        tags, origin: names by image, and where they come from.
    """

    source: VocSource
    lists: dict[str, list[str]]
    masks: dict[str, Path | None]
    tags: Tags
    origin: str

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in the order of the mask values 1, 2, ..."""
        return tuple(self.source.classes or CLASSES)

    def image(self, name: str) -> Path:
        """The photograph of that id."""
        return self.source.root / "JPEGImages" / f"{name}.jpg"

    def place(self, name: str, folder: Path) -> Path | None:
        """The mask as stages read it: where it lies, if it needs no change, else in `folder`."""
        path = self.masks[name]
        if path is None or (path.suffix == ".png" and not self.source.classes):
            return path
        return folder / f"{name}.png"


@dataclass(frozen=True, slots=True)
class Job:
    """A mask to look at, None where there is none, beside its photograph, and where stages read it."""

    mask: Path | None
    image: Path
    place: Path | None

    @property
    def is_to_convert(self) -> bool:
        return self.mask != self.place and self.place is not None and not self.place.is_file()


def prepare_voc(
    source: VocSource,
    out: Path,
    name: str,
    *,
    check: Check,
    workers: int = 1,
    tick: Tick = lambda done, total: None,
    tick_looks: Tick = lambda done, total: None,
) -> Prepared:
    """Write a data set directory with the splits train_aug, train and val, as far as the devkit has them.

    train_aug = (VOC train + SBD train + SBD val) - VOC val, sorted. With `source.classes` those classes are numbered
    1, 2, ... in the order given, every other class becomes 255 in the masks and is dropped from the tags, and images
    without a kept class leave the training splits. Every mask is looked at before anything is written. Converted masks
    that are there already are kept.

    Args:
        check: looks at a stop flag: called at least once a second; what it raises ends the work.
        tick: called with (done, total) after each mask that is converted.
        tick_looks: likewise after each mask that was looked at, which comes first.
    Raises:
        DataError, UsageError: what is wrong, where, and how to fix it.
    """
    plan = plan_voc(source)
    looks = in_processes(_look, _jobs(plan, out), workers, check=check)
    return _write(plan, looks, out, name, partial(_convert_all, workers=workers, check=check, tick=tick), tick_looks)


def voc_preparation(source: VocSource, out: Path, name: str, *, check: Check, workers: int = 1) -> Preparation:
    """What jobs do that make together what `prepare_voc` makes; `check` and `workers` as there.

    A job converts the masks that it looks at.

    Raises:
        DataError, UsageError: what is wrong, where, and how to fix it.
    """
    plan = plan_voc(source)
    jobs = _jobs(plan, out)

    def begin() -> None:
        begin_dataset(out)
        clear_other_masks(out / "masks", {"classes": list(plan.classes)})

    work = partial(_look_and_convert, lut=_lut(plan.classes), colors=_colors(plan.classes))
    places = {label: str(path.absolute()) for label, path in plan.masks.items() if path}
    tags = {label: list(names) for label, names in plan.tags.items()}
    return Preparation(
        asked=digest_of([str(source.root.absolute()), name, plan.classes, plan.lists, places, tags, plan.origin]),
        ids=lambda: plan.masks,
        begin=begin,
        look=lambda numbers: map(look_as_json, in_processes(work, Rows(jobs, numbers), workers, check=check)),
        read=look_of_json,
        write=lambda looks: _write(
            plan, looks, out, name, partial(_convert_all, workers=workers, check=check, tick=lambda done, total: None)
        ),
    )


def plan_voc(source: VocSource) -> Plan:
    """What the devkit has, once its lists, masks and tags are there.

    Raises:
        DataError, UsageError: what is wrong, where, and how to fix it.
    """
    classes = source.classes or CLASSES
    for label in classes:
        if label not in CLASSES:
            raise UsageError(
                f"--classes: unknown class {label!r}", f"{nearest(label, CLASSES)}VOC has {', '.join(CLASSES)}"
            )
    if len(set(classes)) < len(classes):
        raise UsageError("--classes names a class twice")
    lists = read_lists(source)
    ids = sorted({name for members in lists.values() for name in members})
    _refuse_missing_images(ids, source.root / "JPEGImages")
    masks = {name: find_mask(source, name) for name in ids}
    _refuse_bare(lists["val"], masks)
    tags, origin = _tags(source, lists, masks)
    return Plan(source, lists, masks, tags, origin)


def _jobs(plan: Plan, out: Path) -> list[Job]:
    return [Job(path, plan.image(name), plan.place(name, out / "masks")) for name, path in plan.masks.items()]


def _write(
    plan: Plan,
    looks: Iterable[Look],
    out: Path,
    name: str,
    convert: Callable[[Plan, Path], None],
    tick_looks: Tick = lambda done, total: None,
) -> Prepared:
    """Write the data set directory, once all looks at the masks have come and none is bad."""
    tally, sizes = _tally(plan, looks, tick_looks)
    splits = {split: _samples(plan, split, out / "masks", sizes) for split in plan.lists}
    begin_dataset(out)
    convert(plan, out)
    classes = ("background", *plan.classes)
    dataset = write_dataset(
        out,
        name=name,
        classes=classes,
        colors=_colors(plan.classes),
        splits=splits,
        source=SOURCE,
        protocol=_protocol(plan.lists, splits, plan.source.classes, plan.origin),
        findings=[],
    )
    each = {sample.id: sample for members in splits.values() for sample in members}
    summary = summarise(each.values(), classes)
    return Prepared(dataset, [], summary, [*summary_lines(summary), *_without_masks(plan), *tally.lines()])


def _without_masks(plan: Plan) -> list[str]:
    """A line on the images without a mask, and on what lies among SBD's."""
    bare, sbd = smallest(name for name, path in plan.masks.items() if path is None), plan.source.sbd
    others = smallest(name for name in names_below(sbd_root(sbd) / "cls") if not name.endswith(".mat")) if sbd else None
    beside = f"; SBD's masks are .mat files, but there are {show_some(others.first)}" if others and others.count else ""
    return [f"{counted(bare.count, 'image')} without a mask: {show_some(bare.first)}{beside}"] if bare.count else []


def _tally(plan: Plan, looks: Iterable[Look], tick: Tick) -> tuple[MaskTally, dict[str, Size]]:
    """What the masks hold, and the size of each photograph that has one or can be read, by id.

    Raises:
        DataError: one cannot be used: unreadable, no class indices, other values than VOC's, not the size of its image.
    """
    indices = {label: index for index, label in enumerate(CLASSES, 1)}
    tally = MaskTally(("background", *CLASSES))
    sizes: dict[str, Size] = {}
    for done, (name, (size, look)) in enumerate(zip(plan.masks, looks, strict=True), 1):
        if size:
            sizes[name] = size
        if isinstance(look, MaskLook):
            tally.add(look, [indices[label] for label in plan.tags[name]] if name in plan.tags else None)
        tick(done, len(plan.masks))
    tally.refuse_bad()
    tally.refuse_useless()
    return tally, sizes


def _look(job: Job) -> Look:
    try:
        size = image_size(job.image)
    except DataError:
        if job.mask is not None:
            raise
        return None, None  # whoever reads it loses it
    return size, look_at_mask(job.mask, job.image, size, len(CLASSES) + 1, read_labels) if job.mask else None


def _look_and_convert(job: Job, lut: np.ndarray, colors: tuple[tuple[int, int, int], ...]) -> Look:
    size, look = _look(job)
    if isinstance(look, MaskLook) and not look.code and job.is_to_convert:
        _convert(job, lut, colors)
    return size, look


def _refuse_missing_images(ids: Sequence[str], folder: Path) -> None:
    missing = []
    for name in ids:
        check_stop()
        if not (folder / f"{name}.jpg").is_file():
            missing.append(name)
    if missing:
        raise DataError(
            f"{len(missing)} of {len(ids)} listed images are not in {folder}, the first: {missing[0]}.jpg",
            "unpack the devkit anew, or take them off the lists in ImageSets/Segmentation",
        )


def _refuse_bare(ids: Sequence[str], masks: dict[str, Path | None]) -> None:
    bare = [name for name in ids if masks[name] is None]
    if bare:
        raise DataError(
            f"{len(bare)} of {len(ids)} val images have no mask, the first: {bare[0]}",
            "they are looked for in SegmentationClass and SegmentationClassAug; --aug-masks DIR names another place",
        )


def _tags(source: VocSource, lists: dict[str, list[str]], masks: dict[str, Path | None]) -> tuple[Tags, str]:
    """Tags by image, and where they come from. Training images must have them; validation images may."""
    if source.tags and source.tags_from_masks:
        raise UsageError("--tags and --tags-from-masks exclude each other", "give one of them")
    ids = sorted({name for split, members in lists.items() if split != "val" for name in members})
    listed = source.root / "ImageSets" / "image_labels.txt"
    if source.tags_from_masks:
        train = {name: masks[name] for name in ids}
        return mask_tags(train, CLASSES, read_labels), "tags from masks (--tags-from-masks)"
    if source.tags is None and (source.root / "Annotations").is_dir():
        there = [name for name in lists["val"] if (source.root / "Annotations" / f"{name}.xml").is_file()]
        return annotation_tags(source.root / "Annotations", [*ids, *there], CLASSES), "tags from Annotations/*.xml"
    path = source.tags or listed
    if not path.is_file():
        raise DataError(
            f"no image tags: {source.root} has no Annotations folder"
            if source.tags is None
            else f"no such file: {path}",
            "three ways: Annotations/*.xml in the devkit, --tags FILE (lines `id tag tag` or CSV), --tags-from-masks",
        )
    tags = read_tags(path, CLASSES)
    stray = [name for name in tags if not (source.root / "JPEGImages" / f"{name}.jpg").is_file()]
    if source.tags is not None and stray:
        raise DataError(
            f"{path} tags {counted(len(stray), 'image')} not there, the first: {stray[0]}",
            "correct the file or add the images",
        )
    untagged = [name for name in ids if name not in tags]
    if untagged:
        raise DataError(
            f"{counted(len(untagged), 'listed image')} without a line in {path}, the first: {untagged[0]}",
            "add a line for each",
        )
    return tags, f"tags from {path.name}"


def _lut(classes: Sequence[str]) -> np.ndarray:
    """What becomes of each value of a VOC mask, uint8 [256]."""
    lut = np.arange(256, dtype=np.uint8)
    lut[1 : len(CLASSES) + 1] = 255
    for index, label in enumerate(classes, 1):
        lut[CLASSES.index(label) + 1] = index
    return lut


def _convert_all(plan: Plan, out: Path, *, workers: int, check: Check, tick: Tick) -> None:
    """Make the masks that need a change and are not there."""
    clear_other_masks(out / "masks", {"classes": list(plan.classes)})
    jobs = [job for job in _jobs(plan, out) if job.is_to_convert]
    work = partial(_convert, lut=_lut(plan.classes), colors=_colors(plan.classes))
    for done, _ in enumerate(in_processes(work, jobs, workers, check=check), 1):
        tick(done, len(jobs))


def _colors(classes: Sequence[str]) -> tuple[tuple[int, int, int], ...]:
    """VOC's own colours, so that a subset's masks look like VOC's."""
    palette = voc_palette(len(CLASSES) + 1)
    return (palette[0], *(palette[CLASSES.index(label) + 1] for label in classes))


def _convert(job: Job, lut: np.ndarray, colors: tuple[tuple[int, int, int], ...]) -> None:
    if job.mask and job.place:
        write_mask(job.place, lut[read_labels(job.mask)], colors)


def _samples(plan: Plan, split: str, folder: Path, sizes: dict[str, Size]) -> list[Sample]:
    samples, classes = [], plan.classes
    for name in plan.lists[split]:
        labels = tuple(sorted(classes.index(label) + 1 for label in plan.tags.get(name, ()) if label in classes))
        if labels or split == "val" or len(classes) == len(CLASSES):
            samples.append(Sample(name, plan.image(name), plan.place(name, folder), labels, sizes.get(name)))
    if not samples:
        said = f"no image of split {split} has any of the classes {', '.join(classes)}"
        raise DataError(said, "name others with --classes, or all")
    return samples


def _protocol(
    lists: dict[str, list[str]], splits: dict[str, list[Sample]], classes: Sequence[str], origin: str
) -> list[str]:
    notes = [origin]
    short = [f"{len(lists[s]):,} of {n:,} {s}" for s, n in OFFICIAL.items() if s in lists and len(lists[s]) != n]
    if short:
        notes.append(f"subset: {', '.join(short)}")
    if classes:
        left = ", ".join(f"{len(samples):,} {split}" for split, samples in splits.items())
        notes.append(f"classes {', '.join(classes)} of VOC's 20, the others are 255; images left: {left}")
    return notes
