"""Settings of the affinity networks (IRN, PSA) and of the random walks that use them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from wsss_cli.config.base import (
    Added,
    BackboneConfig,
    Batch,
    CrfConfig,
    Crop,
    Model,
    Optim,
    Passes,
    Positive,
    Rate,
    ResizedTrainingConfig,
    ResizeMax,
    ResizeMin,
    SgdConfig,
    Workers,
)
from wsss_cli.config.thresholds import FixedThreshold, IrnThreshold

Kernels = Annotated[
    Literal["auto", "plain", "fused"],
    Added(neutral="auto"),
    Field(
        description="fused: an own kernel for the loss; CUDA only, on an H100 25 to 220 times as "
        "fast. The result is the same within rounding. auto: fused where that can be, else plain"
    ),
]


class IrnWalk(Model):
    """Spread CAM scores along IRN's affinities; needs `[affinity.irn]`."""

    kind: Literal["irn-walk"] = "irn-walk"
    radius: int = Field(5, ge=2, le=32, description="steps of the walk are shorter than this, stride-4 pixels")
    beta: Rate = Field(10.0, description="exponent of the affinities: a higher one keeps the walk from weak steps")
    iterations: Passes = Field(256, description="steps of the walk")


class PsaWalk(Model):
    """Spread CAM scores and a background score along PSA's affinities; needs `[affinity.psa]`."""

    kind: Literal["psa-walk"] = "psa-walk"
    radius: int = Field(5, ge=2, le=32, description="steps of the walk are shorter than this, stride-8 pixels")
    beta: Rate = Field(8.0, description="exponent of the affinities: a higher one keeps the walk from weak steps")
    iterations: Passes = Field(256, description="steps of the walk")
    alpha: Rate = Field(16.0, description="background score (1 - highest CAM)^alpha: a higher one means less of it")


def needs(step: IrnWalk | PsaWalk) -> Literal["irn", "psa"]:
    """The table of `[affinity]` whose network a step uses."""
    return "irn" if isinstance(step, IrnWalk) else "psa"


class IrnConfig(ResizedTrainingConfig):
    """Training of IRN's boundary network. A backbone as loaded gives the features; only the boundary branch learns."""

    threshold: IrnThreshold = FixedThreshold.model_construct()
    gt_prob: float = Field(0.7, gt=0.0, lt=1.0, description="trust of the label CRF in its input labels")
    crf: CrfConfig = CrfConfig.model_construct()
    backbone: BackboneConfig = BackboneConfig.model_construct()
    radius: int = Field(10, ge=2, le=32, description="pairs in training are closer than this, stride-4 pixels")
    iters: Positive = Field(992, description="training iterations; 992 are 3 epochs of 10582 images")
    batch: Batch = 32
    crop: Crop = 512
    resize_min: ResizeMin = 0.5
    resize_max: ResizeMax = 1.5
    optim: Optim = SgdConfig.model_construct(lr=0.1, momentum=0.0, weight_decay=1e-4)
    label_workers: Workers = Field(0, description="worker processes that make the labels; 0: one for each core")
    kernels: Kernels = "auto"


class PsaConfig(ResizedTrainingConfig):
    """Training of PSA's AffinityNet. The backbone learns too, as far as `backbone.frozen_stages` lets it."""

    alpha_low: Rate = Field(
        4.0, description="a pixel that is an object at background (1 - CAM)^alpha_low surely is one"
    )
    alpha_high: Rate = Field(
        32.0, description="a pixel that is background at background (1 - CAM)^alpha_high surely is background"
    )
    crf: CrfConfig = CrfConfig.model_construct(bilateral_sxy=80.0, bilateral_srgb=13.0)
    backbone: BackboneConfig = BackboneConfig.model_construct(output_stride=8)
    radius: int = Field(5, ge=2, le=32, description="pairs in training are closer than this, stride-8 pixels")
    iters: Positive = Field(10582, description="training iterations; 10582 are 8 epochs of 10582 images")
    batch: Batch = 8
    crop: Crop = 448
    resize_min: ResizeMin = 1.1
    resize_max: ResizeMax = 1.1
    optim: Optim = SgdConfig.model_construct(lr=0.1, head_lr_mult=10.0, momentum=0.0, weight_decay=5e-4)
    label_workers: Workers = Field(0, description="worker processes that make the labels; 0: one for each core")
    kernels: Kernels = "auto"

    @model_validator(mode="after")
    def _ordered(self) -> PsaConfig:
        if self.alpha_high < self.alpha_low:
            raise ValueError(f"alpha_high {self.alpha_high} is below alpha_low {self.alpha_low}")
        return self


class AffinityConfig(Model):
    """Networks that say which neighbouring pixels belong together; a table that is left out is not trained."""

    irn: IrnConfig | None = Field(None, description="IRN's boundary network, for steps of kind irn-walk")
    psa: PsaConfig | None = Field(None, description="PSA's AffinityNet, for steps of kind psa-walk")
