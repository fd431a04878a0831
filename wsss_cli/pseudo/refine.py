"""Pseudo masks from CAMs: two background thresholds, refining steps at each, and 255 where the two disagree."""

from __future__ import annotations

import re
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from wsss_cli.cam.store import read_cam, upsample
from wsss_cli.config.refine import CrfStep, ParStep
from wsss_cli.crf import dense_crf
from wsss_cli.crf.dense import Backend, label_unary
from wsss_cli.data.images import read_image
from wsss_cli.data.masks import write_mask
from wsss_cli.data.trusted import Labels
from wsss_cli.errors import DataError
from wsss_cli.files import write_bytes
from wsss_cli.labels import IGNORE
from wsss_cli.talk import sides

LabelStep = CrfStep | ParStep
TIE = 2 / 255  # scores are stored in 8 bits
Seconds = dict[str, float]


@dataclass(frozen=True)
class RefineSettings:
    """What is the same for all images.

    Attributes:
        fg_threshold, bg_threshold: constant background scores of the two runs, fg >= bg.
        steps: refining steps in order; none is allowed.
        min_confidence: pixels whose posterior is below this become 255.
        class_factors: factor on the scores of class 1, 2, ...; empty: all 1. See `pseudo.thresholds`.
        device: of PAR.
        crf: what computes the dense CRF.
        complement: in place of thresholds, the background's score is 1 less the highest of the classes.
    """

    fg_threshold: float
    bg_threshold: float
    steps: tuple[LabelStep, ...]
    min_confidence: float = 0.0
    class_factors: tuple[float, ...] = ()
    device: str = "cpu"
    crf: Backend = "lattice"
    complement: bool = False


@dataclass(frozen=True)
class MaskJob:
    """One image's way from scores to pseudo mask; sent to a worker process.

    Attributes:
        trusted: labels that take the place of what the scores say, where the image has any.
    """

    id: str
    image: Path
    scores: Path
    mask: Path
    confidence: Path
    settings: RefineSettings
    colors: tuple[tuple[int, int, int], ...]
    trusted: Labels | None = None


@dataclass(frozen=True)
class Cost:
    """What an image took: seconds by step, and the largest memory of the process so far, MiB.

    Where threads share a GPU, the seconds of a step include those in which it waited for its turn.

    Attributes:
        blank: the image has scores of classes, and its mask no pixel of any class.
    """

    seconds: Seconds
    peak_mib: float
    blank: bool = False


