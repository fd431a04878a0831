"""A teacher's scores, held against CAMs of the user's own tags: what these do not support is doubted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from wsss_cli.config.refine import AgreeStep

PRESENT = 0.5  # of a teacher's score, above which a pixel is of a region
HIGH = 0.95  # quantile of a CAM that its means are divided by


@dataclass(frozen=True)
class Agreement:
    """What came of the classes of an image: those with a region, how many regions there are and how many are doubted,
    and those whose CAM stands in for them."""

    classes: tuple[int, ...] = ()
    regions: int = 0
    doubted: int = 0
    cams: tuple[int, ...] = ()


def agree(scores: np.ndarray, cam: np.ndarray, classes: Sequence[int], step: AgreeStep) -> tuple[np.ndarray, Agreement]:
    """Scores of a teacher after they were compared with CAMs.

    A region is where a class's score is above 0.5, connected by sides. Its support is the mean of the CAM of its class
    over it, divided by the CAM's 0.95 quantile. Where that is less than `step.support` of the best-supported region of
    the class in the image, the region's scores are multiplied by `step.doubt`. A class without any region gets its CAM,
    times `step.fallback`.

    Args:
        scores: of the teacher, in [0, 1], float32 [C, H, W].
        cam: in [0, 1], float32 [C, H, W].
        classes: class index of each.
    Returns:
        (scores, float32 [C, H, W]; what came of it).
    """
    judged, present, replaced = scores.copy(), [], []
    regions = doubted = 0
    for plane, support, label in zip(judged, cam, classes, strict=True):
        parts, count = ndimage.label(plane > PRESENT)
        if not count:
            plane[:] = step.fallback * support
            replaced.append(label)
            continue
        present.append(label)
        regions += count
        numbers = np.arange(1, count + 1)
        means = np.asarray(ndimage.mean(support, parts, numbers)) / max(float(np.quantile(support, HIGH)), 1e-6)
        weak = numbers[means < step.support * means.max()]
        doubted += len(weak)
        plane[np.isin(parts, weak)] *= np.float32(step.doubt)
    return judged, Agreement(tuple(present), regions, doubted, tuple(replaced))
