"""All kernels, to be tried."""

from __future__ import annotations

import torch

from wsss_cli.crf import mean_field
from wsss_cli.kernels.trials import DEPTHWISE, NORM, Check, Trial, attempt
from wsss_cli.losses import cross_entropy, gated_crf
from wsss_cli.pseudo import affinity_loss, par, walk

TRAINING = (cross_entropy.TRIAL, DEPTHWISE, NORM)  # those of `train.kernels = "fused"`
CHECKS: tuple[Check, ...] = (
    *TRAINING,
    gated_crf.TRIAL,
    affinity_loss.BOUNDARY_TRIAL,
    affinity_loss.FEATURE_TRIAL,
    walk.TRIAL,
    par.TRIAL,
    mean_field.TRIAL,
)


def try_kernels(device: torch.device) -> list[Trial]:
    """Run every kernel.

    Args:
        device: CUDA, or the CPU where Triton interprets its kernels.
    """
    return [attempt(check, device) for check in CHECKS]
