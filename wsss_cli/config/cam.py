"""`[cam]`: how CAMs are made from a classifier."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from wsss_cli.config.base import Fraction, Model, Positive, Rate, Scale

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
    clusters: int = Field(12, ge=1, le=65536, description="K-means clusters of a class, and of its context")
    tau: Cosine = Field(0.1, description="CAM, as a fraction of its maximum, above which a feature is of the class")
    class_score: Fraction = Field(0.9, description="softmax score above which a cluster of the class is kept")
    context_score: Fraction = Field(0.9, description="softmax score below which a cluster of the context is kept")
    images_per_class: Positive = Field(100, description="most images of a class that are clustered; drawn by the seed")


CamMethod = Annotated[
    PlainCamConfig | GradCamConfig | ReCamConfig | LpCamConfig,
    Field(discriminator="kind", description="how CAMs are made from the classifier"),
]


class CamConfig(Model):
    method: CamMethod = PlainCamConfig.model_construct()
    scales: tuple[Scale, ...] = Field(
        (1.0, 0.5, 1.5, 2.0), min_length=1, description="CAMs are summed over these image scales"
    )
    flip: bool = Field(True, description="add the mirrored view of every scale")
