"""Pascal VOC 2012 with the SBD masks (train_aug), or a part of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from wsss_cli.data.dataset import Dataset, Sample, data_places, nearest, source_home, write_dataset
from wsss_cli.data.masks import clear_other_masks, voc_palette, write_mask
from wsss_cli.data.sources.download import Archive, Fetched, Tell, fetch_archives
from wsss_cli.data.sources.sbd import read_labels, sbd_root
from wsss_cli.data.sources.tags import Tags, annotation_tags, mask_tags, read_ids, read_tags
from wsss_cli.errors import DataError, UsageError
from wsss_cli.processes import in_processes

CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
OFFICIAL = {"train_aug": 10582, "train": 1464, "val": 1449}
LAYOUT = """fetch VOCtrainval_11-May-2012.tar from http://host.robots.ox.ac.uk/pascal/VOC/voc2012/ and unpack it here;
for train_aug also SBD, benchmark.tgz from
https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/
(give the unpacked benchmark_RELEASE with --sbd), or a ready SegmentationClassAug folder. Layout expected:
  VOCdevkit/VOC2012/JPEGImages/*.jpg
  VOCdevkit/VOC2012/Annotations/*.xml                 (image tags)
  VOCdevkit/VOC2012/ImageSets/Segmentation/{train,val}.txt
  VOCdevkit/VOC2012/SegmentationClass/*.png
  VOCdevkit/VOC2012/SegmentationClassAug/*.png        (or --sbd benchmark_RELEASE)
--download fetches both; where a link is dead, look for the archive at https://web.archive.org, and for the VOC one at
http://d2l-data.s3-accelerate.amazonaws.com/VOCtrainval_11-May-2012.tar; put beside VOCdevkit, --download unpacks it.
Looked in ./VOCdevkit, ./data/VOCdevkit and $WSSS_DATA; --devkit DIR names another place"""

VOC2012 = Archive(
    "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
    size=1_999_639_040,
    unpacked=2_100_000_000,
    makes=("VOCdevkit/VOC2012",),
    md5="6cd6e144f989b92b3379bac3b3de84fd",  # as torchvision has it
)
SBD = Archive(
    "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
    size=1_419_539_633,
    unpacked=500_000_000,
    makes=tuple(f"benchmark_RELEASE/dataset/{part}" for part in ("cls", "train.txt", "val.txt")),
    md5="82b4d87ceb2ed10f6038a1cba92111cb",  # as torchvision has it
)

Tick = Callable[[int, int], None]


@dataclass(frozen=True)
class VocSource:
    """Where the parts of a devkit are and what to make of them."""

    root: Path
    sbd: Path | None = None
    aug_masks: Path | None = None
    tags: Path | None = None
    tags_from_masks: bool = False
    classes: tuple[str, ...] = ()


def find_devkit(given: Path | None) -> Path:
    """The VOC2012 folder: of the devkit given, else of the first default place that has one.

    Raises:
        DataError: there is none; the hint says what to fetch and the layout expected.
    """
    root = _devkit(given)
    if root is not None:
        return root
    raise DataError(f"no VOC devkit in {given}" if given else "no VOC devkit found", LAYOUT)


def _devkit(given: Path | None) -> Path | None:
    for place in data_places(given, "VOCdevkit"):
        for root in (place, place / "VOC2012", place / "VOCdevkit" / "VOC2012"):
            if (root / "JPEGImages").is_dir() and (root / "ImageSets").is_dir():
                return root
    return None


def download_voc(
    given: Path | None,
    *,
    sbd: bool,
    tell: Tell = lambda title, done, total: None,
    archives: tuple[Archive, Archive] = (VOC2012, SBD),
) -> list[Fetched]:
    """Fetch the devkit unless there is one, and SBD's masks beside it where it lacks a list of train_aug.

    The devkit given is where it goes to; without one, $WSSS_DATA or data.

    Args:
        sbd: whether SBD may be fetched; not where the user brings the augmented masks.
    Raises:
        DataError: as `fetch_archives`.
    """
    root = _devkit(given)
    if root is not None:
        home = beside_devkit(root)
    elif given is not None:
        home = given.parent if given.name == "VOCdevkit" else given
    else:
        home = source_home()
    wanted = [] if root is not None else [archives[0]]
    if sbd and (root is None or not _lists_augmented(VocSource(root))):
        wanted.append(archives[1])
    return fetch_archives(wanted, home, layout=LAYOUT, tell=tell)


def beside_devkit(root: Path) -> Path:
    """The folder that holds VOCdevkit, or the VOC2012 folder `root` where that is not in one."""
    root = root.absolute()
    return root.parent.parent if root.parent.name == "VOCdevkit" else root.parent


def with_sbd_beside(source: VocSource) -> VocSource:
    """The source with the SBD release beside its devkit, if it names no augmented masks and the devkit lists none."""
    there = beside_devkit(source.root) / "benchmark_RELEASE"
    if source.sbd or _lists_augmented(source) or not (there / "dataset" / "cls").is_dir():
        return source
    return replace(source, sbd=there)


def _lists_augmented(source: VocSource) -> bool:
    lists = [source.root / "ImageSets" / "Segmentation" / f"{name}.txt" for name in ("train_aug", "trainaug")]
    return _aug_folder(source) is not None or any(path.is_file() for path in lists)


def prepare_voc(
    source: VocSource, out: Path, name: str, workers: int = 1, tick: Tick = lambda done, total: None
) -> Dataset:
    """Write a data set directory with the splits train_aug, train and val, as far as the devkit has them.

    train_aug = (VOC train + SBD train + SBD val) - VOC val, sorted. With `source.classes` those classes are numbered
    1, 2, ... in the order given, every other class becomes 255 in the masks and is dropped from the tags, and images
    without a kept class leave the training splits. Converted masks that are there already are kept.

    Args:
        tick: called with (done, total) after each mask that is converted.
    Raises:
        DataError, UsageError: what is wrong, where, and how to fix it.
    """
    kept = source.classes or CLASSES
    for label in kept:
        if label not in CLASSES:
            raise UsageError(
                f"--classes: unknown class {label!r}", f"{nearest(label, CLASSES)}VOC has {', '.join(CLASSES)}"
            )
    if len(set(kept)) < len(kept):
        raise UsageError("--classes names a class twice")
    lists = read_lists(source)
    ids = sorted({name for members in lists.values() for name in members})
    _refuse_missing_images(ids, source.root / "JPEGImages")
    masks = {name: find_mask(source, name) for name in ids}
    _refuse_bare(lists["val"], masks)
    tags, origin = _tags(source, lists, masks)
    masks = _converted(masks, source, out / "masks", workers, tick)
    colors = _colors(kept)
    splits = {split: _samples(members, split, source.root, masks, tags, kept) for split, members in lists.items()}
    notes = _protocol(lists, splits, source.classes, origin)
    return write_dataset(
        out,
        name=name,
        classes=("background", *kept),
        colors=colors,
        splits=splits,
        source=SOURCE,
        protocol=notes,
        findings=[],
    )


SOURCE = "PASCAL VOC 2012 + SBD"


def read_lists(source: VocSource) -> dict[str, list[str]]:
    """Ids of each split, sorted.

    Raises:
        DataError: there is no list of validation or of training images, or a list is empty or has duplicates.
    """
    folder = source.root / "ImageSets" / "Segmentation"
    val = set(read_ids(folder / "val.txt"))
    lists: dict[str, list[str]] = {}
    train = read_ids(folder / "train.txt") if (folder / "train.txt").is_file() else []
    ready = [folder / f"{name}.txt" for name in ("train_aug", "trainaug") if (folder / f"{name}.txt").is_file()]
    if source.sbd is not None:
        root = sbd_root(source.sbd)
        merged = set(train) | set(read_ids(root / "train.txt")) | set(read_ids(root / "val.txt"))
        lists["train_aug"] = sorted(merged - val)
    elif ready:
        lists["train_aug"] = sorted(set(read_ids(ready[0])) - val)
    elif aug := _aug_folder(source):
        lists["train_aug"] = sorted(({path.stem for path in aug.glob("*.png")} | set(train)) - val)
    else:
        raise DataError(f"no list of train_aug: no SBD, no {folder}/train_aug.txt, no SegmentationClassAug", LAYOUT)
    if train:
        lists["train"] = sorted(train)
    lists["val"] = sorted(val)
    for split, members in lists.items():
        if not members:
            raise DataError(f"split {split} of {source.root} is empty")
    return lists


def _aug_folder(source: VocSource) -> Path | None:
    if source.aug_masks is not None:
        if not source.aug_masks.is_dir():
            raise DataError(f"--aug-masks {source.aug_masks} is no folder")
        return source.aug_masks
    default = source.root / "SegmentationClassAug"
    return default if default.is_dir() else None


def find_mask(source: VocSource, name: str) -> Path | None:
    """The mask of an image: VOC's own (with void borders) before the ready augmented one before SBD's .mat."""
    aug = _aug_folder(source)
    candidates = [source.root / "SegmentationClass" / f"{name}.png"]
    candidates += [aug / f"{name}.png"] if aug else []
    candidates += [sbd_root(source.sbd) / "cls" / f"{name}.mat"] if source.sbd else []
    return next((path for path in candidates if path.is_file()), None)


def _refuse_missing_images(ids: Sequence[str], folder: Path) -> None:
    missing = [name for name in ids if not (folder / f"{name}.jpg").is_file()]
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
            f"{path} tags {len(stray)} images that are not there, the first: {stray[0]}",
            "correct the file or add the images",
        )
    untagged = [name for name in ids if name not in tags]
    if untagged:
        raise DataError(
            f"{len(untagged)} listed images have no tags in {path}, the first: {untagged[0]}", "add a line for each"
        )
    return tags, f"tags from {path.name}"


def _converted(
    masks: dict[str, Path | None], source: VocSource, folder: Path, workers: int, tick: Tick
) -> dict[str, Path | None]:
    """Masks as stages read them: those that need no change in place, the others written into `folder`."""
    lut = np.arange(256, dtype=np.uint8)
    lut[len(CLASSES) + 1 : 255] = 254  # a value that means nothing; `_convert` names its file
    if source.classes:
        lut[1 : len(CLASSES) + 1] = 255
        for index, label in enumerate(source.classes, 1):
            lut[CLASSES.index(label) + 1] = index
    clear_other_masks(folder, {"classes": list(source.classes or CLASSES)})
    jobs = []
    placed: dict[str, Path | None] = {}
    for name, path in masks.items():
        if path is None or (path.suffix == ".png" and not source.classes):
            placed[name] = path
            continue
        placed[name] = folder / f"{name}.png"
        if not (folder / f"{name}.png").is_file():
            jobs.append((path, folder / f"{name}.png"))
    work = partial(_convert, lut=lut, colors=_colors(source.classes or CLASSES))
    for done, _ in enumerate(in_processes(work, jobs, workers), 1):
        tick(done, len(jobs))
    return placed


def _colors(classes: Sequence[str]) -> tuple[tuple[int, int, int], ...]:
    """VOC's own colours, so that a subset's masks look like VOC's."""
    palette = voc_palette(len(CLASSES) + 1)
    return (palette[0], *(palette[CLASSES.index(label) + 1] for label in classes))


def _convert(job: tuple[Path, Path], lut: np.ndarray, colors: tuple[tuple[int, int, int], ...]) -> None:
    path, target = job
    mask = read_labels(path)
    mapped = lut[mask]
    if (mapped == 254).any():
        value = int(mask[mapped == 254][0])
        raise DataError(f"{path} holds the value {value}; VOC masks hold 0..{len(CLASSES)} and 255")
    write_mask(target, mapped, colors)


def _samples(
    members: Sequence[str], split: str, root: Path, masks: dict[str, Path | None], tags: Tags, kept: Sequence[str]
) -> list[Sample]:
    samples = []
    for name in members:
        labels = tuple(sorted(kept.index(label) + 1 for label in tags.get(name, ()) if label in kept))
        if labels or split == "val" or len(kept) == len(CLASSES):
            samples.append(Sample(name, root / "JPEGImages" / f"{name}.jpg", masks[name], labels))
    if not samples:
        raise DataError(f"no image of split {split} has any of the classes {', '.join(kept)}")
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
