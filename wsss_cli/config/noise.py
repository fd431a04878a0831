"""`[train.noise]`: what training does about wrong and missing labels in pseudo masks. The defaults do nothing."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from wsss_cli.config.base import Added, Fraction, Model, Rate, Scale

BelowOne = Annotated[float, Field(ge=0.0, lt=1.0)]
Scales = Annotated[tuple[Scale, ...], Field(min_length=1, strict=False)]  # a list: see _false_is_off


class TeacherConfig(Model):
    decay: BelowOne = Field(0.999, description="share of the teacher that an iteration keeps, once the average is long")
    start: BelowOne = Field(0.25, description="share of train.iters after which the teacher is asked")
    weight: Rate = Field(1.0, description="weight of a filled pixel at certainty 1")
    threshold: Fraction = Field(0.9, description="probability from which on the teacher's class fills a pixel")


class UpdateConfig(Model):
    points: int = Field(20, ge=5, le=10**6, description="points of each class's IoU curve over the whole training")
    slope_drop: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.9, description="correct a class once the slope of its curve has dropped by this share since the first point"
    )
    threshold: Fraction = Field(0.8, description="probability above which the prediction replaces the label")
    scales: Scales = Field((0.7, 1.0, 1.5), description="the prediction is averaged over these image scales")


class UncertaintyConfig(Model):
    scales: Scales = Field((0.25, 0.5, 1.0, 2.0, 4.0), description="factors on the teacher's foreground responses")

    @field_validator("scales")
    @classmethod
    def _differ(cls, scales: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(scales)) < 2:
            raise ValueError("a variance needs at least two different scales")
        return scales


class ConsistencyConfig(Model):
    """Strong views of a crop agree with its weak view, where nobody vouches for a label (UniMatch, CVPR 2023)."""

    weight: Rate = Field(1.0, description="factor on this term")
    threshold: Fraction = Field(
        0.95, description="probability from which on the class of the weak view is the target of a pixel"
    )
    views: int = Field(2, ge=1, le=2, description="strong views of each crop: colours, blur, cutmix")
    features: bool = Field(True, description="also half of the channels of the backbone's features, the others at 0")
    cutmix: Fraction = Field(0.5, description="probability that a rectangle of a view is that of another crop's view")


class NoiseConfig(Model):
    """The optional tables are off where they are missing or `false`; an empty table takes their defaults."""

    confidence: Literal["none", "weight", "ignore", "soft"] = Field(
        "none",
        description="confidence maps of the pseudo run: weight pixels by them, ignore what is below min_confidence, or "
        "soften the labels",
    )
    min_confidence: Fraction = Field(0.95, description="with confidence = 'ignore': pixels below this become 255")
    teacher: TeacherConfig | None = Field(None, description="an average of the network (EMA) fills pixels that are 255")
    update: UpdateConfig | None = Field(None, description="replace labels of a class once its IoU curve flattens")
    uncertainty: UncertaintyConfig | None = Field(
        None, description="weight pixels by how little the teacher changes when its responses are scaled"
    )
    consistency: Annotated[ConsistencyConfig | None, Added(neutral=None)] = Field(
        None, description="strong views of pixels that nobody vouches for agree with the weak one where that is sure"
    )

    @field_validator("teacher", "update", "uncertainty", "consistency", mode="before")
    @classmethod
    def _false_is_off(cls, value: Any) -> Any:
        # TOML has no null, and a preset that extends another may want a table off. A validator that comes before makes
        # pydantic see the table as Python, where strict mode takes a list for no tuple
        return None if value is False else value

    @model_validator(mode="after")
    def _uncertainty_has_a_teacher(self) -> NoiseConfig:
        if self.uncertainty is not None and self.teacher is None:
            raise ValueError(
                "uncertainty without teacher: it is the teacher whose uncertainty counts; add train.noise.teacher={}"
            )
        return self

    @model_validator(mode="after")
    def _soft_labels_stay(self) -> NoiseConfig:
        for name in ("teacher", "update"):
            if self.confidence == "soft" and getattr(self, name) is not None:
                raise ValueError(
                    f"{name} with confidence = 'soft': it sets labels of which no map says how sure they are"
                )
        return self

    @property
    def weighs(self) -> str:
        """The setting by which pixels get weights; empty where none does."""
        return "noise.confidence = 'weight'" if self.confidence == "weight" else "noise.teacher" if self.teacher else ""

    def check(self, supervision: str, iters: int) -> None:
        """Refuse what does not go with the rest of the section `train`.

        Raises:
            ValueError: with the reason.
        """
        if supervision in ("partial", "full"):
            labels = "true masks" if supervision == "full" else "labels that were drawn"
            reasons = {
                "confidence": (self.confidence != "none", f"{labels} have no confidence maps"),
                "teacher": (
                    self.teacher is not None and supervision == "full",
                    "255 in a true mask is no missing label",
                ),
                "update": (self.update is not None, f"{labels} are not to be corrected"),
                "consistency": (
                    self.consistency is not None and supervision == "full",
                    "true masks vouch for every pixel",
                ),
            }
            for name, (on, reason) in reasons.items():
                if on:
                    raise ValueError(f"noise.{name} with supervision '{supervision}': {reason}")
        if self.update is not None and self.update.points > iters:
            raise ValueError(
                f"noise.update.points {self.update.points} is above iters {iters}: a point needs an iteration"
            )
