"""Training of the CAM classifier: on tags, with a consistency loss or without, and ReCAM's second phase; or loading."""

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
from wsss_cli.config.cam import ReCamConfig
from wsss_cli.config.classifier import ClassifierConfig, PuzzleConfig, SeamConfig, SeamErConfig
from wsss_cli.config.schema import Preset
from wsss_cli.data.dataset import Sample
from wsss_cli.data.images import read_image
from wsss_cli.data.transforms import classifier_sample
from wsss_cli.engine.checkpoint import find_checkpoint, load_weights
from wsss_cli.engine.context import Context
from wsss_cli.engine.fit import Task
from wsss_cli.engine.rundir import RunDir
from wsss_cli.errors import WeightsError
from wsss_cli.losses.tags import multilabel_soft_margin
from wsss_cli.models.classifier import CamClassifier, ReCamClassifier, SeamClassifier
from wsss_cli.stages.training import train_network
from wsss_cli.weights.load import State, load_into, load_state

EXTRA = ("pcm_", "second.")  # parts beside the classifier that SEAM and ReCAM train; other methods do without


class ClassifierTask(Task):
    """Multi-label classification of image tags, with the preset's consistency loss."""

    model: CamClassifier

    def __init__(self, model: CamClassifier, config: ClassifierConfig) -> None:
        self.model, self._config = model, config

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


class ReCamTask(Task):
    """Softmax classification of class features beside the loss of the tags; what is not new learns at the base rate."""

    model: ReCamClassifier

    def __init__(self, model: ReCamClassifier, weight: float) -> None:
        self.model, self._weight = model, weight

    def losses(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        features = self.model.features(self.model.backbone.normalise(batch["image"].permute(0, 3, 1, 2)))
        return {
            "tags": multilabel_soft_margin(self.model.scores(features).float(), batch["tags"]),
            "softmax": self._weight * softmax_loss(self.model, features, batch["tags"]),
        }

    def in_head(self, name: str) -> bool:
        return name.startswith("second.")


def trained_classifier(
    model: CamClassifier, samples: Sequence[Sample], num_classes: int, preset: Preset, run: RunDir, ctx: Context
) -> CamClassifier:
    """Train the classifier, or load the one that the preset names; with ReCAM, train the second one too.

    Args:
        model: as `build_classifier` makes it.
    Returns:
        The network that CAMs are made with.
    """
    config, method, seed = preset.classifier, preset.cam.method, preset.seed
    make = partial(_item, config=config, num_classes=num_classes)
    if config.weights:
        _load_given(model, config.weights, ctx)
    else:
        task = ClassifierTask(model, config)
        train_network(task, config, samples, make, run, ctx, seed=seed, title="classifier")
    if not isinstance(method, ReCamConfig):
        return model
    torch.manual_seed(seed)  # the second classifier's first weights
    second = ReCamClassifier(model)
    phase = RunDir(run.path / "recam", run.record)
    phase.path.mkdir(exist_ok=True)
    optim = config.optim.model_copy(update={"lr": 0.1 * method.lr, "head_lr_mult": 10.0})
    again = config.model_copy(update={"iters": method.iters, "optim": optim})
    recam = ReCamTask(second, method.weight)
    train_network(recam, again, samples, make, phase, ctx, seed=seed, title="second classifier")
    return second


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
