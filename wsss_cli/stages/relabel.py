"""A further round: a trained network labels the train split within the image tags, a dense CRF refines it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wsss_cli.cam.store import read_cam, upsample
from wsss_cli.config.evaluation import EvalConfig
from wsss_cli.config.refine import RelabelConfig
from wsss_cli.config.schema import Preset
from wsss_cli.crf.dense import Backend, backend_for
from wsss_cli.data.dataset import Dataset, Sample
from wsss_cli.data.images import read_image
from wsss_cli.data.trusted import Labels
from wsss_cli.engine.context import Context
from wsss_cli.engine.records import read_inputs, read_run, required
from wsss_cli.engine.rundir import RunDir
from wsss_cli.engine.sweep import Lost, SweepOptions, sweep
from wsss_cli.errors import DataError, UsageError
from wsss_cli.inference.network import Network, load_network
from wsss_cli.inference.predict import image_batches, predict
from wsss_cli.labels import IGNORE
from wsss_cli.pseudo.refine import refine, write_pseudo_mask
from wsss_cli.pseudo.thresholds import class_factors
from wsss_cli.ranks.group import only_first
from wsss_cli.ranks.who import cores_here
from wsss_cli.scoring.stored import read_scores
from wsss_cli.stages.opening import not_there, open_step
from wsss_cli.stages.paths import Files, cam_files, confidence_files, mask_files, walk_files
from wsss_cli.stages.plan import Experiment, Step
from wsss_cli.stages.pseudo import score_pseudo, steps_in_words, threshold_settings
from wsss_cli.stages.thresholds import Thresholds, choose_thresholds
from wsss_cli.stages.trusted import trusted_labels

ReadSample = tuple[Sample, np.ndarray, np.ndarray | None]  # with its pixels and the CAMs of the first round


@dataclass(frozen=True)
class RelabelJob:
    """What a worker process needs of an image; probabilities: of background and `classes`, float32 [1+C, H, W]."""

    id: str
    image: np.ndarray
    probabilities: np.ndarray
    classes: tuple[int, ...]
    mask: Path
    confidence: Path
    colors: tuple[tuple[int, int, int], ...]
    trusted: Labels | None = None


def run_relabel(step: Step, exp: Experiment, ctx: Context) -> None:
    """Make the pseudo masks of the next round with the network of a finished training.

    The result is a pseudo run like that of CAMs: it can be scored, looked at and trained on.

    Args:
        step: reads a train run, and a cam run whose scores are mixed in, if any.
    """
    preset, dataset = exp.preset, exp.dataset
    network = load_network(step.reads[0].path, ctx)
    with open_step(step, exp) as run:
        cams = _scores_beside(step, exp, ctx)
        lost = _label(network, dataset.split(preset.dataset.train), dataset, preset, cams, run, ctx)
        chosen = cams.chosen if cams else None
        settings = threshold_settings(dataset, chosen) if chosen else {}
        how = _protocol(preset, network, chosen, ctx)
        only_first(lambda: score_pseudo(dataset, preset, run, ctx, how, settings))
        run.finish(lost=lost, **({"fg_threshold": chosen.fg, "bg_threshold": chosen.bg} if chosen else {}))


def allowed_classes(samples: Sequence[Sample], num_classes: int) -> torch.Tensor:
    """Background and the tagged classes of each image, bool [B, K]."""
    allowed = torch.zeros((len(samples), num_classes), dtype=torch.bool)
    allowed[:, 0] = True
    for row, sample in zip(allowed, samples, strict=True):
        row[list(sample.labels)] = True
    return allowed


@dataclass(frozen=True)
class FirstScores:
    """The scores that the masks of the first round were made from.

    Attributes:
        files: of each image.
        background: the background's score beside them.
        factors: on the scores of class 1, 2, ..., where the first round had a threshold for each; empty: none.
        chosen: the thresholds, where the scores are of a cam run that was given; None: they are the first round's.
    """

    files: Files
    background: float
    factors: tuple[float, ...] = ()
    chosen: Thresholds | None = None

    def scaled(self, cam: np.ndarray, classes: Sequence[int]) -> np.ndarray:
        """Scores of `classes` [C, H, W] times their factors."""
        if not self.factors:
            return cam
        return cam * np.asarray([self.factors[c - 1] for c in classes], np.float32)[:, None, None]


def first_scores(trained: Path) -> FirstScores:
    """What the training at the beginning of the rounds that led to `trained` has learned from.

    Raises:
        UsageError: a training of that line was on no pseudo masks, or a run of it is gone.
    """
    while True:
        masks = read_inputs(trained).pseudo_run
        if masks is None:
            raise UsageError(
                f"{trained} was trained without pseudo masks: there are no CAMs behind it",
                "name a cam run with --cams, or --set relabel.cam_weight=0",
            )
        record, inputs = read_run(Path(masks), "pseudo"), read_inputs(Path(masks))
        if inputs.train_run is None or inputs.cam_run is not None:
            break
        trained = Path(inputs.train_run)
    walked = sorted((Path(masks) / "scores").glob("*-*"), key=lambda folder: int(folder.name.split("-")[0]))
    if walked:
        files = walk_files(Path(masks), walked[-1].name)
    else:
        files = cam_files(Path(required(inputs.cam_run, f"{masks}/inputs.json: cam_run")))
    if not files.folder.is_dir():
        raise UsageError(f"{files.folder} is gone; the masks of {masks} were made from its scores", "make them again")
    stored = read_scores(Path(masks))
    if (chosen := stored.get("threshold")) is None:
        fg = required(record.fg_threshold, f"{masks}/run.json: fg_threshold")
        return FirstScores(files, (fg + required(record.bg_threshold, f"{masks}/run.json: bg_threshold")) / 2)
    return FirstScores(files, chosen, class_factors(chosen, tuple(stored.get("class_thresholds", {}).values())))


def mixed(probabilities: np.ndarray, cam: np.ndarray, background: float, weight: float) -> np.ndarray:
    """A network's probabilities and the scores of CAMs, averaged and divided by their sum over classes.

    Args:
        probabilities: of background and classes, float32 [1+C, H, W].
        cam: scores of the classes in [0, 1], float32 [C, H, W].
        background: the background's score beside them.
        weight: share of the CAMs.
    """
    scores = np.concatenate([np.full((1, *cam.shape[1:]), background, np.float32), cam])
    both = (1 - weight) * probabilities + weight * scores
    normalised: np.ndarray = both / both.sum(axis=0).clip(1e-5)
    return normalised


def refined(
    image: np.ndarray,
    probabilities: np.ndarray,
    classes: tuple[int, ...],
    config: RelabelConfig,
    device: str = "cpu",
    crf: Backend = "lattice",
) -> tuple[np.ndarray, np.ndarray]:
    """Label map and confidence of one image from a network's class probabilities.

    Args:
        image: RGB, uint8 [H, W, 3].
        probabilities: of background and `classes`, float32 [1+C, H, W].
        device: of PAR.
        crf: what computes the dense CRF.
    Returns:
        (labels, uint8 [H, W], values 0, `classes` and 255 where the posterior is below `config.min_confidence`; the
        posterior of the label, float32 [H, W], 0 where undecided).
    """
    posterior = refine(image, [probabilities], config.steps, posterior=True, device=device, crf=crf)[0]
    best, confidence = posterior.argmax(0), posterior.max(0)
    labels = np.asarray((0, *classes), np.uint8)[best]
    undecided = confidence < config.min_confidence
    return np.where(undecided, np.uint8(IGNORE), labels), np.where(undecided, np.float32(0), confidence)


def labels_of(samples: Sequence[Sample], step: Step, exp: Experiment, run: RunDir, ctx: Context) -> Lost:
    """Make the masks of images of the train split, all or some, that are not there yet; the lost ones."""
    network, cams = load_network(step.reads[0].path, ctx), _scores_beside(step, exp, ctx)
    return _label(network, samples, exp.dataset, exp.preset, cams, run, ctx)


def _scores_beside(step: Step, exp: Experiment, ctx: Context) -> FirstScores | None:
    """The scores that are mixed in: of the cam run that was given, else the first round's; None: none have a share."""
    if not exp.preset.relabel.cam_weight:
        return None
    if len(step.reads) == 1:
        return first_scores(step.reads[0].path)
    cams = step.reads[1].path
    chosen = only_first(lambda: choose_thresholds(exp.preset, exp.dataset, cam_files(cams), cams, ctx))
    background = (chosen.fg + chosen.bg) / 2 if chosen.best is None else chosen.best
    return FirstScores(cam_files(cams), background, chosen.factors, chosen)


