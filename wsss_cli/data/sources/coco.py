"""MS COCO 2014 for segmentation: masks of its 80 classes painted from the instance annotations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

from wsss_cli.data.dataset import Sample, begin_dataset, refuse_duplicates, write_dataset
from wsss_cli.data.images import stored_size
from wsss_cli.data.masks import clear_other_masks
from wsss_cli.data.sources.coco_root import SPLITS, coco_folder, coco_json
from wsss_cli.data.sources.instances import RULE, SHARES, Instances, Listed, read_instances
from wsss_cli.data.sources.orientation import Orientation, decide_orientation
from wsss_cli.data.sources.painting import PAINTING, Colors, Look, PaintJob, look_and_paint, paint_all
from wsss_cli.data.sources.preparation import Preparation, digest_of
from wsss_cli.data.sources.summary import Prepared, summarise, summary_lines
from wsss_cli.errors import DataError
from wsss_cli.files import sha256_file
from wsss_cli.labels import voc_palette
from wsss_cli.processes import Check, in_processes
from wsss_cli.rows import Rows
from wsss_cli.talk import counted

SOURCE = "MS COCO 2014 instances"
OFFICIAL = {"train": 82783, "val": 40504}
LABELLED = {"train": 82081, "val": 40137}
CLASSES = 80

Tick = Callable[[int, int], None]


@dataclass(frozen=True)
class Plan:
    """What the JSON files list.

    Attributes:
        parts: by split.
        jobs: a mask for each image of a split, not turned yet.
        sha256: of the JSON files, by name.
        notes: lines on instances that cover no pixel, and on what of the files is not looked at.
    """

    parts: dict[str, Instances]
    jobs: dict[str, list[PaintJob]]
    sha256: dict[str, str]
    notes: list[str]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, background first."""
        return ("background", *self.parts["train"].categories.values())

    @property
    def colors(self) -> Colors:
        """RGB of each class."""
        return voc_palette(len(self.classes))

    @property
    def flat(self) -> list[PaintJob]:
        """The jobs of all splits."""
        return [job for members in self.jobs.values() for job in members]


def prepare_coco(
    root: Path,
    out: Path,
    name: str,
    *,
    check: Check,
    keep_unlabelled: bool = True,
    orientation: Orientation = "auto",
    workers: int = 1,
    tick: Tick = lambda done, total: None,
    tick_sizes: Tick = lambda done, total: None,
) -> Prepared:
    """Write a data set directory with the splits train and val, and a mask for each of their images.

    Classes are the categories in ascending order of their ids, numbered 1, 2, ... An image's tags are the categories of
    those of its annotations that are no crowd regions. Images without a tag are not in train. Masks that are there are
    kept, unless they were made from other JSON files.

    Args:
        root: what `find_coco` returns.
        check: looks at a stop flag: called at least once a second; what it raises ends the work.
        keep_unlabelled: whether val keeps the images without a tag; their masks are background (or 255).
        orientation: whether annotations were made on pixels as stored or as shown; auto: told by their sizes.
        tick: called with (done, total) after each mask.
        tick_sizes: likewise after each photograph whose size was read, which comes first.
    Raises:
        DataError: what is wrong, where, and how to fix it.
    """
    plan = plan_coco(root, out, keep_unlabelled)
    images = [job.image for job in plan.flat]
    looks = []
    for done, size in enumerate(in_processes(stored_size, images, workers, check=check), 1):
        looks.append((*size, ""))
        tick_sizes(done, len(images))
    work = partial(paint_all, workers=workers, check=check, tick=tick)
    return _write(plan, looks, out, name, work, keep_unlabelled=keep_unlabelled, orientation=orientation)


def coco_preparation(
    root: Path,
    out: Path,
    name: str,
    *,
    check: Check,
    keep_unlabelled: bool = True,
    orientation: Orientation = "auto",
    workers: int = 1,
) -> Preparation:
    """What jobs do that make together what `prepare_coco` makes; arguments as there.

    A job paints the masks of its photographs. Where EXIF turns photographs, their sizes tell for all of them which way
    up masks are painted: the last job paints them.

    Raises:
        DataError: what is wrong, where, and how to fix it.
    """
    plan = plan_coco(root, out, keep_unlabelled)
    jobs = plan.flat

    def begin() -> None:
        begin_dataset(out)
        clear_other_masks(out / "masks", {**plan.sha256, "painting": PAINTING})

    def write(looks: Iterator[Look]) -> Prepared:
        work = partial(paint_all, workers=workers, check=check, tick=lambda done, total: None)
        return _write(plan, looks, out, name, work, keep_unlabelled=keep_unlabelled, orientation=orientation)

    look = partial(look_and_paint, colors=plan.colors)
    return Preparation(
        asked=digest_of([str(root.absolute()), name, plan.sha256, PAINTING, keep_unlabelled, orientation]),
        ids=lambda: (job.target.stem for job in jobs),
        begin=begin,
        look=lambda numbers: in_processes(look, Rows(jobs, numbers), workers, check=check),
        read=lambda entry: ((int(entry[0][0]), int(entry[0][1])), int(entry[1]), str(entry[2])),
        write=write,
    )


