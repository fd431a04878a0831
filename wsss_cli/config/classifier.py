"""`[classifier]`: the network whose weights give CAMs, and how it is trained on image tags."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from wsss_cli.config.base import (
    AdamWConfig,
    BackboneConfig,
    Channels,
    Crop,
    Iters,
    Model,
    Optim,
    Precision,
    Rate,
    ResizedTrainingConfig,
    ResizeMax,
    ResizeMin,
)


class NoConsistencyConfig(Model):
    """The tags alone."""

    kind: Literal["none"] = "none"


class SeamErConfig(Model):
    """CAMs of an image and of its smaller copy agree (Wang et al., SEAM, CVPR 2020: the ER loss)."""

    kind: Literal["seam-er"] = "seam-er"
    scale: float = Field(0.3, gt=0.0, lt=1.0, description="size of the smaller copy, as a fraction of crop")
    weight: Rate = Field(1.0, description="weight of the equivariance loss")


class SeamConfig(Model):
    """ER, and a pixel correlation module that refines CAMs and is held to them (Wang et al., SEAM, CVPR 2020)."""

    kind: Literal["seam"] = "seam"
    scale: float = Field(0.3, gt=0.0, lt=1.0, description="size of the smaller copy, as a fraction of crop")
    weight: Rate = Field(1.0, description="weight of the equivariance loss")
    ecr_weight: Rate = Field(1.0, description="weight of the loss between refined CAMs and the CAMs of the other copy")
    hard: float = Field(0.2, gt=0.0, le=1.0, description="share of pixels, those that differ most, in the ECR loss")
    channels: Channels = Field(192, description="channels in which pixels are compared")


class PuzzleConfig(Model):
    """CAMs of four tiles, put together, agree with that of the whole image (Jo and Yu, PuzzleCAM, ICIP 2021)."""

    kind: Literal["puzzle"] = "puzzle"
    alpha: Rate = Field(4.0, description="weight of the reconstruction loss once its ramp has ended")
    ramp: float = Field(0.5, gt=0.0, le=1.0, description="share of the iterations in which the weight rises from 0")


Consistency = Annotated[
    NoConsistencyConfig | SeamErConfig | SeamConfig | PuzzleConfig,
    Field(discriminator="kind", description="what the classifier is trained with besides the tags"),
]


class ClassifierConfig(ResizedTrainingConfig):
    backbone: BackboneConfig = BackboneConfig.model_construct()
    consistency: Consistency = NoConsistencyConfig.model_construct()
    weights: str = Field(
        "", description="a trained classifier: its run, a checkpoint folder or a weight file; empty: train one"
    )
    iters: Iters = 500
    crop: Crop = 320
    resize_min: ResizeMin = 0.9
    resize_max: ResizeMax = 1.6
    optim: Optim = AdamWConfig.model_construct(lr=2e-4, head_lr_mult=10.0)
    precision: Precision = Field(
        "auto", description="of training, and of making CAMs; auto: bf16 on hardware that has it, else fp32"
    )

    @model_validator(mode="after")
    def _consistency_fits(self) -> ClassifierConfig:
        two_steps = 2 * self.backbone.output_stride
        match self.consistency:
            case PuzzleConfig() if self.crop % two_steps:
                raise ValueError(
                    f"consistency puzzle cuts the crop in four: crop {self.crop} is no multiple of {two_steps}"
                )
            case SeamErConfig(scale=scale) | SeamConfig(scale=scale) if self.crop * scale < two_steps:
                raise ValueError(
                    f"consistency {self.consistency.kind}: at scale {scale:g} the copy of a crop of {self.crop} has "
                    f"{round(self.crop * scale)} pixels a side, fewer than two steps of output_stride "
                    f"{self.backbone.output_stride}; raise scale or crop"
                )
        return self
