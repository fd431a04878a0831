"""The cam stage: train a classifier on image tags, then store its CAMs for the tagged classes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsss_cli.cam.multiscale import bucket_size, multiscale_cam, normalise_cam
from wsss_cli.cam.store import write_cam
from wsss_cli.config.schema import CamConfig, Preset
from wsss_cli.data.dataset import Dataset, Sample, open_dataset
from wsss_cli.data.images import read_image
from wsss_cli.data.loader import training_batches
from wsss_cli.data.masks import image_size
from wsss_cli.data.transforms import classifier_sample
from wsss_cli.engine.context import Context, cores
from wsss_cli.engine.fit import Plan, fit
from wsss_cli.engine.rundir import RunDir, open_run, run_path
from wsss_cli.engine.sweep import Lost, sweep
from wsss_cli.errors import DataError, WriteError
from wsss_cli.files import read_json, write_json
from wsss_cli.losses import multilabel_soft_margin
from wsss_cli.models.build import build_classifier, param_groups
from wsss_cli.models.classifier import CamClassifier
from wsss_cli.models.weights import load_into, load_state
from wsss_cli.stages.score import cam_curve
from wsss_cli.stages.upstream import Result, cam_identity, dataset_inputs

PIXELS_PER_BATCH = {"cuda": 32 * 384 * 384, "cpu": 4 * 384 * 384}  # at scale 1, mirrored views not counted


class ClassifierTask:
    """Multi-label classification of image tags."""

    def __init__(self, model: CamClassifier) -> None:
        self._model = model

    @property
    def model(self) -> CamClassifier:
        return self._model

    def losses(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        x = self.model.backbone.normalise(batch["image"].permute(0, 3, 1, 2))
        return {"tags": multilabel_soft_margin(self.model(x).float(), batch["tags"])}

    def param_groups(self, base_lr: float, head_lr_mult: float) -> list[dict[str, Any]]:
        return param_groups(self.model, base_lr, head_lr_mult)

    def evaluate(self) -> dict[str, float]:
        return {}


def run_cam(preset: Preset, ctx: Context) -> Result:
    """Train the classifier (unless one is given), make the CAMs of the train split, score them if there are masks.

    Writes cams/<id>.npz and eval.json (the threshold curve) into the run directory. Resumes where it stopped.
    """
    dataset = open_dataset(preset.dataset.path)
    samples = dataset.split(preset.dataset.train)
    own = cam_identity(preset, dataset)
    path = run_path(ctx.runs, "cam", preset.name, own)
    with open_run(path, "cam", preset, own, dataset_inputs(dataset)) as run:
        if run.done and not run.lost:
            return Result(path, _seed_scores(path), skipped=True)
        torch.manual_seed(preset.seed)  # the new layers' first weights
        model = build_classifier(preset.cam, dataset.num_classes, ctx.device)
        _train_classifier(model, samples, dataset, preset, run, ctx)
        lost = _make_cams(model, samples, preset.cam, run, ctx)
        scores = _score(dataset, preset, run, ctx)
        run.finish(lost=lost, device=ctx.device_name)
        return Result(path, scores, lost)


def cam_path(run: Path, sample: str) -> Path:
    """Where a cam run keeps the CAMs of an image."""
    return run / "cams" / f"{sample}.npz"


def _tags(sample: Sample, num_classes: int) -> np.ndarray:
    tags = np.zeros(num_classes - 1, np.float32)
    tags[[label - 1 for label in sample.labels]] = 1.0
    return tags


def _classifier_item(
    sample: Sample, rng: np.random.Generator, *, config: CamConfig, num_classes: int
) -> dict[str, np.ndarray]:
    image = read_image(sample.image)
    crop = classifier_sample(image, rng, config.crop, config.resize_min, config.resize_max)
    return {"image": crop, "tags": _tags(sample, num_classes)}


def _train_classifier(
    model: CamClassifier, samples: Sequence[Sample], dataset: Dataset, preset: Preset, run: RunDir, ctx: Context
) -> None:
    config = preset.cam
    if config.classifier:
        load_into(model, load_state(config.classifier), config.classifier)
        return
    plan = Plan(
        config.iters,
        config.optim,
        config.schedule,
        config.precision,
        preset.seed,
        log_interval=max(1, min(50, config.iters // 4)),
        checkpoint_interval=200,
    )
    make = partial(_classifier_item, config=config, num_classes=dataset.num_classes)

    def batches(start: int) -> Iterator[dict[str, Any]]:
        return training_batches(
            samples,
            make,
            batch=config.batch,
            seed=preset.seed,
            workers=data_workers(-1, ctx),
            start=start,
            pin=ctx.device.type == "cuda",
        )

    with ctx.ui.training_progress("classifier", config.iters) as show:
        for event in fit(ClassifierTask(model), batches, plan, run, ctx):
            show(event)


def data_workers(asked: int, ctx: Context) -> int:
    """Data worker processes: as asked, or one for each core but one, at most 8."""
    return asked if asked >= 0 else max(1, min(8, cores() - 1))


def _make_cams(model: CamClassifier, samples: Sequence[Sample], config: CamConfig, run: RunDir, ctx: Context) -> Lost:
    pending = [sample for sample in samples if not cam_path(run.path, sample.id).is_file()]
    batches, lost = size_buckets(pending, PIXELS_PER_BATCH[ctx.device.type])
    model.eval()

    def work(batch: Sequence[Sample]) -> Lost:
        failed: Lost = []
        read: list[tuple[Sample, np.ndarray]] = []
        for sample in batch:
            try:
                read.append((sample, read_image(sample.image)))
            except DataError as error:
                failed.append({"id": sample.id, "reason": error.message})
        if read:
            with ctx.autocast(config.precision):
                maps = multiscale_cam(_Normalised(model), [i for _, i in read], config.scales, config.flip, ctx.device)
            for (sample, image), planes in zip(read, maps.cpu().numpy(), strict=True):
                tagged = normalise_cam(planes[[label - 1 for label in sample.labels]])
                height, width = image.shape[:2]
                write_cam(cam_path(run.path, sample.id), tagged, sample.labels, (height, width))
        return failed

    return lost + sweep(batches, work, run, ctx, "CAMs")


class _Normalised:
    """The classifier together with its backbone's normalisation."""

    def __init__(self, model: CamClassifier) -> None:
        self.normalise, self.cam = model.backbone.normalise, model.cam