def plan_coco(root: Path, out: Path, keep_unlabelled: bool) -> Plan:
    """What the JSON files list, once their photographs are there; arguments as of `prepare_coco`.

    Raises:
        DataError: what is wrong, where, and how to fix it.
    """
    parts = {split: read_instances(coco_json(root, split)) for split in SPLITS}
    if parts["train"].categories != parts["val"].categories:
        raise DataError(
            f"the JSON files in {root / 'annotations'} list different categories",
            "unpack annotations_trainval2014.zip anew",
        )
    notes = [*_refuse_empty(parts), *(line for part in parts.values() for line in part.notes)]
    labels = {category: index for index, category in enumerate(parts["train"].categories, 1)}
    if len(labels) > 254:
        raise DataError(f"{parts['train'].path} lists {len(labels)} categories; masks have room for 254")
    jobs: dict[str, list[PaintJob]] = {}
    for split, part in parts.items():
        split_images = [image for image in part.images if (split == "val" and keep_unlabelled) or tagged(image)]
        if not split_images:
            raise DataError(f"no image of {part.path} has an instance that is no crowd region")
        _refuse_missing(split_images, coco_folder(root, split), part.path)
        jobs[split] = [
            _job(image, coco_folder(root, split), part.path, out / "masks", labels) for image in split_images
        ]
    refuse_duplicates(
        (job.target.stem for members in jobs.values() for job in members), "train and val: masks are named after images"
    )
    return Plan(parts, jobs, {part.path.name: sha256_file(part.path) for part in parts.values()}, notes)


def _write(
    plan: Plan,
    looks: Iterable[Look],
    out: Path,
    name: str,
    painted: Callable[[Sequence[PaintJob], Sequence[str], Path, Colors], str],
    *,
    keep_unlabelled: bool,
    orientation: Orientation,
) -> Prepared:
    """Write the data set directory, once all looks at the photographs have come and they fit the lists."""
    images = [(job.image, (job.height, job.width), job.json) for job in plan.flat]
    heights, turned, digests = zip(*looks, strict=True)
    turns = decide_orientation(images, zip(heights, turned, strict=True), orientation)
    each = iter(turns.each)
    jobs = {split: [replace(job, orientation=next(each)) for job in members] for split, members in plan.jobs.items()}
    made_on = {"orientation": turns.made_on} if turns.made_on else {}
    begin_dataset(out)
    clear_other_masks(out / "masks", {**plan.sha256, "painting": PAINTING, **made_on})
    flat = [job for members in jobs.values() for job in members]
    manifest = painted(flat, digests, out / "masks", plan.colors)
    splits = {split: [_sample(job) for job in members] for split, members in jobs.items()}
    notes = _protocol(plan.parts, len(plan.classes) - 1, keep_unlabelled, manifest)
    dataset = write_dataset(
        out,
        name=name,
        classes=plan.classes,
        colors=plan.colors,
        splits=splits,
        source=f"{SOURCE}, masks {manifest[:16]}",
        protocol=[*notes, *([turns.note] if turns.note else [])],
        findings=[],
    )
    summary = summarise((sample for members in splits.values() for sample in members), plan.classes)
    return Prepared(dataset, [], summary, [*plan.notes, *summary_lines(summary)])


def _refuse_empty(parts: dict[str, Instances]) -> list[str]:
    """A line that counts instances without pixels, if any.

    Raises:
        DataError: half of them or more are so.
    """
    empty, count = sum(part.empty for part in parts.values()), sum(part.instances for part in parts.values())
    said = f"{empty:,} of {counted(count, 'instance')} cover no pixel, or a single one in the corner"
    if count and 2 * empty >= count:
        raise DataError(
            f"{parts['train'].path.parent}: {said}",
            SHARES,
        )
    return [said] if empty else []


def tagged(image: Listed) -> bool:
    """Whether the image has an instance that is no crowd region."""
    return any(not span.crowd for span in image.spans)


def _refuse_missing(images: Sequence[Listed], folder: Path, listed_in: Path) -> None:
    there = {path.name for path in folder.iterdir()}
    missing = [image.file_name for image in images if image.file_name not in there]
    if missing:
        raise DataError(
            f"{len(missing):,} of {len(images):,} images listed in {listed_in} are not in {folder}, "
            f"the first: {missing[0]}",
            "file_name is the name within that folder, without folders before it"
            if PurePosixPath(missing[0].replace("\\", "/")).name in there
            else f"unpack {folder.name}.zip anew",
        )


def _job(image: Listed, folder: Path, listed_in: Path, masks: Path, labels: dict[int, int]) -> PaintJob:
    indices = tuple(labels[span.category] for span in image.spans)
    target = masks / f"{Path(image.file_name).stem}.png"
    return PaintJob(folder / image.file_name, target, image.height, image.width, listed_in, image.spans, indices)


def _sample(job: PaintJob) -> Sample:
    tags = {label for span, label in zip(job.spans, job.labels, strict=True) if not span.crowd}
    return Sample(job.target.stem, job.image, job.target, tuple(sorted(tags)), job.upright)


def _protocol(parts: dict[str, Instances], classes: int, keep_unlabelled: bool, manifest: str) -> list[str]:
    listed = {split: len(part.images) for split, part in parts.items()}
    labelled = {split: sum(map(tagged, part.images)) for split, part in parts.items()}
    every_image = f"all {listed['val']:,} images, {labelled['val']:,} with a tag"
    tagged_images = f"the {labelled['val']:,} of {listed['val']:,} images with a tag"
    notes = [
        "tags: categories of the instances that are no crowd regions",
        f"masks: {RULE}; sha256 of their manifest {manifest}",
        f"train: the {labelled['train']:,} of {listed['train']:,} images with a tag; "
        f"val: {every_image if keep_unlabelled else tagged_images}",
    ]
    short = [f"{listed[s]:,} of {OFFICIAL[s]:,} {s} images" for s in SPLITS if listed[s] != OFFICIAL[s]]
    short += [f"{classes} of {CLASSES} classes"] if classes != CLASSES else []
    if short:
        notes.append(f"subset: {', '.join(short)}")
    elif labelled != LABELLED:
        notes.append(f"other annotations: the literature has {LABELLED['train']:,} and {LABELLED['val']:,} with a tag")
    return notes
