"""The preset: frozen, strict pydantic models. A field's description is the one source for docs and JSON schema."""

from __future__ import annotations

from pydantic import Field, model_validator

from wsss_cli.config.affinity import AffinityConfig, needs
from wsss_cli.config.base import (
    AdamWConfig,
    BackboneConfig,
    Model,
    Optim,
    Positive,
    Precision,
    Rate,
    ScheduleConfig,
)
from wsss_cli.config.cam import CamMethod, Consistency, NoConsistencyConfig, PlainCamConfig, cam_fault
from wsss_cli.config.evaluation import EvalConfig
from wsss_cli.config.refine import PseudoConfig, RelabelConfig
from wsss_cli.config.train import TrainConfig


class DatasetConfig(Model):
    path: str = Field(description="data set directory, as `wsss prepare` writes it")
    train: str = Field("train", description="split that is trained on and gets CAMs and pseudo masks")
    score: str = Field("train", description="split on which seeds and pseudo masks are scored, where it has masks")
    val: str = Field("val", description="split with masks on which networks are scored")


class CamConfig(Model):
    backbone: BackboneConfig = BackboneConfig()
    method: CamMethod = PlainCamConfig()
    consistency: Consistency = NoConsistencyConfig()
    classifier: str = Field(
        "", description="a trained classifier: its cam run, checkpoint folder or weight file; empty: train one"
    )
    iters: Positive = Field(500, description="training iterations of the classifier")
    batch: Positive = Field(16, description="images in a batch")
    crop: Positive = Field(320, description="side of the square training crop, pixels")
    resize_min: Rate = Field(0.9, description="smallest long side before the crop, as a fraction of crop")
    resize_max: Rate = Field(1.6, description="largest long side before the crop, as a fraction of crop")
    optim: Optim = AdamWConfig(lr=2e-4, head_lr_mult=10.0)
    schedule: ScheduleConfig = ScheduleConfig()
    precision: Precision = Field("auto", description="auto: bf16 on hardware that has it, else fp32")
    scales: tuple[Rate, ...] = Field((1.0, 0.5, 1.5, 2.0), description="CAMs are summed over these image scales")
    flip: bool = Field(True, description="add the mirrored view of every scale")

    @model_validator(mode="after")
    def _consistent(self) -> CamConfig:
        if fault := cam_fault(self.method, self.consistency, self.crop, self.backbone.output_stride):
            raise ValueError(fault)
        return self


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
    seed: int = Field(0, ge=0, description="seed of every random choice")
    dataset: DatasetConfig
    cam: CamConfig = CamConfig()
    affinity: AffinityConfig = AffinityConfig()
    pseudo: PseudoConfig = PseudoConfig()
    train: TrainConfig = TrainConfig()
    rounds: Positive = Field(
        1, description="trainings; before each but the first the network before it makes new masks of the train split"
    )
    relabel: RelabelConfig = RelabelConfig()
    eval: EvalConfig = EvalConfig()
    reference: tuple[ReferenceConfig, ...] = Field((), description="published figures of this recipe, for `wsss table`")

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
