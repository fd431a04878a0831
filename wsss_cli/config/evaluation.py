"""`[eval]`: how a segmentation network is scored."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from wsss_cli.config.base import CrfConfig, Model, Side, Views


class EvalConfig(Model):
    mode: Literal["whole", "slide"] = Field("whole", description="the network sees the whole image, or windows of it")
    window: Side = Field(512, description="side of a window with mode = 'slide', pixels")
    stride: Side = Field(341, description="pixels between windows with mode = 'slide'")
    base: Literal["image", "short"] = Field(
        "image", description="scale 1 is the original image, or the image resized to `short_side`"
    )
    short_side: Side = Field(512, description="short side at scale 1 with base = 'short'; long side <= 4 times")
    scales: Views = Field((0.5, 0.75, 1.0, 1.25, 1.5, 1.75), min_length=1, description="scales of ms+flip")
    crf: CrfConfig = Field(
        CrfConfig.model_construct(gauss_sxy=1.0, bilateral_sxy=67.0, bilateral_srgb=3.0, bilateral_compat=4.0),
        description="dense CRF on the class probabilities, where a command asks for it",
    )

    @model_validator(mode="after")
    def _windows_overlap(self) -> EvalConfig:
        if self.stride > self.window:
            raise ValueError(f"stride {self.stride} is above window {self.window}: pixels between would not be seen")
        return self
