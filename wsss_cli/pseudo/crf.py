"""Pseudo masks from CAMs: two thresholds, a label CRF at each, and 255 where the two disagree."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from wsss_cli.cam.store import read_cam, upsample
from wsss_cli.config.base import CrfConfig
from wsss_cli.crf import dense_crf
from wsss_cli.crf.dense import label_unary
from wsss_cli.data.images import read_image
from wsss_cli.data.masks import write_mask
from wsss_cli.errors import DataError
from wsss_cli.files import write_bytes

UNDECIDED = 255


@dataclass(frozen=True)
class Job:
    """One image's way from CAM to pseudo mask; sent to a worker process."""

    id: str
    image: Path
    cam: Path
    mask: Path
    confidence: Path
    fg_threshold: float
    bg_threshold: float
    gt_prob: float
    crf: CrfConfig
    colors: tuple[tuple[int, int, int], ...]


def pseudo_mask(
    image: np.ndarray,
    cam: np.ndarray,
    classes: tuple[int, ...],
    *,
    fg_threshold: float,
    bg_threshold: float,
    gt_prob: float,
    crf: CrfConfig,
) -> tuple[np.ndarray, np.ndarray]:
    """Label map and confidence of one image.

    A pixel gets a class where the run with the high background threshold says that class, background where both runs
    say background, and 255 elsewhere.

    Args:
        image: RGB, uint8 [H, W, 3].
        cam: scores in [0, 1] at image size, float32 [C, H, W].
        classes: class index of each map, 1 .. K-1.
        fg_threshold, bg_threshold: constant background scores of the two runs, fg >= bg.
    Returns:
        (labels, uint8 [H, W], values 0, `classes` and 255; posterior of the label averaged over the two runs,
        float32 [H, W] in [0, 1], 0 where undecided).

    Source: IRN, `step/cam_to_ir_label.py` (thresholds 0.30 and 0.05, label CRF 3/3, 50/5/10, gt_prob 0.7).
    """
    height, width = image.shape[:2]
    if not classes:
        return np.zeros((height, width), np.uint8), np.ones((height, width), np.float32)
    posteriors = []
    for threshold in (fg_threshold, bg_threshold):
        labels = np.argmax(np.concatenate([np.full((1, height, width), threshold, np.float32), cam]), axis=0)
        unary = label_unary(labels, len(classes) + 1, gt_prob)
        posteriors.append(dense_crf(image, unary, **crf.model_dump()))
    high, low = (q.argmax(axis=0) for q in posteriors)
    mean = (posteriors[0] + posteriors[1]) / 2
    confidence = np.take_along_axis(mean, high[None], axis=0)[0]
    values = np.asarray((0, *classes), np.uint8)[high]
    undecided = (high == 0) & (low != 0)
    return np.where(undecided, np.uint8(UNDECIDED), values), np.where(undecided, np.float32(0), confidence)


def make_pseudo_mask(job: Job) -> None:
    """Read, refine and write one image's pseudo mask (palette PNG) and confidence (8-bit grey PNG, 255 = certain).

    Raises:
        DataError: the image or the CAM cannot be read, or they are of different sizes.
    """
    cv2.setNumThreads(1)
    image = read_image(job.image)
    cam, classes, size = read_cam(job.cam)
    if size != image.shape[:2]:
        raise DataError(f"{job.cam} was made for an image of {size[0]}x{size[1]}, {job.image} is another size")
    mask, confidence = pseudo_mask(
        image,
        upsample(cam, size),
        classes,
        fg_threshold=job.fg_threshold,
        bg_threshold=job.bg_threshold,
        gt_prob=job.gt_prob,
        crf=job.crf,
    )
    write_pseudo_mask(job.mask, job.confidence, mask, confidence, job.colors)


def write_pseudo_mask(
    mask_file: Path,
    confidence_file: Path,
    mask: np.ndarray,
    confidence: np.ndarray,
    colors: tuple[tuple[int, int, int], ...],
) -> None:
    """Write a label map (palette PNG) and its confidence in [0, 1] (8-bit grey PNG, 255 = certain)."""
    ok, png = cv2.imencode(".png", np.rint(confidence * 255).astype(np.uint8))
    if not ok:
        raise DataError(f"cannot encode {confidence_file} as PNG")
    write_bytes(confidence_file, png.tobytes())
    write_mask(mask_file, mask, colors)  # last: a mask that is there has its confidence beside it
