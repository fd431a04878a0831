"""How much the first masks that an annotator corrects are worth: the least sure photographs first, against chance.

python benchmarks/correction_curve.py runs/pseudo-voc-1a2b3c4d

The masks of a pseudo run whose photographs have true masks; a corrected photograph has its true mask. Prints, by the
share of the photographs that is corrected, the mIoU of all masks (255 as background) in six orders:

confidence    by the share of pixels expected to be wrong, confidence taken at its word
given         by what these are expected to cost the mean IoU: the order of `wsss export-masks` without true masks
calibrated    as it orders where there are true masks; each half of the photographs calibrated on the other one
chance        the mean of seeds 0, 1 and 2, and the lowest and highest of them
worst         by the share that is wrong in truth, which nobody knows
dearest       by what the truly wrong pixels cost: their share of their class in truth, too many and too few

and how many corrections each needs for what chance reaches. What came of it: docs/benchmarks/supervision.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wsss_cli.data.masks import read_mask
from wsss_cli.labels import IGNORE
from wsss_cli.scoring.calibration import (
    Confidence,
    as_given,
    calibrate,
    confidence_counts,
    expected_losses,
    right_counts,
)
from wsss_cli.stages.export_masks import Source, masks_of_run
from wsss_cli.talk import silent

SHARES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)
SEEDS = (0, 1, 2)


def counted(truth: np.ndarray, mask: np.ndarray, classes: int) -> np.ndarray:
    """Pixels by true class and class of the mask, 255 of the mask as background, int64 [K, K]."""
    told = np.where(mask == IGNORE, 0, mask)[truth != IGNORE].astype(np.int64)
    index = truth[truth != IGNORE] * np.int64(classes) + told
    return np.bincount(index, minlength=classes * classes).reshape(classes, classes)


def miou(counts: np.ndarray) -> float:
    """Per cent, of counts [K, K]; classes that are in neither do not count."""
    hits = np.diag(counts)
    with np.errstate(invalid="ignore"):
        return float(100 * np.nanmean(hits / (counts.sum(0) + counts.sum(1) - hits)))


def curve(counts: np.ndarray, order: Sequence[int], corrected: Sequence[int]) -> list[float]:
    """mIoU after the first photographs of an order are corrected.

    Args:
        counts: int64 [N, K, K] of the N photographs.
        corrected: how many of them, ascending.
    """
    better = np.stack([np.diag(one.sum(1)) for one in counts]) - counts
    steps = np.concatenate([np.zeros_like(better[:1]), better[list(order)].cumsum(0)])
    return [miou(counts.sum(0) + steps[count]) for count in corrected]


def needed(counts: np.ndarray, order: Sequence[int], goal: float) -> int:
    """How many photographs of an order must be corrected for an mIoU."""
    reached = np.asarray(curve(counts, order, range(len(counts) + 1)))
    return int(np.argmax(reached >= goal - 1e-9))


def orders(source: Source, counts: np.ndarray) -> dict[str, list[list[int]]]:
    """Places of the photographs, by name of the order; several for chance."""
    assert source.confidence_of is not None
    files = [(source.mask_of(one), source.confidence_of(one), one.mask) for one in source.score if one.mask]
    sure = [confidence_counts(one[:2]) for one in files]
    right = np.stack([right_counts(one) for one in files])
    other = [np.arange(len(files)) % 2 != half for half in (0, 1)]
    halves = [calibrate(right[kept].sum(0), int(kept.sum())).wrong for kept in other]
    off = counts - np.stack([np.diag(np.diag(one)) for one in counts])
    pixels = counts.sum((0, 2)).clip(min=1)  # of each class, in truth
    by = {
        "confidence": [one.wrong(as_given()).sum() / one.counts.sum() for one in sure],
        "given": _losses(source, sure, [as_given()] * len(sure)),
        "calibrated": _losses(source, sure, [halves[place % 2] for place in range(len(sure))]),
        "worst": list(off.sum((1, 2)) / counts.sum((1, 2)).clip(min=1)),
        "dearest": list(((off.sum(1) + off.sum(2)) / pixels).sum(1)),
    }
    found = {name: [list(np.argsort(-np.asarray(values), kind="stable"))] for name, values in by.items()}
    return found | {"chance": [list(np.random.default_rng(seed).permutation(len(files))) for seed in SEEDS]}


def _losses(source: Source, sure: Sequence[Confidence], shares: Sequence[np.ndarray]) -> list[float]:
    pixels = np.zeros(256, np.int64)
    for one in sure:
        np.add.at(pixels, one.values, one.counts.sum(1))
    wrong = [
        dict(zip(map(int, one.values), one.wrong(share), strict=True)) for one, share in zip(sure, shares, strict=True)
    ]
    tags = [one.labels for one in source.score]
    return expected_losses(wrong, tags, pixels[: source.dataset.num_classes], pixels.sum() / len(sure))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a pseudo run")
    source = masks_of_run(parser.parse_args().run, None, "", silent)
    classes = source.dataset.num_classes
    counts = np.stack(
        [counted(read_mask(one.mask), read_mask(source.mask_of(one)), classes) for one in source.score if one.mask]
    )
    corrected = [round(share * len(counts)) for share in SHARES]
    found = orders(source, counts)
    goals = np.mean([curve(counts, order, corrected) for order in found["chance"]], 0)
    print(f"{len(counts)} photographs, corrected: {', '.join(map(str, corrected))}")
    for name, several in found.items():
        curves = np.asarray([curve(counts, order, corrected) for order in several])
        low, high = (edge(curves, 0).round(2).tolist() for edge in (np.min, np.max))
        print(f"{name}: {curves.mean(0).round(2).tolist()}" + (f" ({low} to {high})" if len(several) > 1 else ""))
        print(f"  needed for what chance reaches: {[needed(counts, several[0], goal) for goal in goals]}")


if __name__ == "__main__":
    main()
