"""Labels that affinity networks learn from: where CAMs are sure of a class or of the background, else 255."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from wsss_cli.cam.store import read_cam, upsample
from wsss_cli.config.affinity import IrnConfig, PsaConfig
from wsss_cli.config.refine import CrfStep
from wsss_cli.crf import dense_crf
from wsss_cli.crf.dense import Backend
from wsss_cli.data.images import read_image
from wsss_cli.data.masks import write_mask
from wsss_cli.errors import DataError
from wsss_cli.labels import IGNORE
from wsss_cli.pseudo.refine import RefineSettings, pseudo_mask
from wsss_cli.talk import sides


@dataclass(frozen=True)
class LabelJob:
    """One image's way from CAM to affinity label; sent to a worker process.

    Attributes:
        config: of the network that learns from it.
        fg_threshold, bg_threshold: background scores of IRN's two runs; PSA does not use them.
        crf: what computes the dense CRF.
    """

    id: str
    image: Path
    cam: Path
    label: Path
    config: IrnConfig | PsaConfig
    fg_threshold: float
    bg_threshold: float
    colors: tuple[tuple[int, int, int], ...]
    crf: Backend = "lattice"


def psa_label(
    image: np.ndarray, cam: np.ndarray, classes: tuple[int, ...], config: PsaConfig, crf: Backend = "lattice"
) -> np.ndarray:
    """PSA's confident label map of one image.

    Background scores (1 - max CAM)^alpha are set before the CAMs, for a low and a high alpha; a dense CRF takes both as
    if they were probabilities. A pixel gets a class where the run with the low alpha, which has much background, says
    that class, background where the run with the high alpha says background, and 255 elsewhere.

    Args:
        image: RGB, uint8 [H, W, 3].
        cam: scores in [0, 1] at image size, float32 [C, H, W].
        classes: class index of each map, 1 .. K-1.
        crf: what computes the dense CRF.
    Returns:
        uint8 [H, W]; values 0, `classes` and 255.
    Source: Ahn and Kwak (PSA), CVPR 2018, and the released code (`infer_cls.py`).
    """
    if not classes:
        return np.zeros(image.shape[:2], np.uint8)
    unaries = np.stack([_unary(cam, alpha) for alpha in (config.alpha_low, config.alpha_high)])
    low, high = dense_crf(image, unaries, **config.crf.model_dump(), backend=crf).argmax(axis=1)
    values = np.asarray((0, *classes), np.uint8)[low]
    return np.where((low == 0) & (high != 0), np.uint8(IGNORE), values)


def _unary(cam: np.ndarray, alpha: float) -> np.ndarray:
    background = (1.0 - cam.max(axis=0, keepdims=True)).clip(0.0, 1.0) ** alpha
    unary: np.ndarray = -np.log(np.concatenate([background, cam]).clip(1e-5, 1.0)).astype(np.float32)
    return unary


def make_label(job: LabelJob) -> None:
    """Read an image and its CAM, and write the affinity label (palette PNG).

    Raises:
        DataError: the image or the CAM cannot be read, or they are of different sizes.
    """
    cv2.setNumThreads(1)
    image = read_image(job.image)
    stored, classes, size = read_cam(job.cam)
    if size != image.shape[:2]:
        raise DataError(
            f"{job.cam} was made for an image of {sides(size)}, {job.image} is {sides(image.shape[:2])}",
            "its photograph has changed: put it back, or remove the file and run `wsss cam` again",
        )
    cam, config = upsample(stored, size), job.config
    if isinstance(config, PsaConfig):
        label = psa_label(image, cam, classes, config, job.crf)
    else:
        step = CrfStep(on="labels", crf=config.crf, gt_prob=config.gt_prob)
        settings = RefineSettings(job.fg_threshold, job.bg_threshold, (step,), crf=job.crf)
        label, _ = pseudo_mask(image, cam, classes, settings)
    write_mask(job.label, label, job.colors)
