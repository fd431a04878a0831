"""Targets and weights of a training batch from its pseudo masks, by the methods that a preset asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_cli.config.loss import GatedCrfConfig
from wsss_cli.config.train import TrainConfig
from wsss_cli.labels import IGNORE
from wsss_cli.losses.pixels import at_size
from wsss_cli.losses.tags import within_tags
from wsss_cli.models.average import Average
from wsss_cli.noise.teacher import fill_ignored, steadiness
from wsss_cli.noise.update import IouCurves


class NoisyTargets:
    """Turns the pseudo masks of a batch into targets and pixel weights; keeps what the methods remember.

    The order: confidence turns pixels into 255 or gives them a weight; labels of classes whose curve is flat are
    replaced; the teacher fills what is 255; uncertainty multiplies the weights. Without a method a target is the mask.

    Args:
        model: the network in training: gives logits [B, K, h, w] of normalised images.
        say: told when the labels of a class begin to be corrected.
    """

    def __init__(self, model: Any, config: TrainConfig, say: Callable[[str], None] = lambda line: None) -> None:
        self.model, self.config, self.noise, self.say = model, config, config.noise, say
        self.step = 0  # iterations done
        self.teacher = Average(model, self.noise.teacher.decay) if self.noise.teacher else None
        self.sight: Tensor | None = None  # the teacher's probabilities of the batch at hand, where they serve twice
        self.curves: IouCurves | None = None
        if self.noise.update:
            device = next(model.parameters()).device
            self.curves = IouCurves(model.num_classes, self.noise.update, config.iters, device)

    def make(self, batch: dict[str, Any], x: Tensor, logits: Tensor) -> tuple[Tensor, Tensor | None]:
        """Target and weight of every pixel.

        Args:
            batch: 'mask', uint8 [B, H, W], and what `wanted` names.
            x: normalised images, float [B, 3, H, W].
            logits: the network's own in this iteration, float [B, K, h, w].
        Returns:
            (class indices or 255, int64 [B, H, W]; factor on each pixel's loss, float32 [B, H, W], or None: all 1).
        """
        target, weight = batch["mask"].long(), None
        with torch.no_grad():
            if self.noise.confidence in ("weight", "ignore"):
                target, weight = self._trusted(target, batch["confidence"])
            if self.curves is not None:
                labels = F.interpolate(batch["mask"][:, None], size=logits.shape[-2:], mode="nearest")[:, 0]
                self.curves.record(logits.argmax(1), labels)
                if self.curves.corrected.any():
                    target, weight = self._corrected(target, weight, batch, x)
            if self.noise.teacher is not None and self.step >= self.noise.teacher.start * self.config.iters:
                target, weight = self._taught(target, weight, batch, x)
        return target, weight

    def _trusted(self, target: Tensor, confidence: Tensor) -> tuple[Tensor, Tensor | None]:
        trust = confidence.float() / 255
        if self.noise.confidence == "weight":
            return target, trust
        return torch.where(trust < self.noise.min_confidence, IGNORE, target), None

    def _corrected(
        self, target: Tensor, weight: Tensor | None, batch: dict[str, Any], x: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        assert self.curves is not None
        probability = self._probability(x, batch["tags"], self.curves.config.scales)
        fresh, certainty = self.curves.replace(target, probability)
        if weight is not None:  # the confidence map speaks of the label that is gone
            weight = torch.where(fresh != target, certainty, weight)
        return fresh, weight

    def _taught(self, target: Tensor, weight: Tensor | None, batch: dict[str, Any], x: Tensor) -> tuple[Tensor, Tensor]:
        config = self.noise.teacher
        assert config is not None
        probability = self._probability(x, batch["tags"], (1.0,))
        self.sight = probability if self.noise.consistency else None
        weight = torch.ones_like(probability[:, 0]) if weight is None else weight
        valid = valid_pixels(batch["size"], *target.shape[-2:])
        target, weight = fill_ignored(
            target, weight, probability, valid, threshold=config.threshold, strength=config.weight
        )
        if self.noise.uncertainty is not None:
            weight = weight * steadiness(probability, self.noise.uncertainty.scales)
        return target, weight

    @torch.no_grad()
    def weak_view(self, batch: dict[str, Any], x: Tensor, logits: Tensor) -> Tensor:
        """Probabilities within the tags, float32 [B, K, H, W]: the teacher's, or the network's own without one.

        Args:
            batch, x, logits: as `make` had them.
        """
        sight, self.sight = self.sight, None
        if self.teacher is None:
            return within_tags(at_size(logits, batch["mask"]), batch["tags"]).softmax(1)
        return self._probability(x, batch["tags"], (1.0,)) if sight is None else sight

    def _probability(self, x: Tensor, tags: Tensor, scales: Sequence[float]) -> Tensor:
        """Probabilities within the tags, averaged over scales: the teacher's, or the network's own without one."""
        model = self.teacher.model if self.teacher else self.model
        training = model.training
        model.eval()
        total = torch.zeros((), device=x.device)
        for scale in scales:
            size = [max(round(side * scale), 1) for side in x.shape[-2:]]
            view = x if scale == 1.0 else F.interpolate(x, size=size, mode="bilinear", align_corners=False)
            logits = F.interpolate(model(view).float(), size=x.shape[-2:], mode="bilinear", align_corners=False)
            total = total + within_tags(logits, tags).softmax(1)
        model.train(training)
        return total / len(scales)

    def after_step(self, step: int) -> None:
        """The network has done `step` iterations."""
        self.step = step
        if self.teacher is not None:
            self.teacher.follow(self.model, step)
        for label in self.curves.after_step(step) if self.curves is not None else []:
            self.say(f"iteration {step}: the IoU curve of class {label} is flat; its labels are corrected from here on")

    def state(self) -> dict[str, Any]:
        """What a resumed training needs beside the network and the optimiser; empty where nothing is remembered."""
        state: dict[str, Any] = {}
        if self.teacher is not None:
            state["teacher"] = self.teacher.model.state_dict()
        if self.curves is not None:
            state["update"] = self.curves.state()
        return {"step": self.step, **state} if state else {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a `state`."""
        if self.teacher is not None:
            self.teacher.model.load_state_dict(state["teacher"])
        if self.curves is not None:
            self.curves.load_state(state["update"])
        self.step = state.get("step", 0)


def wanted(config: TrainConfig) -> frozenset[str]:
    """What a batch must hold beside 'image' and 'mask'.

    'confidence': uint8 [B, H, W], 255 = certain; 'tags': 0 or 1 [B, K], background first; 'size': rows and columns of
    each crop that are not padding, int64 [B, 2]; 'vouched': 1 where a label is one of the data set's own, uint8
    [B, H, W].
    """
    noise = config.noise
    pixels = noise.teacher is not None or noise.consistency is not None
    needs = {
        "confidence": noise.confidence != "none",
        "tags": pixels or noise.update is not None or noise.confidence == "soft",
        "size": pixels or any(isinstance(term, GatedCrfConfig) for term in config.loss),
        "vouched": noise.consistency is not None,
    }
    return frozenset(key for key, needed in needs.items() if needed)


def valid_pixels(size: Tensor, height: int, width: int) -> Tensor:
    """Bool [B, height, width]: True in as many first rows and columns of each image as `size`, int64 [B, 2], says."""
    rows = torch.arange(height, device=size.device) < size[:, :1]
    columns = torch.arange(width, device=size.device) < size[:, 1:]
    return rows[:, :, None] & columns[:, None, :]
