"""What a segmentation network learns: the terms of `[[train.loss]]` on masks, after what is done about noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from wsss_cli.config.loss import CrossEntropyConfig, DiceConfig, FocalConfig, GatedCrfConfig, LovaszConfig
from wsss_cli.config.train import TrainConfig
from wsss_cli.engine.fit import Scores, Task
from wsss_cli.losses.collision import collision_cross_entropy
from wsss_cli.losses.cross_entropy import cross_entropy
from wsss_cli.losses.dice import dice_loss
from wsss_cli.losses.focal import focal_loss
from wsss_cli.losses.gated_crf import gated_crf_loss
from wsss_cli.losses.lovasz import lovasz_loss
from wsss_cli.models.average import Average
from wsss_cli.models.segmentor import Segmentor
from wsss_cli.noise.consistency import Consistency
from wsss_cli.noise.targets import NoisyTargets, valid_pixels


class SegmentationTask(Task):
    """The terms of the preset's loss, on masks and on what the preset does about noise in them.

    Logged are `decode`, the terms of kind cross-entropy; `aux`, the same terms of the auxiliary head, which has no
    others; each other kind by its name; and `consistency`, the term of `[train.noise.consistency]`.

    Args:
        say: told what the methods against noise have to say.
    """

    model: Segmentor

    def __init__(
        self,
        model: Segmentor,
        config: TrainConfig,
        validate: Any,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.model, self.config, self.validate = model, config, validate
        self.val_interval, self.patience = config.val_interval, config.patience
        # 'auto' is one of these by now
        self.kernels: Literal["plain", "fused"] = "fused" if config.kernels == "fused" else "plain"
        self.averaging = Average(model, config.ema) if config.ema else None
        self.forward: Callable[..., Any] = torch.compile(model.forward) if config.compile else model.forward
        self.targets = NoisyTargets(model, config, say)
        views = config.noise.consistency
        self.consistency = Consistency(views, model.backbone.channels) if views else None

    def losses(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        x = self._normalised(batch["image"])
        factors = self.consistency.factors(batch) if self.consistency else None
        if factors is None:
            (logits, aux), perturbed = self.forward(x, aux=True), None
        else:
            logits, aux, perturbed = self.forward(x, aux=True, factors=factors)
        target, weight = self.targets.make(batch, x, logits.detach())
        losses: dict[str, Tensor] = {}

        def add(name: str, loss: Tensor) -> None:
            losses[name] = losses[name] + loss if name in losses else loss

        entropies = [term for term in self.config.loss if isinstance(term, CrossEntropyConfig)]
        for term in entropies:
            add("decode", term.weight * self._cross_entropy(term, logits, target, weight, batch))
        for term in entropies if aux is not None else ():
            add("aux", self.config.aux.weight * (term.weight * self._cross_entropy(term, aux, target, weight, batch)))
        for other in self.config.loss:
            match other:
                case FocalConfig(gamma=gamma, average=average):
                    add("focal", other.weight * focal_loss(logits, target, gamma, average, weight=weight))
                case DiceConfig(per_class=per_class):
                    add("dice", other.weight * dice_loss(logits, target, per_class, weight=weight))
                case LovaszConfig(per_image=per_image):
                    add("lovasz", other.weight * lovasz_loss(logits, target, per_image))
                case GatedCrfConfig():
                    valid = valid_pixels(batch["size"], *target.shape[-2:])
                    loss = gated_crf_loss(logits, batch["image"], valid, other, self.kernels)
                    add("gated_crf", loss)
        if self.consistency:
            probability = self.targets.weak_view(batch, x, logits.detach())
            add("consistency", self.consistency.loss(batch, probability, perturbed, self._logits))
        return losses

    def _normalised(self, image: Tensor) -> Tensor:
        x: Tensor = self.model.backbone.normalise(image.permute(0, 3, 1, 2))
        return x

    def _logits(self, image: Tensor) -> Tensor:
        logits: Tensor = self.forward(self._normalised(image))
        return logits

    def _cross_entropy(
        self,
        term: CrossEntropyConfig,
        logits: Tensor,
        target: Tensor,
        weight: Tensor | None,
        batch: dict[str, Any],
    ) -> Tensor:
        if self.config.noise.confidence == "soft":
            certainty = batch["confidence"].float() / 255
            return collision_cross_entropy(logits, target, certainty, batch["tags"], term.average)
        return cross_entropy(
            logits,
            target,
            term.average,
            weight=weight,
            balance=term.balance,
            class_weights=term.class_weights,
            ohem=term.ohem,
            kernels=self.kernels,
        )

    def evaluate(self) -> Scores:
        scores: Scores = self.validate(self.averaging.model if self.averaging else self.model)
        return scores

    def after_step(self, step: int) -> None:
        self.targets.after_step(step)
        if self.averaging:
            self.averaging.follow(self.model, step)

    def average(self) -> nn.Module | None:
        return self.averaging.model if self.averaging else None

    def state(self) -> dict[str, Any]:
        return self.targets.state()

    def load_state(self, state: dict[str, Any]) -> None:
        self.targets.load_state(state)