def _label(
    network: Network,
    images: Sequence[Sample],
    dataset: Dataset,
    preset: Preset,
    cams: FirstScores | None,
    run: RunDir,
    ctx: Context,
) -> Lost:
    masks, confidences = mask_files(run.path), confidence_files(run.path)
    samples = not_there(images, masks)
    config, precision = preset.relabel, network.preset.train.precision
    views = EvalConfig.model_validate(
        {**network.preset.eval.model_dump(), "scales": config.scales, "mode": "whole", "base": "image"}
    )
    trusted = trusted_labels(preset, dataset, "relabel")
    lost: Lost = []
    batches = image_batches(samples, views, lost, ctx, run.log, ms_flip=True)

    def compute(batch: list[ReadSample]) -> Iterator[RelabelJob]:
        images = [image for _, image, _ in batch]
        allowed = allowed_classes([sample for sample, _, _ in batch], dataset.num_classes)
        shown: dict[str, Any] = {"single": False, "ms_flip": True, "probabilities": True, "allowed": allowed}
        planes = predict(network.model, images, views, ctx, precision, **shown)["ms_flip_probabilities"]
        for (sample, image, cam), probabilities in zip(batch, planes, strict=True):
            mask, confidence = masks.of(sample.id), confidences.of(sample.id)
            of_tags = probabilities[[0, *sample.labels]]
            if cams is not None and cam is not None:
                scores = cams.scaled(upsample(cam, image.shape[:2]), sample.labels)
                of_tags = mixed(of_tags, scores, cams.background, config.cam_weight)
            labels = trusted.of(sample.id) if trusted else None
            yield RelabelJob(sample.id, image, of_tags, sample.labels, mask, confidence, dataset.colors, labels)

    crf = backend_for(ctx.device.type)
    on_gpu = ctx.device.type == "cuda" and (crf == "triton" or any(s.kind == "par" for s in config.steps))
    finish = partial(_finish, config=config, device=str(ctx.device) if on_gpu else "cpu", crf=crf)
    options = SweepOptions(
        "masks of the network",
        "smaller relabel.scales, or --device cpu",
        preset.pseudo.workers or cores_here(),
        not on_gpu,
        size_of=lambda loaded: loaded[1].shape[:2],
    )
    for _ in sweep(batches, partial(_read, cams=cams), compute, finish, options, lost, ctx, run.log):
        pass  # they are on disk
    return lost


