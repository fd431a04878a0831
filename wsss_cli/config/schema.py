"""The preset: frozen, strict pydantic models. A field's description is the one source for docs and JSON schema."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, ValidationInfo, model_validator

from wsss_cli.config.affinity import AffinityConfig, needs
from wsss_cli.config.base import RUN, Added, Model, Positive
from wsss_cli.config.cam import CamConfig, ReCamConfig
from wsss_cli.config.classifier import ClassifierConfig
from wsss_cli.config.evaluation import EvalConfig
from wsss_cli.config.refine import PseudoConfig, RelabelConfig
from wsss_cli.config.train import TrainConfig


class DatasetConfig(Model):
    path: str = Field(
        description="data set directory, as `wsss prepare` writes it; one that does not begin with / or ~ counts from "
        "the folder in which the command is run, not from that of the preset"
    )
    train: str = Field("train", description="split that is trained on and gets CAMs and pseudo masks")
    score: str = Field("train", description="split on which seeds and pseudo masks are scored, where it has masks")
    val: str = Field("val", description="split with masks on which networks are scored")
    limit: Annotated[int, Added(neutral=0)] = Field(
        0,
        ge=0,
        le=10**9,
        description="images of each split that count, the first ones: for a trial, which is not a result; 0: all",
    )


class ReferenceConfig(Model):
    iters: Positive = Field(description="training iterations of the published figure")
    miou: float | None = Field(None, description="published mIoU, single scale, per cent")
    miou_ms_flip: float | None = Field(None, description="published mIoU, ms+flip, per cent")
    memory_gb: float | None = Field(None, description="published training memory of a GPU, GB")
    fps: float | None = Field(None, description="published frames a second in inference")
    source: str = Field("", description="where the figures are published")


class Preset(Model):
    """A whole experiment, from image tags to a scored network."""

    name: str = Field(description="name of the preset; part of the run directories' names")
    description: str = Field("", description="one line for `wsss presets list`")
    extends: str = Field("", description="name of the preset that this one changes")
    seed: int = Field(0, ge=0, lt=2**62, description="seed of every random choice")
    backbone_weights: Annotated[str, Added(neutral="")] = Field(
        "",
        description="weights of every backbone that is not given its own: 'imagenet', 'none', a file, or a folder with "
        "a file for each, NAME.safetensors or .pth; empty: each as its table says",
    )
    dataset: DatasetConfig
    classifier: ClassifierConfig = ClassifierConfig.model_construct()
    cam: CamConfig = CamConfig.model_construct()
    affinity: AffinityConfig = AffinityConfig.model_construct()
    pseudo: PseudoConfig = PseudoConfig.model_construct()
    train: TrainConfig = TrainConfig.model_construct()
    rounds: int = Field(
        1,
        ge=1,
        le=100,
        description="trainings; before each but the first the network before it makes new masks of the train split",
    )
    relabel: RelabelConfig = RelabelConfig.model_construct()
    eval: EvalConfig = EvalConfig.model_construct()
    reference: tuple[ReferenceConfig, ...] = Field((), description="published figures of this recipe, for `wsss table`")

    @model_validator(mode="after")
    def _seam_goes_with_plain_cams(self) -> Preset:
        if self.classifier.consistency.kind == "seam" and self.cam.method.kind != "cam":
            raise ValueError(
                f"consistency seam refines plain CAMs by the module that it trains, which method "
                f"{self.cam.method.kind} would leave out; take consistency seam-er, or method cam"
            )
        return self

    @model_validator(mode="after")
    def _second_warm_up_ends(self, info: ValidationInfo) -> Preset:
        method, warmup = self.cam.method, self.classifier.schedule.warmup_iters
        if isinstance(method, ReCamConfig) and warmup > method.iters and info.context != RUN:
            raise ValueError(
                f"cam.method.iters {method.iters} is below classifier.schedule.warmup_iters {warmup}, which ReCAM's "
                "second phase has, too: it would end before its warm-up does"
            )
        return self

    @model_validator(mode="after")
    def _rounds_have_a_background(self) -> Preset:
        if self.relabel.cam_weight > 0 and self.rounds > 1 and self.pseudo.threshold.kind == "complement":
            raise ValueError(
                "relabel.cam_weight mixes scores with a background threshold, and pseudo.threshold is of kind "
                "complement, which has none; --set relabel.cam_weight=0"
            )
        return self

    @model_validator(mode="after")
    def _labels_are_read(self) -> Preset:
        if self.pseudo.threshold.kind == "trusted" and self.train.supervision != "mixed":
            raise ValueError(
                "pseudo.threshold of kind trusted is that of the data set's own labels, which pseudo masks have with "
                "--set train.supervision=mixed alone"
            )
        return self

    @model_validator(mode="after")
    def _walks_have_networks(self) -> Preset:
        for step in self.pseudo.walks:
            table = needs(step)
            if getattr(self.affinity, table) is None:
                raise ValueError(
                    f"pseudo.steps has {step.kind}, which needs the network of [affinity.{table}]; "
                    f"add that table, or --set affinity.{table}.iters=N"
                )
        return self


def descriptions(table: Model, prefix: str = "") -> dict[str, str]:
    """What each setting of a table is, by dotted key; not of tables in lists."""
    texts: dict[str, str] = {}
    for key, field in type(table).model_fields.items():
        value = getattr(table, key)
        if isinstance(value, Model):
            texts |= descriptions(value, f"{prefix}{key}.")
        else:
            texts[f"{prefix}{key}"] = field.description or ""
    return texts
