"""How CAMs are made (`cam.method`) and what their classifier is trained with besides the tags (`cam.consistency`)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from wsss_cli.config.base import Fraction, Model, Positive, Rate

Cosine = Annotated[float, Field(ge=0.0, lt=1.0)]


class PlainCamConfig(Model):
    """Class weights applied to the last feature map (Zhou et al., CVPR 2016)."""

    kind: Literal["cam"] = "cam"


class GradCamConfig(Model):
    """Maps weighted by the mean gradient of a class score (Selvaraju et al., ICCV 2017)."""

    kind: Literal["gradcam"] = "gradcam"
    layer: str = Field(
        "", description="module of the backbone, in timm's dotted names (layer4.1, blocks.11.norm1); empty: last map"
    )


class ReCamConfig(Model):
    """A second classifier, trained with softmax, sharpens the weights of the first (Chen et al., CVPR 2022)."""

    kind: Literal["recam"] = "recam"
    iters: Positive = Field(400, description="training iterations of the second phase")
    lr: Rate = Field(5e-4, description="learning rate of the second classifier; all else learns at a tenth of it")
    weight: Rate = Field(1.0, description="weight of the softmax cross-entropy beside the loss of the tags")


class LpCamConfig(Model):
    """Similarity to local prototypes of a class, less that to its context (Chen and Sun, CVPR 2023)."""

    kind: Literal["lpcam"] = "lpcam"
    clusters: Positive = Field(12, description="K-means clusters of a class, and of its context")
    tau: Cosine = Field(0.1, description="CAM, as a fraction of its maximum, above which a feature is of the class")
    class_score: Fraction = Field(0.9, description="softmax score above which a cluster of the class is kept")
    context_score: Fraction = Field(0.9, description="softmax score below which a cluster of the context is kept")
    images_per_class: Positive = Field(100, description="most images of a class that are clustered; drawn by the seed")


CamMethod = Annotated[
    PlainCamConfig | GradCamConfig | ReCamConfig | LpCamConfig,
    Field(discriminator="kind", description="how CAMs are made from the classifier"),
]


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
    channels: Positive = Field(192, description="channels in which pixels are compared")


class PuzzleConfig(Model):
    """CAMs of four tiles, put together, agree with that of the whole image (Jo and Yu, PuzzleCAM, ICIP 2021)."""

    kind: Literal["puzzle"] = "puzzle"
    alpha: Rate = Field(4.0, description="weight of the reconstruction loss once its ramp has ended")
    ramp: float = Field(0.5, gt=0.0, le=1.0, description="share of the iterations in which the weight rises from 0")


Consistency = Annotated[
    NoConsistencyConfig | SeamErConfig | SeamConfig | PuzzleConfig,
    Field(discriminator="kind", description="what the classifier is trained with besides the tags"),
]


def cam_fault(method: CamMethod, consistency: Consistency, crop: int, output_stride: int) -> str:
    """Why settings of `cam` do not go together; empty where they do."""
    match consistency:
        case PuzzleConfig() if crop % (2 * output_stride):
            return f"consistency puzzle cuts the crop in four: crop {crop} is no multiple of {2 * output_stride}"
        case SeamErConfig() | SeamConfig() if crop * consistency.scale < 2 * output_stride:
            smaller = round(crop * consistency.scale)
            return (
                f"consistency {consistency.kind}: at scale {consistency.scale:g} the copy of a crop of {crop} has "
                f"{smaller} pixels a side, fewer than two steps of output_stride {output_stride}; raise scale or crop"
            )
        case SeamConfig() if method.kind != "cam":
            return (
                f"consistency seam refines plain CAMs by the module that it trains, which method {method.kind} would "
                "leave out; take consistency seam-er, or method cam"
            )
    return ""
