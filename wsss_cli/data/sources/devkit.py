"""VOC 2012 and SBD as they are distributed: where they lie, what they list, and fetching them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from wsss_cli.data.dataset import data_places, source_home
from wsss_cli.data.sources.archives import Archive, Fetched, Tell
from wsss_cli.data.sources.download import fetch_archives
from wsss_cli.data.sources.sbd import sbd_root
from wsss_cli.data.sources.tags import read_ids
from wsss_cli.errors import DataError
from wsss_cli.processes import check_stop

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
LAYOUT = """fetch VOCtrainval_11-May-2012.tar from http://host.robots.ox.ac.uk/pascal/VOC/voc2012/ and unpack it here;
for train_aug also SBD, benchmark.tgz from
https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/
(give the unpacked benchmark_RELEASE with --sbd), or a ready SegmentationClassAug folder. Layout expected:
  VOCdevkit/VOC2012/JPEGImages/*.jpg
  VOCdevkit/VOC2012/Annotations/*.xml                 (image tags)
  VOCdevkit/VOC2012/ImageSets/Segmentation/{train,val}.txt
  VOCdevkit/VOC2012/SegmentationClass/*.png
  VOCdevkit/VOC2012/SegmentationClassAug/*.png        (or --sbd benchmark_RELEASE)
--download fetches both. Where a link is dead, look for the archive at https://web.archive.org, or for that of VOC at
http://d2l-data.s3-accelerate.amazonaws.com/VOCtrainval_11-May-2012.tar; --download unpacks what lies here."""
LOOKED = "Looked in ./VOCdevkit, ./data/VOCdevkit and $WSSS_DATA; --devkit DIR names another place"

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


@dataclass(frozen=True)
class VocSource:
    """Where the parts of a devkit are and what to make of them."""

    root: Path
    sbd: Path | None = None
    aug_masks: Path | None = None
    tags: Path | None = None
    tags_from_masks: bool = False
    classes: tuple[str, ...] = ()


def find_devkit(folder: Path | None) -> Path:
    """The VOC2012 folder: of the devkit given, else of the first default place that has one.

    Raises:
        DataError: there is none; the hint says what to fetch and the layout expected.
    """
    root = _devkit(folder)
    if root is not None:
        return root
    if folder:
        raise DataError(f"no VOC devkit in {folder}", LAYOUT)
    raise DataError("no VOC devkit found", f"{LAYOUT}\n{LOOKED}")


def _devkit(folder: Path | None) -> Path | None:
    for place in data_places(folder, "VOCdevkit"):
        for root in (place, place / "VOC2012", place / "VOCdevkit" / "VOC2012"):
            if (root / "JPEGImages").is_dir() and (root / "ImageSets").is_dir():
                return root
    return None


def download_voc(
    folder: Path | None,
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
    root = _devkit(folder)
    if root is not None:
        home = beside_devkit(root)
    elif folder is not None:
        home = folder.parent if folder.name == "VOCdevkit" else folder
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
        if not any(source.aug_masks.glob("*.png")):
            raise DataError(
                f"--aug-masks {source.aug_masks} holds no PNG", "give the folder in which the masks themselves lie"
            )
        return source.aug_masks
    default = source.root / "SegmentationClassAug"
    return default if default.is_dir() else None


def find_mask(source: VocSource, name: str) -> Path | None:
    """The mask of an image: VOC's own (with void borders) before the ready augmented one before SBD's .mat."""
    check_stop()  # a network disk may answer slowly, and there are thousands of images
    aug = _aug_folder(source)
    candidates = [source.root / "SegmentationClass" / f"{name}.png"]
    candidates += [aug / f"{name}.png"] if aug else []
    candidates += [sbd_root(source.sbd) / "cls" / f"{name}.mat"] if source.sbd else []
    return next((path for path in candidates if path.is_file()), None)
