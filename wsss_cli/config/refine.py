"""How CAMs become pseudo masks: background thresholds, then refining steps in order."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from wsss_cli.config.affinity import IrnWalk, PsaWalk
from wsss_cli.config.base import CrfConfig, Dilation, Fraction, Model, Passes, Rate, Views, Workers
from wsss_cli.config.thresholds import (
    ClassCurveThreshold,
    FixedThreshold,
    PseudoThreshold,
    SelfThreshold,
    TrustedThreshold,
)

CRF_SETS = {
    # IRN `misc/imutils.py: crf_inference_label`, on labels
    "irn": CrfConfig.model_construct(),
    # PSA `tool/imutils.py: crf_inference`, on CAM scores; SEAM and those after it likewise
    "psa": CrfConfig.model_construct(bilateral_sxy=80.0, bilateral_srgb=13.0),
    # deeplab-pytorch `configs/voc12.yaml`, on probabilities; CLIP-ES likewise
    "deeplab": CrfConfig.model_construct(gauss_sxy=1.0, bilateral_sxy=67.0, bilateral_srgb=3.0, bilateral_compat=4.0),
    # ToCo `tools/infer_seg_voc.py`, on probabilities
    "toco": CrfConfig.model_construct(gauss_sxy=1.0, gauss_compat=1.0, bilateral_sxy=121.0, bilateral_compat=4.0),
}
"""Published dense CRF parameters by name; 10 iterations each."""

SCORE_STEPS = ("agree", "irn-walk", "psa-walk")
"""Kinds of steps that turn CAMs into CAMs, without a background; all others work on labels and probabilities."""

PAR_LIMIT = math.e / (math.e + 1)
"""Softmax of the scores 1 and 0: above it lies no posterior that PAR, which averages, makes of CAMs."""


class CrfStep(Model):
    kind: Literal["crf"] = "crf"
    on: Literal["labels", "scores"] = Field(
        "labels", description="unary energies of the label map, or of the scores taken as probabilities"
    )
    parameters: Literal["irn", "psa", "deeplab", "toco", "own"] = Field(
        "irn", description="a published set of kernel parameters; own: those under crf"
    )
    crf: CrfConfig | None = Field(None, description="kernel parameters of one's own, with parameters = 'own'")
    gt_prob: float = Field(0.7, gt=0.0, lt=1.0, description="trust in the input labels, with on = 'labels'")

    @model_validator(mode="before")
    @classmethod
    def _own_when_given(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("crf") is not None and "parameters" not in value:
            return {**value, "parameters": "own"}
        return value

    @model_validator(mode="after")
    def _one_meaning(self) -> CrfStep:
        if self.crf is not None and self.parameters != "own":
            raise ValueError(f"parameters = {self.parameters!r} has its own values; leave out either it or crf")
        if self.crf is None and self.parameters == "own":
            raise ValueError("parameters = 'own' needs a table crf with the values")
        if self.on == "scores" and self.gt_prob != 0.7:
            raise ValueError("gt_prob is the trust in labels; with on = 'scores' there are none")
        return self

    @property
    def values(self) -> CrfConfig:
        """The kernel parameters that are meant."""
        return self.crf or CRF_SETS[self.parameters]


class ParStep(Model):
    kind: Literal["par"] = "par"
    iterations: Passes = Field(10, description="rounds in which each pixel takes the average of its neighbours")
    dilations: tuple[Dilation, ...] = Field(
        (1, 2, 4, 8, 12, 24), min_length=1, description="rings of 8 neighbours, pixels away at the reduced size"
    )
    w1: Rate = Field(0.3, description="width of the colour and position kernels, in standard deviations")
    w2: float = Field(0.01, ge=0.0, le=1e9, description="weight of the position kernel beside the colour kernel")
    scale: float = Field(0.5, gt=0.0, le=1.0, description="works at this fraction of the image's size")


class AgreeStep(Model):
    """Hold a teacher's scores against CAMs of the user's own tags: doubt what these do not support."""

    kind: Literal["agree"] = "agree"
    cams: str = Field(min_length=1, description="cam run of the data set's own tags, which the scores are held against")
    support: Fraction = Field(
        0.25, description="mean CAM that a region needs, as a share of that of the class's best-supported region"
    )
    doubt: Fraction = Field(0.5, description="factor on the scores of a region with less")
    fallback: Fraction = Field(0.6, description="factor on the CAM of a class that the teacher does not find")


LabelStep = Annotated[CrfStep | ParStep, Field(discriminator="kind")]
Step = Annotated[AgreeStep | IrnWalk | PsaWalk | CrfStep | ParStep, Field(discriminator="kind")]


class PseudoConfig(Model):
    threshold: PseudoThreshold = FixedThreshold.model_construct()
    steps: tuple[Step, ...] = Field((CrfStep(),), description="what is done to the thresholded CAMs, in order")
    min_confidence: Fraction = Field(0.0, description="pixels whose posterior is below this become 255")
    workers: Workers = Field(0, description="worker processes; 0: one for each core")

    @property
    def per_class(self) -> bool:
        """Whether each class has a background threshold of its own."""
        kinds = (ClassCurveThreshold, SelfThreshold, TrustedThreshold)
        return isinstance(self.threshold, kinds) and self.threshold.per_class

    @property
    def walks(self) -> tuple[IrnWalk | PsaWalk, ...]:
        """The steps that spread CAMs; they come first."""
        return tuple(step for step in self.steps if isinstance(step, (IrnWalk, PsaWalk)))

    @property
    def score_steps(self) -> tuple[AgreeStep | IrnWalk | PsaWalk, ...]:
        """The steps that make scores of scores; they come first."""
        return tuple(step for step in self.steps if isinstance(step, (AgreeStep, IrnWalk, PsaWalk)))

    @property
    def judges(self) -> tuple[str, ...]:
        """The cam runs that steps hold scores against."""
        return tuple(dict.fromkeys(step.cams for step in self.steps if isinstance(step, AgreeStep)))

    @property
    def label_steps(self) -> tuple[CrfStep | ParStep, ...]:
        """The steps that refine what the thresholds have decided."""
        return tuple(step for step in self.steps if isinstance(step, (CrfStep, ParStep)))

    @model_validator(mode="after")
    def _makes_sense(self) -> PseudoConfig:
        kinds = [step.kind for step in self.steps]
        if len(self.judges) > 1:
            raise ValueError(f"steps agree name {len(self.judges)} cam runs; hold scores against one")
        check_order(kinds)
        refining = [kind for kind in kinds if kind not in SCORE_STEPS]
        if self.min_confidence > 0 and not refining:
            raise ValueError("min_confidence needs a posterior, which only a step crf or par makes")
        if self.min_confidence >= PAR_LIMIT and "crf" not in refining and not self.per_class:
            raise ValueError(
                f"min_confidence {self.min_confidence} leaves no pixel: without a crf no posterior reaches 0.7311"
            )
        return self


class RelabelConfig(Model):
    """Pseudo masks of a further round, from a trained network."""

    scales: Views = Field((0.75, 1.0, 1.25), min_length=1, description="views of the network, each mirrored, too")
    steps: tuple[LabelStep, ...] = Field(
        (CrfStep(on="scores", parameters="deeplab"),), description="what is done to its class probabilities, in order"
    )
    min_confidence: Fraction = Field(0.0, description="pixels whose posterior is below this become 255, undecided")
    cam_weight: Fraction = Field(
        0.0, description="share of the first round's scores, walked where it walked, beside the network's probabilities"
    )


def check_order(kinds: Sequence[str]) -> None:
    """Refuse steps in an order that has no meaning.

    Args:
        kinds: the `kind` of each step, in order.
    Raises:
        ValueError: with the reason.
    """
    for earlier, later in itertools.pairwise(kinds):
        if later in SCORE_STEPS and earlier == later:
            raise ValueError(f"two steps {later} on end are one with more iterations; leave one")
    first = next((kind for kind in kinds if kind not in SCORE_STEPS), "")
    late = [kind for kind in kinds[kinds.index(first) :] if kind in SCORE_STEPS] if first else []
    if late:
        raise ValueError(f"step {late[0]} works on CAMs, before there is a background; put it before {first}")
