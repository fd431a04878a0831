"""Training of the CAM classifier: on tags, with a consistency loss or without, and ReCAM's second phase; or loading."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsss_cli.cam.consistency import puzzle_losses, ramped, seam_er_losses, seam_losses
from wsss_cli.cam.recam import softmax_loss
from wsss_cli.config.base import Optim
from wsss_cli.config.cam import ReCamConfig
from wsss_cli.config.classifier import ClassifierConfig, PuzzleConfig, SeamConfig, SeamErConfig
from wsss_cli.config.schema import Preset
from wsss_cli.data.dataset import Sample
from wsss_cli.data.images import read_image
from wsss_cli.data.loader import training_batches
from wsss_cli.data.transforms import classifier_sample
from wsss_cli.engine.checkpoint import find_checkpoint, load_weights
from wsss_cli.engine.context import Context
from wsss_cli.engine.fit import Plan, fit
from wsss_cli.engine.rundir import RunDir
from wsss_cli.errors import WeightsError
from wsss_cli.losses import multilabel_soft_margin
from wsss_cli.models.build import param_groups
from wsss_cli.models.classifier import CamClassifier, ReCamClassifier, SeamClassifier
from wsss_cli.weights.load import State, load_into, load_state

Batches = Callable[[int], Iterator[dict[str, Any]]]
EXTRA = ("pcm_", "second.")  # parts beside the classifier that SEAM and ReCAM train; other methods do without


class ClassifierTask:
    """Multi-label classification of image tags, with the preset's consistency loss."""

    def __init__(self, model: CamClassifier, config: ClassifierConfig) -> None:
        self._model, self._config = model, config

    @property
    def model(self) -> CamClassifier:
        return self._model

    def losses(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        x = self.model.backbone.normalise(batch["image"].permute(0, 3, 1, 2))
        tags = batch["tags"]
        match self._config.consistency:
            case PuzzleConfig(alpha=alpha, ramp=ramp):
                return puzzle_losses(self.model, x, tags, ramped(alpha, batch["step"], self._config.iters, ramp))
            case SeamErConfig() as seam:
                return seam_er_losses(self.model, x, tags, seam)
            case SeamConfig() as seam:
                assert isinstance(self.model, SeamClassifier)
                return seam_losses(self.model, x, tags, seam)
        return {"tags": multilabel_soft_margin(self.model(x).float(), tags)}

    def param_groups(self, base_lr: float, head_lr_mult: float) -> list[dict[str, Any]]:
        return param_groups(self.model, base_lr, head_lr_mult)

    def evaluate(self) -> dict[str, float]:
        return {}


class ReCamTask:
    """Softmax classification of class features beside the loss of the tags; what is not new learns at the base rate."""

    def __init__(self, model: ReCamClassifier, weight: float) -> None:
        self._model, self._weight = model, weight

    @property
    def model(self) -> ReCamClassifier:
        return self._model

    def losses(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        features = self.model.features(self.model.backbone.normalise(batch["image"].permute(0, 3, 1, 2)))
        return {
            "tags": multilabel_soft_margin(self.model.scores(features).float(), batch["tags"]),
            "softmax": self._weight * softmax_loss(self.model, features, batch["tags"]),
        }

    def param_groups(self, base_lr: float, head_lr_mult: float) -> list[dict[str, Any]]:
        new = list(self.model.second.parameters())
        old = [p for name, p in self.model.named_parameters() if p.requires_grad and not name.startswith("second.")]
        return [{"params": old, "lr": base_lr}, {"params": new, "lr": base_lr * head_lr_mult}]

    def evaluate(self) -> dict[str, float]:
        return {}


def trained_classifier(
    model: CamClassifier,
    samples: Sequence[Sample],
    num_classes: int,
    preset: Preset,
    workers: int,
    run: RunDir,
    ctx: Context,
) -> CamClassifier:
    """Train the classifier, or load the one that the preset names; with ReCAM, train the second one too.

    Args:
        model: as `build_classifier` makes it.
        workers: data worker processes.
    Returns:
        The network that CAMs are made with.
    """
    config, method = preset.classifier, preset.cam.method
    batches = partial(_batches, samples, config, num_classes, preset.seed, workers, ctx)
    if config.weights:
        _load_given(model, config.weights, ctx)
    else:
        _fit(ClassifierTask(model, config), batches, config.iters, config.optim, preset, run, ctx, "classifier")
    if not isinstance(method, ReCamConfig):
        return model
    torch.manual_seed(preset.seed)  # the second classifier's first weights
    second = ReCamClassifier(model)
    phase = RunDir(run.path / "recam", run.record)
    phase.path.mkdir(exist_ok=True)
    optim = config.optim.model_copy(update={"lr": 0.1 * method.lr, "head_lr_mult": 10.0})
    task = ReCamTask(second, method.weight)
    _fit(task, batches, method.iters, optim, preset, phase, ctx, "second classifier")
    return second


def _fit(
    task: ClassifierTask | ReCamTask,
    batches: Batches,
    iters: int,
    optim: Optim,
    preset: Preset,
    run: RunDir,
    ctx: Context,
    title: str,
) -> None:
    plan = Plan(
        iters,
        optim,
        preset.classifier.schedule,
        preset.classifier.precision,
        preset.seed,
        log_interval=max(1, min(50, iters // 4)),
        checkpoint_interval=200,
    )
    with ctx.ui.training_progress(title, iters) as show:
        for event in fit(task, batches, plan, run, ctx):
            show(event)


def _batches(
    samples: Sequence[Sample],
    config: ClassifierConfig,
    num_classes: int,
    seed: int,
    workers: int,
    ctx: Context,
    start: int,
) -> Iterator[dict[str, Any]]:
    make = partial(_item, config=config, num_classes=num_classes)
    pin = ctx.device.type == "cuda"
    made = training_batches(samples, make, batch=config.batch, seed=seed, workers=workers, start=start, pin=pin)
    for step, batch in enumerate(made, start):
        yield {**batch, "step": step}


def _item(
    sample: Sample, rng: np.random.Generator, *, config: ClassifierConfig, num_classes: int
) -> dict[str, np.ndarray]:
    image = read_image(sample.image)
    crop = classifier_sample(image, rng, config.crop, config.resize_min, config.resize_max)
    tags = np.zeros(num_classes - 1, np.float32)
    tags[[label - 1 for label in sample.labels]] = 1.0
    return {"image": crop, "tags": tags}


def _load_given(model: CamClassifier, given: str, ctx: Context) -> None:
    """Load a classifier that the preset names; parts that this preset's method has no use for are left out."""
    state, title = _given_state(Path(given))
    own = model.state_dict()
    load_into(model, {key: t for key, t in state.items() if key in own or not key.startswith(EXTRA)}, title)
    ctx.ui.say(f"classifier: {title}")


def _given_state(path: Path) -> tuple[State, str]:
    """Weights of a cam run directory (its last checkpoint), a checkpoint folder or a weight file, and their name.

    Raises:
        WeightsError: there is no such thing, or it is damaged.
    """
    if not path.is_dir():
        return load_state(path), str(path)
    places = [path, find_checkpoint(path), find_checkpoint(path / "checkpoints")]
    checkpoint = next((place for place in places if place and (place / "meta.json").is_file()), None)
    if checkpoint is None:
        raise WeightsError(
            f"{path} holds no checkpoint of a classifier",
            "name a cam run, a folder in its checkpoints/, or a weight file",
        )
    state, meta = load_weights(checkpoint)
    return state, f"{checkpoint} (step {meta['step']})"