def _read(sample: Sample, cams: FirstScores | None) -> ReadSample:
    image = read_image(sample.image)
    if cams is None:
        return sample, image, None
    file = cams.files.of(sample.id)
    cam, classes, size = read_cam(file)
    if classes != tuple(sample.labels) or size != image.shape[:2]:
        raise DataError(
            f"{file} is of other tags, or of an image of another size", "remove it, and run `wsss cam` again"
        )
    return sample, image, cam


def _finish(job: RelabelJob, config: RelabelConfig, device: str, crf: Backend) -> None:
    labels, confidence = refined(job.image, job.probabilities, job.classes, config, device, crf)
    if job.trusted is not None:
        labels, confidence = job.trusted.over(labels, confidence)
    write_pseudo_mask(job.mask, job.confidence, labels, confidence, job.colors)


def _protocol(preset: Preset, network: Network, chosen: Thresholds | None, ctx: Context) -> str:
    config = preset.relabel
    scales = ", ".join(f"{scale:g}" for scale in config.scales)
    whose = f"CAMs, threshold {preset.pseudo.threshold.kind}" if chosen else "the first round's scores"
    first = f"averaged with {whose} (their share {config.cam_weight:g}), " if config.cam_weight else ""
    return (
        f"labelled by a network ({network.origin}) within the image tags, scales {scales} + flip, {first}"
        f"{steps_in_words(config.steps, config.min_confidence, backend_for(ctx.device.type))}"
    )
