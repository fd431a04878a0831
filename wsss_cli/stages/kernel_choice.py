"""Own kernels: whether those that a setting asks for can run here, and what 'auto' means. No torch here."""

from __future__ import annotations

from typing import Literal

from wsss_cli.config.train import TrainConfig
from wsss_cli.errors import UsageError
from wsss_cli.kernels.choice import chosen_kernels, why_no_kernels
from wsss_cli.ranks.who import here


def check_kernels(config: TrainConfig, device: str, ranks: int = 0) -> None:
    """Refuse kernels that cannot run here.

    Args:
        device: its type, 'cpu' or 'cuda'.
        ranks: that there will be; 0: those that there are.
    Raises:
        UsageError: fused kernels on a device without CUDA, without Triton, or on several ranks whose batch norm is one.
    """
    if config.kernels == "fused" and (ranks or here().world) > 1 and config.sync_bn:
        raise UsageError(
            "train.kernels is 'fused': its batch norm sees the images of one rank",
            "--set train.kernels=plain, or --set train.sync_bn=false if that is meant",
        )
    check_fused("train.kernels", config.kernels, device)


def check_fused(setting: str, kernels: str, device: str) -> None:
    """Refuse a setting of `kernels` that is 'fused' where none can run.

    Raises:
        UsageError: the device is not CUDA, or there is no Triton.
    """
    if kernels == "fused" and (fault := why_no_kernels(device)):
        raise UsageError(f"{setting} is 'fused': {fault}", f"--set {setting}=plain")


def training_kernels(config: TrainConfig, device: str) -> Literal["plain", "fused"]:
    """As `chosen_kernels`, of a training: 'auto' is 'plain', too, where its other settings do without such kernels."""
    without = config.compile or not config.channels_last or (config.sync_bn and here().world > 1)
    return "plain" if config.kernels == "auto" and without else chosen_kernels(config.kernels, device)
