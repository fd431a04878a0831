"""MS COCO 2014 for segmentation: masks of its 80 classes painted from the instance annotations."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from wsss_cli.data.dataset import Sample, begin_dataset, data_places, refuse_duplicates, source_home, write_dataset
from wsss_cli.data.images import turn_upright
from wsss_cli.data.masks import clear_other_masks, read_mask, write_mask
from wsss_cli.data.sources.archives import Archive, Fetched, Tell
from wsss_cli.data.sources.download import fetch_archives
from wsss_cli.data.sources.instances import RULE, Instances, Listed, Span, read_instances, read_span
from wsss_cli.data.sources.orientation import Orientation, decide_orientation
from wsss_cli.data.sources.shapes import paint
from wsss_cli.data.sources.summary import Prepared, summarise, summary_lines
from wsss_cli.errors import DataError
from wsss_cli.files import sha256_file, write_text
from wsss_cli.labels import voc_palette
from wsss_cli.processes import Check, in_processes
from wsss_cli.talk import counted

SOURCE = "MS COCO 2014 instances"
SPLITS = ("train", "val")
OFFICIAL = {"train": 82783, "val": 40504}
LABELLED = {"train": 82081, "val": 40137}
CLASSES = 80
SITE = "http://images.cocodataset.org"
# COCO publishes no checksums; these are those that TensorFlow Datasets recorded (url_checksums/coco2014.txt)
ARCHIVES = (
    Archive(
        f"{SITE}/annotations/annotations_trainval2014.zip",
        size=252_872_794,
        unpacked=500_000_000,
        makes=("annotations/instances_train2014.json", "annotations/instances_val2014.json"),
        sha256="031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009",
    ),
    Archive(
        f"{SITE}/zips/val2014.zip",
        size=6_645_013_297,
        unpacked=6_700_000_000,
        makes=("val2014",),
        sha256="fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0",
    ),
    Archive(
        f"{SITE}/zips/train2014.zip",
        size=13_510_573_713,
        unpacked=13_600_000_000,
        makes=("train2014",),
        sha256="ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775",
    ),
)
PAINTING = 1  # of the rule in `paint`; another rule makes masks anew
LAYOUT = """fetch train2014.zip and val2014.zip from http://images.cocodataset.org/zips/ and unpack them into one folder
with annotations_trainval2014.zip from http://images.cocodataset.org/annotations/ (https://cocodataset.org/#download has
links to all), or let --download do it; an archive from elsewhere (https://web.archive.org) put into that folder
is taken by --download, too. Layout expected:
  coco/annotations/instances_{train,val}2014.json
  coco/train2014/COCO_train2014_*.jpg
  coco/val2014/COCO_val2014_*.jpg
Looked in ./coco, ./data/coco, ./COCO, ./data/COCO and $WSSS_DATA; --root DIR names another place"""

Tick = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class PaintJob:
    """A mask to make: its image, and where the image's annotations are in the JSON, each with its class index.

    Attributes:
        height, width: as listed in the JSON.
        orientation: EXIF orientation by which what is painted comes upright.
    """

    image: Path
    target: Path
    height: int
    width: int
    json: Path
    spans: tuple[Span, ...]
    labels: tuple[int, ...]
    orientation: int = 1

    @property
    def upright(self) -> tuple[int, int]:
        """Height and width as shown."""
        return (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)


def find_coco(root: Path | None) -> Path:
    """The folder with annotations/: the one given, else the first default place that has it.

    Raises:
        DataError: there is none, or a part of it is missing; the hint says what to fetch and the layout expected.
    """
    for place in data_places(root, "coco", "COCO"):
        if (place / "annotations").is_dir():
            missing = [part for split in SPLITS for part in (_json(place, split), _folder(place, split))]
            missing = [part for part in missing if not part.exists()]
            if missing:
                raise DataError(f"COCO in {place} has no {missing[0].relative_to(place)}", LAYOUT)
            return place
    raise DataError(f"no COCO in {root}" if root else "no COCO found", LAYOUT)


def download_coco(
    root: Path | None, tell: Tell = lambda title, done, total: None, archives: Sequence[Archive] = ARCHIVES
) -> list[Fetched]:
    """Fetch what is missing: into the folder given, else into the COCO that is there, $WSSS_DATA/coco or data/coco.

    Raises:
        DataError: as `fetch_archives`.
    """
    there = [place for place in data_places(root, "coco", "COCO") if (place / "annotations").is_dir()]
    home = root or (there[0] if there else source_home() / "coco")
    if (home / "images" / "train2014").is_dir() and (home / "images" / "val2014").is_dir():
        archives = [archive for archive in archives if archive.makes[0].startswith("annotations/")]
    return fetch_archives(archives, home, layout=LAYOUT, tell=tell)


def _json(root: Path, split: str) -> Path:
    return root / "annotations" / f"instances_{split}2014.json"


def _folder(root: Path, split: str) -> Path:
    nested = root / "images" / f"{split}2014"
    return nested if nested.is_dir() else root / f"{split}2014"


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
    parts = {split: read_instances(_json(root, split)) for split in SPLITS}
    if parts["train"].categories != parts["val"].categories:
        raise DataError(
            f"the JSON files in {root / 'annotations'} list different categories",
            "unpack annotations_trainval2014.zip anew",
        )
    empty = _refuse_empty(parts)
    labels = {category: index for index, category in enumerate(parts["train"].categories, 1)}
    if len(labels) > 254:
        raise DataError(f"{parts['train'].path} lists {len(labels)} categories; masks have room for 254")
    colors = voc_palette(len(labels) + 1)
    jobs: dict[str, list[PaintJob]] = {}
    for split, part in parts.items():
        split_images = [image for image in part.images if (split == "val" and keep_unlabelled) or tagged(image)]
        if not split_images:
            raise DataError(f"no image of {part.path} has an instance that is no crowd region")
        _refuse_missing(split_images, _folder(root, split), part.path)
        jobs[split] = [_job(image, _folder(root, split), part.path, out / "masks", labels) for image in split_images]
    refuse_duplicates(
        (job.target.stem for members in jobs.values() for job in members), "train and val: masks are named after images"
    )
    images = [(job.image, (job.height, job.width), job.json) for members in jobs.values() for job in members]
    turns = decide_orientation(images, orientation, workers, check, tick_sizes)
    each = iter(turns.each)
    jobs = {split: [replace(job, orientation=next(each)) for job in members] for split, members in jobs.items()}
    made_from = {part.path.name: sha256_file(part.path) for part in parts.values()}
    made_on = {"orientation": turns.made_on} if turns.made_on else {}
    begin_dataset(out)
    clear_other_masks(out / "masks", {**made_from, "painting": PAINTING, **made_on})
    flat = [job for members in jobs.values() for job in members]
    manifest = _painted(flat, out / "masks", colors, workers, check, tick)
    classes = ("background", *parts["train"].categories.values())
    splits = {split: [_sample(job) for job in members] for split, members in jobs.items()}
    dataset = write_dataset(
        out,
        name=name,
        classes=classes,
        colors=colors,
        splits=splits,
        source=f"{SOURCE}, masks {manifest[:16]}",
        protocol=[*_protocol(parts, len(labels), keep_unlabelled, manifest), *([turns.note] if turns.note else [])],
        findings=[],
    )
    summary = summarise((sample for members in splits.values() for sample in members), classes)
    return Prepared(dataset, [], summary, [*empty, *summary_lines(summary)])


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
            "coordinates are pixels in COCO; of those from 0 to 1, multiply x by width and y by height",
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


def _painted(
    jobs: Sequence[PaintJob],
    folder: Path,
    colors: tuple[tuple[int, int, int], ...],
    workers: int,
    check: Check,
    tick: Tick,
) -> str:
    """Make the masks that are not there, list all in manifest.txt, and return the SHA-256 of that list."""
    lines = []
    results = in_processes(partial(_make, colors=colors), jobs, workers, check=check)
    for done, (job, digest) in enumerate(zip(jobs, results, strict=True), 1):
        lines.append(f"{job.target.stem} {digest}\n")
        tick(done, len(jobs))
    text = "".join(sorted(lines))
    write_text(folder / "manifest.txt", text)
    return hashlib.sha256(text.encode()).hexdigest()


def _make(job: PaintJob, colors: tuple[tuple[int, int, int], ...]) -> str:
    """The hash of a job's mask, which is painted first unless a whole one is there."""
    there = _read_made(job)
    if there is not None:
        return mask_sha256(there)
    annotations = zip(read_span(job.json, job.spans), job.labels, strict=True)
    try:
        mask = paint(list(annotations), job.height, job.width)
    except DataError as error:
        raise DataError(f"{job.json}: {error.message}", error.hint) from error
    mask = turn_upright(mask, job.orientation)
    write_mask(job.target, mask, colors)
    return mask_sha256(mask)


def _read_made(job: PaintJob) -> np.ndarray | None:
    if not job.target.is_file():
        return None
    try:
        mask = read_mask(job.target)
    except DataError:
        return None  # damaged: it is made again
    return mask if mask.shape == job.upright else None


def mask_sha256(mask: np.ndarray) -> str:
    """SHA-256 of a mask's size and class indices: the same for every PNG encoder.

    What is hashed: height, 'x', width, a line feed in ASCII, then the pixels row by row, a byte each.
    """
    return hashlib.sha256(f"{mask.shape[0]}x{mask.shape[1]}\n".encode() + mask.tobytes()).hexdigest()


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