def pseudo_mask(
    image: np.ndarray,
    cam: np.ndarray,
    classes: tuple[int, ...],
    settings: RefineSettings,
    seconds: Seconds | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Label map and confidence of one image.

    A pixel gets a class where the run with the high background threshold says that class, background where both runs
    say background, and 255 elsewhere. With two equal thresholds there is one run, and so there is without any, where
    255 stands where background and class are equal.

    Args:
        image: RGB, uint8 [H, W, 3].
        cam: scores in [0, 1] at image size, float32 [C, H, W].
        classes: class index of each map, 1 .. K-1.
        seconds: what each step takes is added to it.
    Returns:
        (labels, uint8 [H, W], values 0, `classes` and 255; posterior of the label averaged over the runs, float32
        [H, W] in [0, 1], 0 where undecided; without steps, the label's share of the scores).

    Source: IRN, `step/cam_to_ir_label.py` (thresholds 0.30 and 0.05, label CRF 3/3, 50/5/10, gt_prob 0.7).
    """
    height, width = image.shape[:2]
    if not classes:
        return np.zeros((height, width), np.uint8), np.ones((height, width), np.float32)
    if settings.class_factors:
        cam = cam * np.array([settings.class_factors[index - 1] for index in classes], np.float32)[:, None, None]
    highest = cam.max(axis=0)
    levels = dict.fromkeys((settings.fg_threshold, settings.bg_threshold))  # once, where they are equal
    grounds = [1 - highest] if settings.complement else [np.full_like(highest, level) for level in levels]
    stacks = [np.concatenate([ground[None], cam]) for ground in grounds]
    posteriors = refine(image, stacks, settings.steps, device=settings.device, crf=settings.crf, seconds=seconds)
    high, low = posteriors[0].argmax(axis=0), posteriors[-1].argmax(axis=0)
    mean = (posteriors[0] + posteriors[-1]) / 2
    confidence = np.take_along_axis(mean, high[None], axis=0)[0]
    values = np.asarray((0, *classes), np.uint8)[high]
    undecided = ((high == 0) & (low != 0)) | (confidence < settings.min_confidence)
    if settings.complement:
        undecided |= np.abs(2 * highest - 1) < TIE
    return np.where(undecided, np.uint8(IGNORE), values), np.where(undecided, np.float32(0), confidence)


def refine(
    image: np.ndarray,
    stacks: list[np.ndarray],
    steps: Sequence[LabelStep],
    *,
    posterior: bool = False,
    device: str = "cpu",
    crf: Backend = "lattice",
    seconds: Seconds | None = None,
) -> list[np.ndarray]:
    """Stacks of an image after all steps.

    Args:
        image: RGB, uint8 [H, W, 3].
        stacks: scores, the background first, float32 [1+C, H, W] each.
        posterior: they are probabilities already, not CAM scores.
        device: of PAR.
        crf: what computes the dense CRF.
        seconds: what each step takes is added to it.
    Returns:
        Probabilities, float32 [1+C, H, W] each.
    """
    seconds = {} if seconds is None else seconds
    for number, step in enumerate(steps, 1):
        begin = time.perf_counter()
        if isinstance(step, ParStep):
            stacks = _par(image, stacks if posterior else [_softmax(stack) for stack in stacks], step, device)
        else:
            stacks = _crf(image, stacks, step, crf)
        posterior = True
        name = f"{number} {step.kind}"
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - begin
    return stacks if posterior else [_shares(stack) for stack in stacks]


def _crf(image: np.ndarray, stacks: list[np.ndarray], step: CrfStep, backend: Backend) -> list[np.ndarray]:
    """All stacks at once: they share the kernels of the image."""
    if step.on == "labels":
        unaries = [label_unary(stack.argmax(axis=0), len(stack), step.gt_prob) for stack in stacks]
    else:
        unaries = [-np.log(np.clip(_shares(stack), 1e-5, 1.0)) for stack in stacks]
    return list(dense_crf(image, np.stack(unaries), **step.values.model_dump(), backend=backend))


def _par(image: np.ndarray, stacks: list[np.ndarray], step: ParStep, device: str) -> list[np.ndarray]:
    """All stacks at once: they share the affinities of the image."""
    import torch  # half a gigabyte that a process that only runs CRFs need not hold

    from wsss_cli.pseudo.par import par

    height, width = image.shape[:2]
    size = (max(round(width * step.scale), 1), max(round(height * step.scale), 1))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    planes = np.stack([cv2.resize(p, size, interpolation=cv2.INTER_AREA) for stack in stacks for p in stack])
    refined = par(
        torch.from_numpy(small).to(device).permute(2, 0, 1)[None].float(),
        torch.from_numpy(planes).to(device)[None],
        dilations=step.dilations,
        iterations=step.iterations,
        w1=step.w1,
        w2=step.w2,
    )
    full = upsample(refined[0].cpu().numpy(), (height, width))
    return list(full.reshape(len(stacks), -1, height, width))


def _softmax(stack: np.ndarray) -> np.ndarray:
    exponential = np.exp(stack - stack.max(axis=0))
    probabilities: np.ndarray = exponential / exponential.sum(axis=0)
    return probabilities


def _shares(stack: np.ndarray) -> np.ndarray:
    """Scores as probabilities: clipped to at least 1e-5, divided by their sum. A CRF does not see the division."""
    clipped = np.maximum(stack, np.float32(1e-5))
    posterior: np.ndarray = clipped / clipped.sum(axis=0)
    return posterior


def make_pseudo_mask(job: MaskJob) -> Cost:
    """Read, refine and write one image's pseudo mask (palette PNG) and confidence (8-bit grey PNG, 255 = certain).

    Raises:
        DataError: the image or the scores cannot be read, they are of different sizes, or scores are of no class.
    """
    cv2.setNumThreads(1)
    if any(isinstance(step, ParStep) for step in job.settings.steps):
        import wsss_cli.pseudo.par  # noqa: F401 - here, so that its time is in no image's
    if job.trusted is not None and job.trusted.kind == "mask":  # nothing is left for scores to tell
        mask = job.trusted.read()
        write_pseudo_mask(job.mask, job.confidence, *job.trusted.over(mask, mask), job.colors)
        return Cost({}, _peak_mib())
    begin = time.perf_counter()
    image = read_image(job.image)
    cam, classes, size = read_cam(job.scores)
    if size != image.shape[:2]:
        raise DataError(
            f"{job.scores} was made for an image of {sides(size)}, {job.image} is {sides(image.shape[:2])}",
            "its photograph has changed: put it back, or remove the file and run `wsss cam` again",
        )
    if outside := [index for index in classes if not 0 < index < len(job.colors)]:
        raise DataError(
            f"{job.scores} has a map of class {outside[0]}, which is not in 1..{len(job.colors) - 1}",
            "remove it, and run `wsss cam` again",
        )
    seconds = {"read": time.perf_counter() - begin}
    mask, confidence = pseudo_mask(image, upsample(cam, size), classes, job.settings, seconds)
    if job.trusted is not None:
        mask, confidence = job.trusted.over(mask, confidence)
    begin = time.perf_counter()
    write_pseudo_mask(job.mask, job.confidence, mask, confidence, job.colors)
    seconds["write"] = time.perf_counter() - begin
    return Cost(seconds, _peak_mib(), bool(classes) and not ((mask > 0) & (mask != IGNORE)).any())


def write_pseudo_mask(
    mask_file: Path,
    confidence_file: Path,
    mask: np.ndarray,
    confidence: np.ndarray,
    colors: tuple[tuple[int, int, int], ...],
) -> None:
    """Write a label map (palette PNG) and its confidence in [0, 1] (8-bit grey PNG, 255 = certain).

    Raises:
        DataError: a file cannot be encoded or written.
    """
    ok, png = cv2.imencode(".png", np.rint(confidence * 255).astype(np.uint8))
    if not ok:
        raise DataError(f"cannot encode {confidence_file} as PNG")
    write_bytes(confidence_file, png.tobytes())
    write_mask(mask_file, mask, colors)  # last: a mask that is there has its confidence beside it


def _peak_mib() -> float:
    """Largest resident memory of this process so far."""
    if sys.platform == "linux":  # where getrusage also counts the process that started this one
        match = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
        if match:
            return int(match[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


class Costs:
    """What images took together.

    Attributes:
        peak_mib: the largest memory of a process so far.
        blank: how many masks have no pixel of a class, where scores are of some.
    """

    def __init__(self) -> None:
        self.images, self.blank, self.peak_mib = 0, 0, 0.0
        self.seconds: Seconds = {}

    def add(self, cost: Cost) -> None:
        """Add what an image took."""
        self.images += 1
        self.blank += cost.blank
        for name, seconds in cost.seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        self.peak_mib = max(self.peak_mib, cost.peak_mib)

    def mean(self) -> Seconds:
        """Mean seconds of each step, in their order. A step that an image did not need (no tags) took it no time."""
        order = sorted(self.seconds, key=lambda name: (name == "write", name != "read", name))
        return {name: self.seconds[name] / self.images for name in order}
