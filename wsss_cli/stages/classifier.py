"""The classifier stage: tags, with a consistency loss or without. The recam stage, which sharpens its class weights."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsss_cli.cam.consistency import puzzle_losses, ramped, seam_er_losses, seam_losses
from wsss_cli.cam.recam import softmax_loss
from wsss_cli.config.base import Precision
from wsss_cli.config.cam import ReCamConfig
from wsss_cli.config.classifier import ClassifierConfig, PuzzleConfig, SeamConfig, SeamErConfig
from wsss_cli.config.load import load_preset
from wsss_cli.data.dataset import Sample
from wsss_cli.data.images import read_image
from wsss_cli.data.transforms import classifier_sample
from wsss_cli.engine.checkpoint import load_weights
from wsss_cli.engine.context import Context
from wsss_cli.engine.fit import Task
from wsss_cli.engine.pointers import find_checkpoint
from wsss_cli.errors import WeightsError
from wsss_cli.losses.tags import multilabel_soft_margin
from wsss_cli.models.build import build_classifier
from wsss_cli.models.classifier import CamClassifier, ReCamClassifier, SeamClassifier
from wsss_cli.ranks.group import only_first
from wsss_cli.ranks.sums import shares
from wsss_cli.stages.opening import open_step
from wsss_cli.stages.plan import Experiment, Step
from wsss_cli.stages.sources import hold_to_sources
from wsss_cli.stages.training import train_network
from wsss_cli.talk import silent
from wsss_cli.weights.choice import split_choice, with_file
from wsss_cli.weights.formats import recognise
from wsss_cli.weights.load import differences, load_into, load_state
from wsss_cli.weights.tables import State, without_prefix


class ClassifierTask(Task):
    """Multi-label classification of image tags, with the preset's consistency loss."""

    model: CamClassifier

    def __init__(self, model: CamClassifier, config: ClassifierConfig) -> None:
        self.model, self._config = model, config

    def losses(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        return shares(self._means(batch), len(batch["image"]))

    def _means(self, batch: dict[str, Any]) -> dict[str, Tensor]:
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


class ReCamTask(Task):
    """Softmax classification of class features beside the loss of the tags; what is not new learns at the base rate."""

    model: ReCamClassifier

    def __init__(self, model: ReCamClassifier, weight: float) -> None:
        self.model, self._weight = model, weight

    def losses(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        features = self.model.features(self.model.backbone.normalise(batch["image"].permute(0, 3, 1, 2)))
        losses = {
            "tags": multilabel_soft_margin(self.model.scores(features).float(), batch["tags"]),
            "softmax": self._weight * softmax_loss(self.model, features, batch["tags"]),
        }
        return shares(losses, len(batch["image"]))

    def in_head(self, name: str) -> bool:
        return name.startswith("second.")


def run_classifier(step: Step, exp: Experiment, ctx: Context) -> None:
    """The classifier stage: train the network that CAMs are made with. Goes on from its last checkpoint."""
    config, dataset, seed = exp.preset.classifier, exp.dataset, exp.preset.seed
    samples = dataset.split(exp.preset.dataset.train)
    with open_step(step, exp) as run:
        only_first(lambda: hold_to_sources(run, step, exp, ctx.stop.check))
        torch.manual_seed(seed)  # the new layers' first weights
        only_first(lambda: _say_untaught(samples, exp, ctx))
        task = ClassifierTask(build_classifier(config, dataset.num_classes, ctx.device), config)
        make = partial(_item, config=config, num_classes=dataset.num_classes)
        train_network(task, config, samples, make, run, ctx, seed=seed, title="classifier")
        run.finish(lost=run.lost, device=ctx.device_name)


def _say_untaught(samples: Sequence[Sample], exp: Experiment, ctx: Context) -> None:
    """A line on classes that are a tag of no photograph that the classifier learns from."""
    tagged = {label for sample in samples for label in sample.labels}
    if untaught := [name for index, name in enumerate(exp.dataset.classes) if index and index not in tagged]:
        named = f"{', '.join(untaught[:5])}{' ...' if len(untaught) > 5 else ''}"
        ctx.ui.say(f"a tag of no photograph of the split {exp.preset.dataset.train}: {named}; nothing teaches that")


def run_recam(step: Step, exp: Experiment, ctx: Context) -> None:
    """The recam stage: train the second classifier of ReCAM beside the first, at the settings of `cam.method`."""
    config, method, seed = exp.preset.classifier, exp.preset.cam.method, exp.preset.seed
    assert isinstance(method, ReCamConfig)
    samples = exp.dataset.split(exp.preset.dataset.train)
    optim = config.optim.model_copy(update={"lr": 0.1 * method.lr, "head_lr_mult": 10.0})
    config = config.model_copy(update={"iters": method.iters, "optim": optim})
    with open_step(step, exp) as run:
        first, _ = load_classifier(step.reads[0], exp, ctx)
        torch.manual_seed(seed)  # the second classifier's first weights
        task = ReCamTask(ReCamClassifier(first), method.weight)
        make = partial(_item, config=config, num_classes=exp.dataset.num_classes)
        train_network(task, config, samples, make, run, ctx, seed=seed, title="second classifier")
        run.finish(lost=run.lost, device=ctx.device_name)


def _item(
    sample: Sample, rng: np.random.Generator, *, config: ClassifierConfig, num_classes: int
) -> dict[str, np.ndarray]:
    image = read_image(sample.image)
    crop = classifier_sample(image, rng, config.crop, config.resize_min, config.resize_max)
    tags = np.zeros(num_classes - 1, np.float32)
    tags[[label - 1 for label in sample.labels]] = 1.0
    return {"image": crop, "tags": tags}


def load_classifier(step: Step, exp: Experiment, ctx: Context) -> tuple[CamClassifier, Precision]:
    """The network of a classifier or recam run, or of a weight file, in evaluation mode, and the precision it works in.

    A run's own settings say what the network is; for a file those of the preset do.

    Raises:
        WeightsError: there is no checkpoint, or it is damaged or of another network.
    """
    first = step.reads[0].path if step.stage == "recam" else step.path
    lock = first / "preset.lock.toml"
    config = load_preset(str(lock), say=silent).classifier if lock.is_file() else exp.preset.classifier
    model = build_classifier(config, exp.dataset.num_classes, ctx.device, weights=False)
    if step.stage == "recam":
        model = ReCamClassifier(model).eval()
    state, title = _weights(step.path)
    expected = model.state_dict()
    state = without_prefix(state, expected)
    of = recognise(state) if differences(expected, state) else None
    if of is not None and of.kind not in ("wsss-classifier", "unknown"):
        advice = with_file(of.advice.replace("train.backbone", "classifier.backbone"), step.path)
        raise WeightsError(f"{title} is {of.title}, no CAM classifier", advice)
    load_into(model, state, title)
    ctx.ui.say(f"classifier: {title}")
    return model, config.precision


def classifier_of(run: Path, num_classes: int, ctx: Context) -> CamClassifier:
    """The network of a classifier run, by its own settings.

    Raises:
        WeightsError: there is no checkpoint, or it is damaged.
    """
    config = load_preset(str(run / "preset.lock.toml"), say=silent).classifier
    model = build_classifier(config, num_classes, ctx.device, weights=False)
    state, title = _weights(run)
    load_into(model, without_prefix(state, model.state_dict()), title)
    return model


def _weights(path: Path) -> tuple[State, str]:
    """Weights of a run (its last checkpoint), a checkpoint folder or a weight file, and their name."""
    if split_choice(path)[0].is_file():
        return load_state(path), str(path)
    checkpoint = find_checkpoint(path / "checkpoints") or path
    state, meta = load_weights(checkpoint)
    return state, f"{checkpoint} (step {meta['step']})"
