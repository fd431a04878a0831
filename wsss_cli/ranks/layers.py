"""Layers that do on N ranks what they do on one: batch norm over the global batch, dropout by place in it."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from timm.layers.norm_act import BatchNormAct2d, convert_sync_batchnorm
from torch import Tensor, nn

from wsss_cli.ranks.sums import alone, total_with_gradient
from wsss_cli.ranks.who import here


def spread(model: nn.Module, device: torch.device, batch: int, *, sync_bn: bool) -> nn.Module:
    """Make a network's layers see the global batch; names and parameters stay as they are.

    Args:
        batch: images of the global batch (of a part of it, where gradients are accumulated).
        sync_bn: batch norm takes its statistics over all ranks.
    Returns:
        The network; on CUDA its batch norms are torch's SyncBatchNorm, on a CPU the ones below.
    """
    for module in model.modules():
        if type(module) is nn.Dropout2d:
            module.__class__ = PlacedDropout2d
            module.batch = batch  # type: ignore[assignment]
        elif sync_bn and device.type != "cuda":
            if type(module) is nn.BatchNorm2d:
                module.__class__ = GlobalBatchNorm2d
            elif type(module) is BatchNormAct2d:
                module.__class__ = GlobalBatchNormAct2d
    if sync_bn and device.type == "cuda":
        synced: nn.Module = convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return synced
    return model


def same_statistics(model: nn.Module) -> None:
    """Give all ranks the first one's statistics of batch norm, which are those that are saved.

    They differ where each rank keeps to its own images. What is trained does not depend on them.
    """
    if not alone():
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


class PlacedDropout2d(nn.Dropout2d):
    """Dropout of channels that draws for the whole global batch, so that an image's channels do not depend on ranks."""

    batch: int

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return x
        part = here().part(self.batch)
        assert len(part) == len(x), (len(part), len(x))
        noise = x.new_empty((self.batch, x.shape[1], 1, 1)).bernoulli_(1 - self.p).div_(1 - self.p)
        return x * noise[part.start : part.stop]


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose statistics in training are those of all ranks' images; sums are differentiable."""

    def forward(self, x: Tensor) -> Tensor:
        return _global_norm(self, x) if self.training else super().forward(x)


class GlobalBatchNormAct2d(BatchNormAct2d):
    """The same for timm's batch norm with an activation."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            plain: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
            return plain
        y: Tensor = self.act(self.drop(_global_norm(self, x)))
        return y


def _global_norm(norm: Any, x: Tensor) -> Tensor:
    over = (0, 2, 3)
    values = x.float()
    count = total_with_gradient(values.new_tensor(values.numel() / values.shape[1]))
    mean = total_with_gradient(values.sum(over)) / count
    centred = values - mean[:, None, None]
    variance = total_with_gradient(centred.square().sum(over)) / count
    if norm.track_running_stats:
        with torch.no_grad():
            norm.num_batches_tracked += 1
            rate = norm.momentum if norm.momentum is not None else 1.0 / float(norm.num_batches_tracked)
            norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), rate)
            unbiased = variance * (count / (count - 1).clamp(min=1))
            norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), rate)
    y = centred * torch.rsqrt(variance + norm.eps)[:, None, None]
    if norm.affine:
        y = y * norm.weight[:, None, None] + norm.bias[:, None, None]
    return y.to(x.dtype)
