"""Simulated teachers: true masks that are damaged in stated ways by a seed, as label maps for `wsss import-scores`.

python benchmarks/damaged_teachers.py data/voc-aug OUT --split train_aug --seed 0
wsss import-scores data/voc-aug OUT/stray --split train_aug --teacher 'simulated: stray'

A folder OUT/NAME of ID.png for each teacher in TEACHERS. What came of them: docs/benchmarks/supervision.md, by

python benchmarks/damaged_teachers.py data/voc-aug OUT --split train_aug --seed 0 --cams runs/cam-voc-1a2b3c4d

which writes nothing, and prints the mIoU of the masks that `wsss pseudo` makes of them (threshold `complement`, no
other step), 255 as background and left out, as they are and after the step `agree` with these CAMs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from wsss_cli.cam.store import read_cam, upsample
from wsss_cli.config.refine import AgreeStep
from wsss_cli.data.dataset import Dataset, open_dataset
from wsss_cli.data.masks import read_mask, write_mask
from wsss_cli.labels import IGNORE
from wsss_cli.pseudo.agree import agree
from wsss_cli.pseudo.refine import TIE
from wsss_cli.stages.paths import Files, cam_files


@dataclass(frozen=True)
class Damage:
    """What a teacher does wrong; the default does nothing.

    Attributes:
        missing: probability that a class of a photograph is not seen: its pixels are background.
        confused: probability that a class of a photograph is taken for the next class of the list, the last for the
            first.
        grown: by how much shapes are too large, as a share of the square root of the pixels of their class; below 0:
            too small.
        stray: probability that a class of a photograph is seen at another place, too: a disc of 5 to 15 % of the
            photograph, where it is background.
    """

    missing: float = 0.0
    confused: float = 0.0
    grown: float = 0.0
    stray: float = 0.0


TEACHERS = {
    "good": Damage(),
    "missing": Damage(missing=0.3),
    "confused": Damage(confused=0.3),
    "grown": Damage(grown=0.1),
    "shrunk": Damage(grown=-0.1),
    "stray": Damage(stray=0.5),
    "all": Damage(missing=0.15, confused=0.15, grown=0.05, stray=0.3),
}


def damaged(mask: np.ndarray, damage: Damage, count: int, rng: np.random.Generator) -> np.ndarray:
    """A true mask as a teacher would give it; 255 is background to it.

    Args:
        mask: class indices and 255, uint8 [H, W].
        count: of classes, background included.
        rng: the only source of chance; draws of one kind of damage are the same whatever the others are.
    Returns:
        Class indices, uint8 [H, W].
    """
    truth = np.where(mask == IGNORE, 0, mask).astype(np.uint8)
    labels = [int(value) for value in np.unique(truth) if value]
    draws = {label: rng.random(3) for label in labels}
    places = {label: (rng.random(2), rng.uniform(0.05, 0.15)) for label in labels}
    teacher = np.zeros_like(truth)
    for label in sorted(labels, key=lambda label: -int((truth == label).sum())):  # smaller ones in front
        if draws[label][0] >= damage.missing:
            taken_for = label % (count - 1) + 1 if draws[label][1] < damage.confused else label
            teacher[_resized(truth == label, damage.grown)] = taken_for
    for label in labels:
        if draws[label][2] < damage.stray:
            teacher[_disc(mask.shape, *places[label]) & (truth == 0) & (teacher == 0)] = label
    return teacher


def _resized(shape: np.ndarray, share: float) -> np.ndarray:
    """A shape that is larger (or smaller, below 0) by a share of the square root of its pixels on every side."""
    radius = round(abs(share) * float(shape.sum()) ** 0.5)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    change = cv2.dilate if share > 0 else cv2.erode
    resized: np.ndarray = change(shape.astype(np.uint8), kernel) > 0
    return resized


def _disc(size: tuple[int, ...], middle: np.ndarray, share: float) -> np.ndarray:
    rows, columns = np.ogrid[: size[0], : size[1]]
    squared = (rows - middle[0] * size[0]) ** 2 + (columns - middle[1] * size[1]) ** 2
    inside: np.ndarray = squared <= share * size[0] * size[1] / np.pi
    return inside


def mask_of(scores: np.ndarray, classes: Sequence[int]) -> np.ndarray:
    """What `wsss pseudo` makes of stored scores, float32 [C, H, W], with the threshold `complement` and no step."""
    stored = np.rint(scores * 255) / 255
    highest = stored.max(0)
    mask = np.where(highest > 0.5, np.asarray(classes, np.uint8)[stored.argmax(0)], 0).astype(np.uint8)
    mask[np.abs(2 * highest - 1) < TIE] = IGNORE
    return mask


def measure(dataset: Dataset, split: str, cams: Files, seed: int) -> None:
    """Print the mIoU of each teacher's masks, 255 as background and left out, without and with `agree`."""
    step, count = AgreeStep(cams=str(cams.folder)), dataset.num_classes
    confusion = {(name, way): np.zeros((count, count + 1), np.int64) for name in TEACHERS for way in ("plain", "agree")}
    for place, sample in enumerate(dataset.split(split)):
        if sample.mask is None or not sample.labels:
            continue
        truth = read_mask(sample.mask)
        cam, classes, size = read_cam(cams.of(sample.id))
        known = upsample(cam, size)[[classes.index(label) for label in sample.labels]].astype(np.float32)
        for name, damage in TEACHERS.items():
            teacher = damaged(truth, damage, count, np.random.default_rng((seed, place)))
            scores = np.stack([(teacher == label).astype(np.float32) for label in sample.labels])
            judged, _ = agree(scores, known, sample.labels, step)
            for way, planes in (("plain", scores), ("agree", judged)):
                mask = mask_of(planes, sample.labels)
                index = truth.astype(np.int64) * (count + 1) + np.where(mask == IGNORE, count, mask)
                counts = np.bincount(index[truth != IGNORE], minlength=count * (count + 1))
                confusion[name, way] += counts.reshape(count, count + 1)
    for name in TEACHERS:
        cells = [
            f"{miou(confusion[name, way], left_out):.2f}" for way in ("plain", "agree") for left_out in (False, True)
        ]
        print(" | ".join([name, *cells]))


def miou(confusion: np.ndarray, left_out: bool) -> float:
    """Per cent, of counts [K, K + 1], the last column being 255; with `left_out` that does not count."""
    square = confusion[:, :-1].copy()
    if not left_out:
        square[:, 0] += confusion[:, -1]
    hits = np.diag(square)
    with np.errstate(invalid="ignore"):
        return float(100 * np.nanmean(hits / (square.sum(0) + square.sum(1) - hits)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--split", default="train")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cams", type=Path, help="a cam run: measure, in place of writing")
    words = parser.parse_args()
    dataset = open_dataset(words.dataset)
    if words.cams:
        measure(dataset, words.split, cam_files(words.cams), words.seed)
        return
    for place, sample in enumerate(dataset.split(words.split)):
        if sample.mask is None:
            continue
        mask = read_mask(sample.mask)
        for name, damage in TEACHERS.items():
            rng = np.random.default_rng((words.seed, place))
            labels = damaged(mask, damage, dataset.num_classes, rng)
            write_mask(words.out / name / f"{sample.id}.png", labels, dataset.colors)


if __name__ == "__main__":
    main()
