"""What runs have made of each image, decoded and compared with the photograph and its tags."""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wsss_cli.cam.store import read_cam
from wsss_cli.config.schema import Preset
from wsss_cli.data.dataset import Dataset
from wsss_cli.data.findings import Finding
from wsss_cli.data.images import image_size, read_image
from wsss_cli.data.masks import read_mask
from wsss_cli.data.videos import is_video
from wsss_cli.engine.records import RunRecord
from wsss_cli.errors import DataError
from wsss_cli.labels import IGNORE
from wsss_cli.rows import Rows
from wsss_cli.stages.paths import confidence_files, last_files, walk_files
from wsss_cli.talk import sides

AGAIN = "run the command that made it again: what is sound is kept"
Problem = tuple[str, str] | None


class Product(NamedTuple):
    """What a run has made of an image; without the image's own data where the data set cannot be read."""

    id: str
    image: Path | None
    labels: tuple[int, ...] | None
    cams: tuple[Path, ...] = ()
    masks: tuple[Path, ...] = ()
    confidence: Path | None = None
    pictures: tuple[Path, ...] = ()  # in colours


def run_products(
    run: Path, record: RunRecord, preset: Preset | None, dataset: Dataset | None
) -> tuple[int, Iterator[Product]]:
    """How many images a run has made something of, and what: of its list; without one, what lies in its folders."""
    stage, lost = record.stage, {entry["id"] for entry in record.lost}
    if stage not in ("cam", "pseudo", "irn", "psa"):
        return 0, iter(())
    product = _products(run, stage)
    if dataset is not None and preset is not None and preset.dataset.train in dataset.split_sha256:
        samples = dataset.split(preset.dataset.train)
        numbers = array("Q", (number for number, name in enumerate(samples.names()) if name not in lost))
        return len(numbers), (product(s.id, s.image, s.labels) for s in Rows(samples, numbers))
    names = sorted(last_files(run, stage).names())
    return len(names), (product(name, None, None) for name in names)


def _products(run: Path, stage: str) -> Callable[[str, Path | None, tuple[int, ...] | None], Product]:
    """From an image to what a run of a stage has made of it."""
    last, confidence = last_files(run, stage), confidence_files(run)
    walks = [walk_files(run, folder.name) for folder in sorted((run / "scores").glob("*-*"))]

    def product(name: str, image: Path | None, labels: tuple[int, ...] | None) -> Product:
        if stage == "cam":
            return Product(name, image, labels, cams=(last.of(name),))
        if stage == "pseudo":
            walked = tuple(walk.of(name) for walk in walks)
            return Product(name, image, labels, walked, (last.of(name),), confidence.of(name))
        return Product(name, image, labels, masks=(last.of(name),))

    return product


def predicted_products(folder: Path) -> tuple[list[Product], int]:
    """What a folder of predictions says it has made, and of how many the photograph is gone.

    Args:
        folder: what `wsss infer --out` wrote.
    """
    from wsss_cli.inference.journal import noted_items  # torch, which worker processes do without

    products, gone = [], 0
    for item, row in noted_items(folder).items():
        if not row.get("key"):
            continue  # it was about to be made anew
        photograph: Path | None = Path(str(row.get("source")))
        if is_video(str(row.get("source"))):  # frames have no size of their own on disk
            photograph = None
        elif photograph is not None and not photograph.is_file():
            photograph, gone = None, gone + 1
        pictures = (folder / "overlays" / f"{item}.png",) if row.get("overlay") else ()
        products.append(Product(item, photograph, None, masks=(folder / "masks" / f"{item}.png",), pictures=pictures))
    return products, gone


def look_at_product(product: Product, num_classes: int, done: bool) -> list[Finding]:
    """Decode what was made of an image and compare it with the photograph's size and tags; in a worker process.

    Args:
        done: what is not there is gone; else it is not made yet.
    """
    findings: list[Finding] = []
    size = None
    if product.image is not None:
        try:
            size = image_size(product.image)
        except DataError as error:
            findings.append(Finding("data", str(product.image), error.message, error.hint))
    confidence = (product.confidence,) if product.confidence else ()
    for file in (*product.cams, *product.masks, *confidence, *product.pictures):
        if not file.is_file():
            if done:
                findings.append(Finding("gone", str(file), f"{file} is gone", AGAIN))
            continue
        try:
            problem = _problem(file, size, product, num_classes)
        except DataError as error:
            problem = ("unreadable", error.message)
        if problem:
            findings.append(Finding(problem[0], str(file), problem[1], f"remove it, and {AGAIN}"))
    return findings


def _problem(file: Path, size: tuple[int, int] | None, product: Product, num_classes: int) -> Problem:
    if file in product.cams:
        return _cam(file, size, product.labels)
    if file in product.pictures:
        height, width = read_image(file).shape[:2]
        if size is not None and size != (height, width):
            return "wrong-size", f"{file} is {sides((height, width))}, its photograph {sides(size)}"
        return None
    return _mask(file, size, product, num_classes)


def _cam(file: Path, size: tuple[int, int] | None, labels: tuple[int, ...] | None) -> Problem:
    _, classes, of_size = read_cam(file)
    if size is not None and of_size != size:
        return "wrong-size", f"{file} is of a photograph of {sides(of_size)}, which is {sides(size)}"
    if labels is not None and classes != labels:
        return "wrong-value", f"{file} has maps of the classes {_listed(classes)}; the tags are {_listed(labels)}"
    return None


def _mask(file: Path, size: tuple[int, int] | None, product: Product, num_classes: int) -> Problem:
    mask = read_mask(file)
    if size is not None and mask.shape != size:
        return "wrong-size", f"{file} is {sides(mask.shape)}, its photograph {sides(size)}"
    if file != product.confidence:
        allowed = (*range(num_classes), IGNORE) if product.labels is None else (0, *product.labels, IGNORE)
        wrong = sorted(set(np.flatnonzero(np.bincount(mask.ravel(), minlength=256)).tolist()) - set(allowed))
        said = "which is no class" if wrong and wrong[0] >= num_classes else "a class that is no tag"
        return ("wrong-value", f"{file} holds {wrong[0]}, {said}") if wrong else None
    labels = product.masks[0]
    if labels.is_file():
        with contextlib.suppress(DataError):  # the mask's own finding
            decided = read_mask(labels)
            if decided.shape == mask.shape and mask[decided == IGNORE].any():
                return "wrong-value", f"{file} is not 0 where {labels} is undecided (255)"
    return None


def _listed(values: tuple[int, ...]) -> str:
    return ", ".join(map(str, values)) or "none"
