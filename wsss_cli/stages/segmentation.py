"""What a segmentation network learns: cross-entropy on masks, an auxiliary head, and what is done about noise."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from wsss_cli.config.train import TrainConfig
from wsss_cli.engine.fit import Task
from wsss_cli.losses import segmentation_loss
from wsss_cli.models.segmentor import Segmentor
from wsss_cli.noise.gated_crf import gated_crf_loss
from wsss_cli.noise.targets import NoisyTargets, valid_pixels


class SegmentationTask(Task):
    """Cross-entropy on masks, with an auxiliary head, and what the preset does about noise in the masks.

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
        self.val_interval = config.val_interval
        self.forward: Callable[..., Any] = torch.compile(model.forward) if config.compile else model.forward
        self.targets = NoisyTargets(model, config, say)

    def losses(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        x = self.model.backbone.normalise(batch["image"].permute(0, 3, 1, 2))
        logits, aux = self.forward(x, aux=True)
        noise, average = self.config.noise, self.config.loss_average
        target, weight = self.targets.make(batch, x, logits.detach())
        loss = partial(
            segmentation_loss,
            target=target,
            average=average,
            weight=weight,
            balance=noise.balance,
            kernels=self.config.kernels,
        )
        losses = {"decode": loss(logits)}
        if aux is not None:
            losses["aux"] = self.config.aux.weight * loss(aux)
        if noise.gated_crf is not None:
            valid = valid_pixels(batch["size"], *target.shape[-2:])
            losses["gated_crf"] = gated_crf_loss(logits, batch["image"], valid, noise.gated_crf, average)
        return losses

    def evaluate(self) -> dict[str, float]:
        return self.validate(self.model)

    def after_step(self, step: int) -> None:
        self.targets.after_step(step)

    def state(self) -> dict[str, Any]:
        return self.targets.state()

    def load_state(self, state: dict[str, Any]) -> None:
        self.targets.load_state(state)
