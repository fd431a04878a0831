"""The preset: frozen, strict pydantic models. A field's description is the one source for docs and JSON schema."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from wsss_cli.config.affinity import AffinityConfig, needs
from wsss_cli.config.base import (
    AdamWConfig,
    BackboneConfig,
    CrfConfig,
    Fraction,
    Model,
    Optim,
    Positive,
    Precision,
    Rate,
    ScheduleConfig,
    SgdConfig,
)
from wsss_cli.config.cam import CamMethod, Consistency, NoConsistencyConfig, PlainCamConfig, cam_fault
from wsss_cli.config.noise import NoiseConfig
from wsss_cli.config.refine import PseudoConfig, RelabelConfig


class DatasetConfig(Model):
    path: str = Field(description="data set directory, as `wsss prepare` writes it")
    train: str = Field("train", description="split that is trained on and gets CAMs and pseudo masks")
    score: str = Field("train", description="split on which seeds and pseudo masks are scored, where it has masks")
    val: str = Field("val", description="split with masks on which networks are scored")


class AugmentConfig(Model):
    scale_min: Rate = Field(0.5, description="smallest random resize ratio")
    scale_max: Rate = Field(2.0, description="largest random resize ratio")
    base_long: Positive = Field(2048, description="long side at ratio 1, before keeping the aspect ratio")
    base_short: Positive = Field(512, description="short side at ratio 1, before keeping the aspect ratio")
    cat_max_ratio: Fraction = Field(0.75, description="re-draw crops in which one class holds more than this share")
    flip: Fraction = Field(0.5, description="probability of a horizontal flip")
    photometric: bool = Field(True, description="random brightness, contrast, saturation and hue")


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


class DeepLabConfig(Model):
    kind: Literal["deeplabv3plus"] = "deeplabv3plus"
    aspp_channels: Positive = Field(512, description="channels of the ASPP branches and the decoder")
    low_channels: Positive = Field(48, description="channels kept of the stride-4 features")
    dilations: tuple[Positive, ...] = Field((1, 12, 24, 36), description="ASPP dilations; 1 is a 1x1 convolution")
    dropout: Fraction = Field(0.1, description="channel dropout before each classifier")
    aux_weight: float = Field(0.4, ge=0.0, description="weight of the auxiliary FCN loss; 0: no auxiliary head")


class TrainConfig(Model):
    supervision: Literal["weak", "full"] = Field(
        "weak", description="weak: pseudo masks of an earlier stage; full: the masks of the data set"
    )
    backbone: BackboneConfig = BackboneConfig()
    model: DeepLabConfig = DeepLabConfig()
    init: str = Field("", description="train run, checkpoint or imported directory whose network to start from")
    reset_head: bool = Field(False, description="with init: keep all but the classifiers, and draw those anew")
    iters: Positive = Field(20000, description="training iterations; the schedule follows")
    batch: Positive = Field(16, description="images in a batch")
    crop: Positive = Field(512, description="side of the square training crop, pixels")
    augment: AugmentConfig = AugmentConfig()
    optim: Optim = SgdConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    loss_average: Literal["all", "valid"] = Field(
        "all",
        description="divide the cross-entropy by all pixels (as MMSegmentation does) or by those not 255",
    )
    noise: NoiseConfig = Field(
        NoiseConfig(), description="what training does about noisy pseudo masks; nothing by default"
    )
    precision: Precision = Field("auto", description="auto: bf16 on hardware that has it, else fp32")
    compile: bool = Field(False, description="torch.compile the network")
    channels_last: bool = Field(True, description="NHWC memory layout")
    kernels: Literal["plain", "fused"] = Field(
        "plain",
        description="fused: own kernels for batch norm, depthwise convolution and the loss; CUDA only, speed not "
        "measured yet. The result is the same within rounding",
    )
    workers: int = Field(-1, ge=-1, description="data worker processes; -1: cores minus one, at most 8")
    val_interval: int = Field(2000, ge=0, description="iterations between validations; 0: only at the end")
    val_images: int = Field(0, ge=0, description="images of periodic validations, evenly spaced; 0: all")
    checkpoint_interval: Positive = Field(2000, description="iterations between checkpoints")
    log_interval: Positive = Field(50, description="iterations between log lines")

    @model_validator(mode="after")
    def _noise_fits(self) -> TrainConfig:
        self.noise.check(self.supervision, self.iters)
        return self

    @model_validator(mode="after")
    def _kernels_fit(self) -> TrainConfig:
        if self.kernels == "fused" and (self.compile or not self.channels_last):
            raise ValueError("kernels = 'fused' needs channels_last = true and compile = false")
        return self

    @model_validator(mode="after")
    def _reset_what(self) -> TrainConfig:
        if self.reset_head and not self.init:
            raise ValueError("reset_head is for a network that training starts from; name it with init (--init DIR)")
        return self


class EvalConfig(Model):
    mode: Literal["whole", "slide"] = Field("whole", description="the network sees the whole image, or windows of it")
    window: Positive = Field(512, description="side of a window with mode = 'slide', pixels")
    stride: Positive = Field(341, description="pixels between windows with mode = 'slide'")
    base: Literal["image", "short"] = Field(
        "image", description="scale 1 is the original image, or the image resized to `short_side`"
    )
    short_side: Positive = Field(512, description="short side at scale 1 with base = 'short'; long side <= 4 times")
    scales: tuple[Rate, ...] = Field((0.5, 0.75, 1.0, 1.25, 1.5, 1.75), description="scales of ms+flip")
    crf: CrfConfig = Field(
        CrfConfig(gauss_sxy=1.0, bilateral_sxy=67.0, bilateral_srgb=3.0, bilateral_compat=4.0),
        description="dense CRF on the class probabilities, where a command asks for it",
    )

    @model_validator(mode="after")
    def _windows_overlap(self) -> EvalConfig:
        if self.stride > self.window:
            raise ValueError(f"stride {self.stride} is above window {self.window}: pixels between would not be seen")
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
