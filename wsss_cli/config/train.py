"""`[train]`: the segmentation network and how it is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, model_validator

from wsss_cli.config.base import (
    RUN,
    Added,
    BackboneConfig,
    Fraction,
    Interval,
    Model,
    Optim,
    Positive,
    Scale,
    SgdConfig,
    Side,
    TrainingConfig,
)
from wsss_cli.config.heads import AuxConfig, DeepLabConfig, Head
from wsss_cli.config.loss import CrossEntropyConfig, GatedCrfConfig, Loss, LovaszConfig
from wsss_cli.config.noise import NoiseConfig


class AugmentConfig(Model):
    scale_min: Scale = Field(0.5, description="smallest random resize ratio")
    scale_max: Scale = Field(2.0, description="largest random resize ratio")
    base_long: Side = Field(2048, description="long side at ratio 1, before keeping the aspect ratio")
    base_short: Side = Field(512, description="short side at ratio 1, before keeping the aspect ratio")
    cat_max_ratio: Fraction = Field(0.75, description="re-draw crops in which one class holds more than this share")
    flip: Fraction = Field(0.5, description="probability of a horizontal flip")
    photometric: bool = Field(True, description="random brightness, contrast, saturation and hue")

    @model_validator(mode="after")
    def _ordered(self) -> AugmentConfig:
        if self.scale_min > self.scale_max:
            raise ValueError(f"scale_min {self.scale_min:g} is above scale_max {self.scale_max:g}")
        return self


class TrainConfig(TrainingConfig):
    supervision: Literal["weak", "mixed", "partial", "full"] = Field(
        "weak",
        description="weak: pseudo masks of an earlier stage; mixed: these, and in their place the labels that the data "
        "set has of its own (wsss prepare labels); partial: the latter alone; full: the masks of the data set",
    )
    trusted_share: Annotated[Fraction, Added(neutral=0.0)] = Field(
        0.0,
        description="with supervision = 'mixed': share of the samples that have whole masks of the data set, at least; "
        "they are repeated. 0: as many as there are",
    )
    backbone: BackboneConfig = BackboneConfig.model_construct()
    head: Head = DeepLabConfig.model_construct()
    aux: AuxConfig = AuxConfig.model_construct()
    init: str = Field("", description="train run, checkpoint or imported directory whose network to start from")
    reset_head: bool = Field(False, description="with init: keep all but the classifiers, and draw those anew")
    iters: Positive = Field(20000, description="training iterations; the schedule follows")
    augment: AugmentConfig = AugmentConfig.model_construct()
    optim: Optim = SgdConfig.model_construct()
    loss: tuple[Loss, ...] = Field(
        (CrossEntropyConfig.model_construct(),),
        min_length=1,
        description="terms that are added up; the auxiliary head has those of kind cross-entropy",
    )
    noise: NoiseConfig = Field(
        NoiseConfig.model_construct(), description="what training does about noisy pseudo masks; nothing by default"
    )
    compile: bool = Field(False, description="torch.compile the network")
    channels_last: bool = Field(True, description="NHWC memory layout")
    kernels: Literal["auto", "plain", "fused"] = Field(
        "auto",
        description="fused: own kernels for batch norm, depthwise convolution, cross-entropy and gated CRF; CUDA only, "
        "a step of R50-D8 is 1.8 times as fast on an H100 and an H200. The result is the same within rounding. auto: "
        "fused where that can be, else plain",
    )
    val_interval: int = Field(
        2000, ge=0, le=10**9, description="iterations between validations, of which the last is at the end; 0: none"
    )
    val_images: int = Field(0, ge=0, le=10**9, description="images of periodic validations, evenly spaced; 0: all")
    checkpoint_interval: Interval = 2000
    ema: Annotated[float, Added(neutral=0.0)] = Field(
        0.0,
        ge=0.0,
        lt=1.0,
        description="share that a moving average of the weights keeps in an iteration, 0.999 say; the average is "
        "scored, exported and used; 0: none",
    )
    patience: Annotated[int, Added(neutral=0)] = Field(
        0,
        ge=0,
        le=10**9,
        description="validations in a row without a better mIoU after which training ends; 0: it goes on to iters",
    )

    @property
    def on_pseudo_masks(self) -> bool:
        """Whether the first round learns from pseudo masks."""
        return self.supervision in ("weak", "mixed")

    @model_validator(mode="after")
    def _patience_has_scores(self) -> TrainConfig:
        if self.patience and not self.val_interval:
            raise ValueError("patience counts validations, and val_interval is 0: there are none; set val_interval")
        return self

    @model_validator(mode="after")
    def _trusted_is_mixed(self) -> TrainConfig:
        if self.trusted_share and self.supervision != "mixed":
            raise ValueError("trusted_share is for supervision = 'mixed'")
        return self

    @model_validator(mode="after")
    def _noise_fits(self) -> TrainConfig:
        self.noise.check(self.supervision, self.iters)
        return self

    @model_validator(mode="after")
    def _loss_fits(self) -> TrainConfig:
        if self.aux.weight > 0 and not any(isinstance(term, CrossEntropyConfig) for term in self.loss):
            raise ValueError(
                "loss has no term of kind cross-entropy, by which the auxiliary head learns; add one, "
                "or set aux.weight = 0"
            )
        entropies = [term for term in self.loss if isinstance(term, CrossEntropyConfig)]
        if self.noise.confidence == "soft" and any(
            term.balance != "none" or term.class_weights or term.ohem for term in entropies
        ):
            raise ValueError(
                "noise.confidence = 'soft' has a cross-entropy of its own, without balance, class_weights and ohem; "
                "leave them out"
            )
        if any(isinstance(term, LovaszConfig) for term in self.loss) and (source := self.noise.weighs):
            raise ValueError(
                f"loss lovasz ranks pixels and takes no weights, and {source} gives them weights; take dice"
            )
        return self

    @model_validator(mode="after")
    def _pairs_in_crop(self, info: ValidationInfo) -> TrainConfig:
        for term in self.loss:
            if isinstance(term, GatedCrfConfig) and self.crop < 2 * term.stride and info.context != RUN:
                raise ValueError(
                    f"loss gated-crf compares pixels {term.stride} apart (its stride), and crop is {self.crop}: there "
                    "are no two; raise crop or lower the stride"
                )
        return self

    @model_validator(mode="after")
    def _batch_fits(self) -> TrainConfig:
        if self.head.pools and self.batch // self.accumulate < 2:
            parts = f" in {self.accumulate} parts" if self.accumulate > 1 else ""
            raise ValueError(
                f"batch is {self.batch}{parts}, and batch norm of the pooled branch of {self.head.kind} needs at"
                f" least 2 images at once; set batch = {2 * self.accumulate}{', or lower accumulate' if parts else ''}"
            )
        return self

    @model_validator(mode="after")
    def _kernels_fit(self) -> TrainConfig:
        if self.kernels == "fused" and (self.compile or not self.channels_last):
            raise ValueError("kernels = 'fused' needs channels_last = true and compile = false")
        return self

    @model_validator(mode="after")
    def _reset_what(self) -> TrainConfig:
        if self.reset_head and not self.init:
            raise ValueError("reset_head is for a network that training starts from; name it with init (--init DIR)")
        return self