def size_buckets(samples: Sequence[Sample], pixels: int) -> tuple[list[list[Sample]], Lost]:
    """Batches of images of one size bucket; images whose header cannot be read are lost."""
    sizes: dict[tuple[int, int], list[Sample]] = defaultdict(list)
    lost: Lost = []
    for sample in samples:
        try:
            sizes[bucket_size(*image_size(sample.image))].append(sample)
        except WriteError:
            raise
        except DataError as error:
            lost.append({"id": sample.id, "reason": error.message})
    batches = []
    for (height, width), members in sorted(sizes.items()):
        count = max(1, pixels // (height * width))
        batches += [members[i : i + count] for i in range(0, len(members), count)]
    return batches, lost


def _seed_scores(path: Path) -> dict[str, Any]:
    file = path / "eval.json"
    return read_json(file) if file.is_file() else {}


def _score(dataset: Dataset, preset: Preset, run: RunDir, ctx: Context) -> dict[str, Any]:
    """The threshold curve of the seeds on the score split, where it has masks; written to eval.json."""
    samples = dataset.split(preset.dataset.score) if preset.dataset.score in dataset.split_sha256 else []
    pairs = [(cam_path(run.path, s.id), s.mask) for s in samples if s.mask is not None]
    scored = [(cam, mask) for cam, mask in pairs if cam.is_file()]
    if not scored:
        return {}
    with ctx.ui.progress(len(scored), "seed curve") as bar:
        curve = cam_curve(scored, dataset.num_classes, names=dataset.classes, workers=cores(), progress=bar.advance)
    scales = ", ".join(f"{scale:g}" for scale in preset.cam.scales)
    protocol = [
        f"seeds on {dataset.name}/{preset.dataset.score} ({len(scored)} images), scales {scales}"
        f"{' + flip' if preset.cam.flip else ''}, no CRF; background threshold chosen on this split; "
        "255 in the truth ignored",
        *dataset.protocol,
    ]
    curve = {**curve, "classes": list(dataset.classes), "protocol": protocol}
    write_json(run.path / "eval.json", curve)
    return curve
