"""Where the two background thresholds come from: given as scores, or as offsets from one that is looked for."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from wsss_cli.config.base import Fraction, Model


class FixedThreshold(Model):
    """Both thresholds as given."""

    kind: Literal["fixed"] = "fixed"
    fg: Fraction = Field(0.30, description="CAM score above which a pixel is surely object")
    bg: Fraction = Field(0.05, description="CAM score below which a pixel is surely background")

    @model_validator(mode="after")
    def _ordered(self) -> FixedThreshold:
        if self.fg < self.bg:
            raise ValueError(f"fg {self.fg} is below bg {self.bg}")
        return self


class Offsets(Model):
    """How far the thresholds lie from the background threshold that is best."""

    kind: str
    fg_offset: float = Field(
        0.0, ge=-1.0, le=1.0, description="how far above the best threshold a score is surely object"
    )
    bg_offset: float = Field(0.0, ge=-1.0, le=1.0, description="likewise the score below which is surely background")

    @model_validator(mode="after")
    def _ordered(self) -> Offsets:
        if self.fg_offset < self.bg_offset:
            raise ValueError(f"fg_offset {self.fg_offset} is below bg_offset {self.bg_offset}")
        return self


class CurveThreshold(Offsets):
    """From the threshold with the best mIoU on dataset.score, which must have masks."""

    kind: Literal["train-curve"] = "train-curve"


class ClassCurveThreshold(CurveThreshold):
    """From the threshold with the best mIoU on dataset.score, which must have masks; or with each class's best IoU."""

    per_class: bool = Field(False, description="a background threshold for each class")


class SelfThreshold(Offsets):
    """From a threshold that is found from the scores alone, by Otsu's rule."""

    kind: Literal["self"] = "self"
    per_class: bool = Field(False, description="a background threshold for each class")


class TrustedThreshold(Offsets):
    """From the threshold with the best mIoU on the data set's own labels; with train.supervision = "mixed"."""

    kind: Literal["trusted"] = "trusted"
    per_class: bool = Field(False, description="a background threshold for each class")


class ComplementThreshold(Model):
    """No threshold: the background's score of a pixel is 1 less the highest of its classes; equal ones decide nothing.

    For scores that are probabilities, as a teacher's; those of CAMs are not.
    """

    kind: Literal["complement"] = "complement"


IrnThreshold = Annotated[FixedThreshold | CurveThreshold, Field(discriminator="kind")]
PseudoThreshold = Annotated[
    FixedThreshold | ClassCurveThreshold | SelfThreshold | TrustedThreshold | ComplementThreshold,
    Field(discriminator="kind"),
]
