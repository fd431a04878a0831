"""A trained network for other programs: `from wsss_cli import load_segmentor`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wsss_cli.config.base import Precision
from wsss_cli.engine.context import Context, pick_device
from wsss_cli.errors import UsageError
from wsss_cli.inference.network import Network, load_network
from wsss_cli.inference.predict import predict
from wsss_cli.models.segmentor import Segmentor


@dataclass
class Predictor:
    """A trained segmentation network.

    Attributes:
        network: the network with its preset, classes and colours.
    """

    network: Network
    ctx: Context
    precision: Precision

    @property
    def model(self) -> Segmentor:
        """The network itself, in evaluation mode."""
        return self.network.model

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; the position is the value in a mask."""
        return self.network.classes

    @torch.no_grad()
    def logits(self, x: Tensor) -> Tensor:
        """Logits at the stride of the head.

        Args:
            x: normalised float images [B, 3, H, W] on any device (`self.model.backbone.normalise` makes them of RGB in
                0..255).
        Returns:
            float32 [B, K, h, w] on the network's device; h and w are H and W over that stride, rounded up.
        """
        self.model.eval()
        with self.ctx.autocast(self.precision):
            logits: Tensor = self.model(x.to(self.ctx.device)).float()
            return logits

    def predict(self, image: np.ndarray, ms_flip: bool = False) -> np.ndarray:
        """The mask of one photograph, as `wsss infer` makes it at the same precision.

        Args:
            image: RGB, uint8 [H, W, 3].
            ms_flip: average over the preset's scales, mirrored too.
        Returns:
            Class indices, uint8 [H, W].
        Raises:
            UsageError: the image is of another type or shape.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise UsageError(f"an RGB image, uint8 [H, W, 3], is needed, not {image.dtype} {list(image.shape)}")
        config = self.network.preset.eval
        labels = predict(self.model, [image], config, self.ctx, self.precision, single=not ms_flip, ms_flip=ms_flip)
        mask: np.ndarray = labels["ms_flip" if ms_flip else "single"][0]
        return mask


def load_segmentor(path: str | Path, device: str = "cpu", *, precision: Precision = "fp32") -> Predictor:
    """Open a trained network.

    Args:
        path: a train run directory (its last checkpoint is taken), a folder in its checkpoints/, or a directory that
            `wsss weights import-mmseg` or `publish` has written.
        device: 'cpu', 'cuda', 'cuda:N', or 'auto'.
        precision: 'fp32'; 'bf16'; 'auto' takes bf16 where the hardware has it, as `wsss infer` does by default.
    Raises:
        UsageError: no such directory, or no such device.
        WeightsError: a file is damaged.
    """
    ctx = Context(pick_device(device), Path(path).parent)
    return Predictor(load_network(Path(path), ctx), ctx, precision)
