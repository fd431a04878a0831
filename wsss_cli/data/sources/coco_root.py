"""The folder of MS COCO 2014: where it lies, and how it is fetched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wsss_cli.data.dataset import data_places, source_home
from wsss_cli.data.sources.archives import Archive, Fetched, Tell
from wsss_cli.data.sources.download import fetch_archives
from wsss_cli.errors import DataError

SPLITS = ("train", "val")
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
LAYOUT = """fetch train2014.zip and val2014.zip from http://images.cocodataset.org/zips/ and unpack them into one folder
with annotations_trainval2014.zip from http://images.cocodataset.org/annotations/ (https://cocodataset.org/#download has
links to all), or let --download do it; an archive from elsewhere (https://web.archive.org) put into that folder
is taken by --download, too. Layout expected:
  coco/annotations/instances_{train,val}2014.json
  coco/train2014/COCO_train2014_*.jpg
  coco/val2014/COCO_val2014_*.jpg"""
LOOKED = "Looked in ./coco, ./data/coco, ./COCO, ./data/COCO and $WSSS_DATA; --root DIR names another place"


def find_coco(root: Path | None) -> Path:
    """The folder with annotations/: the one given, else the first default place that has it.

    Raises:
        DataError: there is none, or a part of it is missing; the hint says what to fetch and the layout expected.
    """
    for place in data_places(root, "coco", "COCO"):
        if (place / "annotations").is_dir():
            missing = [part for split in SPLITS for part in (coco_json(place, split), coco_folder(place, split))]
            missing = [part for part in missing if not part.exists()]
            if missing:
                raise DataError(f"COCO in {place} has no {missing[0].relative_to(place)}", LAYOUT)
            return place
    raise DataError(f"no COCO in {root}", LAYOUT) if root else DataError("no COCO found", f"{LAYOUT}\n{LOOKED}")


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


def coco_json(root: Path, split: str) -> Path:
    """The list of a split."""
    return root / "annotations" / f"instances_{split}2014.json"


def coco_folder(root: Path, split: str) -> Path:
    """The photographs of a split."""
    nested = root / "images" / f"{split}2014"
    return nested if nested.is_dir() else root / f"{split}2014"
