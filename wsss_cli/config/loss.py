"""`[[train.loss]]`: the terms of a segmentation network's loss."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from wsss_cli.config.base import Model, Positive, Rate

Weight = Annotated[float, Field(gt=0.0, le=1e9, description="factor on this term")]
Average = Annotated[
    Literal["all", "valid"],
    Field(description="divide by all pixels (as MMSegmentation does) or by those that are not 255"),
]


class OhemConfig(Model):
    """Online hard example mining, as MMSegmentation's `OHEMPixelSampler`."""

    thresh: float | None = Field(
        None,
        gt=0.0,
        lt=1.0,
        description="hard is a pixel whose class has a probability below this; left out: rank by loss",
    )
    min_kept: Positive = Field(100_000, description="pixels that are hard at least, times the images of the batch")


class CrossEntropyConfig(Model):
    kind: Literal["cross-entropy"] = "cross-entropy"
    weight: Weight = 1.0
    average: Average = "all"
    balance: Literal["none", "fg-bg"] = Field(
        "none", description="fg-bg: half the mean loss of background pixels and half that of object pixels"
    )
    class_weights: tuple[Annotated[float, Field(ge=0.0, le=1e9)], ...] = Field(
        (), description="factors on the pixels of the classes, background first; empty: all 1"
    )
    ohem: OhemConfig | None = Field(None, description="only the hardest pixels have a loss; {} takes the defaults")

    @model_validator(mode="after")
    def _weigh_once(self) -> CrossEntropyConfig:
        if self.balance != "none" and (self.class_weights or self.ohem):
            other = "class_weights" if self.class_weights else "ohem"
            raise ValueError(f"balance '{self.balance}' and {other} both say how much a class counts; take one of them")
        if self.class_weights and not any(self.class_weights):
            raise ValueError("class_weights are all 0")
        return self


class FocalConfig(Model):
    """Cross-entropy in which a pixel counts less the better it is classified (Lin et al., ICCV 2017), by softmax."""

    kind: Literal["focal"] = "focal"
    weight: Weight = 1.0
    average: Average = "all"
    gamma: float = Field(2.0, ge=0.0, le=1e9, description="how much less; 0 is the cross-entropy")


class DiceConfig(Model):
    """One less the overlap of probabilities and labels (Milletari et al., 3DV 2016)."""

    kind: Literal["dice"] = "dice"
    weight: Weight = 1.0
    per_class: bool = Field(False, description="mean over an image's classes, in place of one Dice over all of them")


class LovaszConfig(Model):
    """A surrogate of 1 - IoU (Berman et al., CVPR 2018), over the classes that are present."""

    kind: Literal["lovasz"] = "lovasz"
    weight: Weight = 1.0
    per_image: bool = Field(False, description="of each image alone, in place of the whole batch")


class GatedCrfConfig(Model):
    """Neighbours of like colour agree, also where the mask is 255 (Obukhov et al., 2019)."""

    kind: Literal["gated-crf"] = "gated-crf"
    weight: Weight = 0.1
    average: Average = "all"
    radius: int = Field(5, ge=1, le=20, description="half side of the window of pairs, pixels of the reduced map")
    sxy: Rate = Field(6.0, description="kernel: standard deviation in space, pixels of the reduced map")
    srgb: Rate = Field(25.5, description="kernel: standard deviation in colour, 0..255 units")
    stride: int = Field(4, ge=1, le=1024, description="crop pixels per pixel of the reduced map")


Loss = Annotated[
    CrossEntropyConfig | FocalConfig | DiceConfig | LovaszConfig | GatedCrfConfig, Field(discriminator="kind")
]
