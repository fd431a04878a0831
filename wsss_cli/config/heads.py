"""`[train.head]`, `[train.aux]`: what makes class scores of the backbone's maps."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field

from wsss_cli.config.base import Channels, Dilation, Fraction, Model

Cells = Annotated[int, Field(ge=1, le=256)]
_DROPOUT = "channel dropout before each classifier"


class DeepLabConfig(Model):
    title: ClassVar[str] = "DeepLabV3+"
    pools: ClassVar[bool] = True
    kind: Literal["deeplabv3plus"] = "deeplabv3plus"
    aspp_channels: Channels = Field(512, description="channels of the ASPP branches and the decoder")
    low_channels: Channels = Field(48, description="channels kept of the stride-4 features")
    dilations: tuple[Dilation, ...] = Field(
        (1, 12, 24, 36), min_length=1, description="ASPP dilations; 1 is a 1x1 convolution"
    )
    dropout: Fraction = Field(0.1, description=_DROPOUT)


class FcnConfig(Model):
    title: ClassVar[str] = "FCN"
    pools: ClassVar[bool] = False
    kind: Literal["fcn"] = "fcn"
    channels: Channels = Field(512, description="channels of the convolutions")
    convs: int = Field(2, ge=1, le=64, description="3x3 convolutions on the last features")
    concat: bool = Field(True, description="one more convolution, which sees the last features and what became of them")
    dropout: Fraction = Field(0.1, description=_DROPOUT)


class SegFormerConfig(Model):
    title: ClassVar[str] = "SegFormer"
    pools: ClassVar[bool] = False
    kind: Literal["segformer"] = "segformer"
    channels: Channels = Field(256, description="channels to which every map is brought")
    dropout: Fraction = Field(0.1, description=_DROPOUT)


class UPerNetConfig(Model):
    title: ClassVar[str] = "UPerNet"
    pools: ClassVar[bool] = True
    kind: Literal["upernet"] = "upernet"
    channels: Channels = Field(512, description="channels of every map in the head")
    pool_scales: tuple[Cells, ...] = Field(
        (1, 2, 3, 6), min_length=1, description="cells on a side of the last map's averages"
    )
    dropout: Fraction = Field(0.1, description=_DROPOUT)


Head = Annotated[DeepLabConfig | FcnConfig | SegFormerConfig | UPerNetConfig, Field(discriminator="kind")]
"""A variant has two facts beside its settings: `title`, its name in tables, and `pools`: a batch norm in it sees one
value for each image, so that a batch of one cannot be trained on."""

TITLES: dict[str, str] = {
    variant.model_fields["kind"].default: variant.title for variant in get_args(get_args(Head)[0])
}
"""Names of the heads by their kind."""


class AuxConfig(Model):
    weight: float = Field(
        0.4, ge=0.0, le=1e9, description="weight of the auxiliary FCN head's loss; 0: there is no such head"
    )
    channels: int = Field(
        0, ge=0, le=8192, description="channels of its convolution; 0: a quarter of its map's, at least 64"
    )
