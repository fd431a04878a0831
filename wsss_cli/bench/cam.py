"""CAMs of several scales and mirrored views: batched as the cam stage makes them, and one view at a time."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss_cli.bench.ceilings import add_share, count_flop, measured_ceilings
from wsss_cli.bench.inputs import stored_samples, untrained
from wsss_cli.bench.measure import (
    Case,
    Work,
    make_rows,
    measure,
    report,
)
from wsss_cli.cam.gradcam import GradCam
from wsss_cli.cam.multiscale import CamModel, multiscale_cam, normalise_cam
from wsss_cli.cam.store import write_cam
from wsss_cli.config.schema import Preset
from wsss_cli.data.dataset import Sample
from wsss_cli.data.images import read_image
from wsss_cli.engine.context import Context, Silent
from wsss_cli.engine.records import RunRecord
from wsss_cli.engine.rundir import RunDir
from wsss_cli.models.build import build_classifier
from wsss_cli.models.classifier import CamClassifier
from wsss_cli.stages.cam import PlainCam, cam_batches, make_cams, side_multiple

SIZE = {"cuda": (375, 500), "cpu": (96, 128)}
IMAGES = {"cuda": 64, "cpu": 4}
ONE = "one view at a time"


def bench_cam(
    preset: Preset,
    ctx: Context,
    *,
    images: int = 0,
    height: int = 0,
    width: int = 0,
    repeats: int = 3,
    seed: int = 0,
    data: str = "",
) -> dict[str, Any]:
    """Time the CAMs of a set of images with random weights, over the preset's scales and mirrored views.

    Args:
        images: in a call; 0: 64 on a GPU, 4 on a CPU.
        height, width: of the drawn photographs; 0: 375 x 500 on a GPU, 96 x 128 on a CPU.
        data: data set directory whose first images are taken as they are, in place of drawn ones.
    Returns:
        See `bench_measure.report`.
    """
    height, width = height or SIZE[ctx.device.type][0], width or SIZE[ctx.device.type][1]
    images, preset = images or IMAGES[ctx.device.type], untrained(preset)
    config, precision = preset.classifier, preset.classifier.precision
    with tempfile.TemporaryDirectory(prefix="wsss-bench-") as name:
        samples, num_classes = stored_samples(Path(name), images, height, width, seed=seed, data=data)
        torch.manual_seed(seed)
        model = build_classifier(config, num_classes, ctx.device).requires_grad_(False)
        ceilings = measured_ceilings(ctx)
        work = _Work(model, samples, preset, ctx, Path(name))
        cases = [
            Case(f"{ONE}, computing", lambda: work.one_by_one),
            Case("batched, computing", lambda: partial(work.batched, lambda tags: work.plain)),
            Case("batched Grad-CAM, computing", lambda: partial(work.batched, lambda tags: GradCam(model, tags))),
            Case("grad-cam package, computing", lambda: _peer(model, work)),
            Case(f"{ONE}, with files", lambda: work.one_by_one_with_files),
            Case("batched, with files: the stage", lambda: work.stage),
        ]
        timings = measure(cases, ctx, repeats=repeats, title="CAMs")
        plain = partial(work.batched, lambda tags: work.plain)
        flop = count_flop(plain) if timings[1].seconds else 0.0
    paired = partial(make_rows, units=len(samples), unit="images_s")
    rows = paired(timings[:4], base=f"{ONE}, computing") + paired(timings[4:], base=f"{ONE}, with files")
    rate = "bf16_gflop_s" if ctx.in_bf16(precision) else "fp32_gflop_s"
    for row in (rows[0], rows[1], rows[4], rows[5]):  # the others also go backward
        if flop:
            add_share(row, flop, rate, ceilings)
    return report(
        "cam",
        ctx,
        rows,
        settings={
            "preset": preset.name,
            "backbone": config.backbone.name,
            "precision": precision,
            "scales": list(preset.cam.scales),
            "flip": preset.cam.flip,
            "images": len(samples),
            "height": height,
            "width": width,
            "repeats": repeats,
            "seed": seed,
            "data": data,
        },
        ceilings=ceilings,
        ratio_to=f"{ONE}, likewise with or without files",
        notes=[
            "with files: also decoding the photographs and writing the CAMs, to a temporary folder",
            "one view at a time: every scale and its mirrored view of an image by itself, at its own size",
            "grad-cam package: likewise, and class by class; backward to the last feature map, as in ours",
            f"share: of the matrix rate in {rate[:4]}, by the operations of the batched sweep",
        ],
        peers=["grad-cam"],
    )


class _Work:
    """The same images, gone through in several ways."""

    def __init__(
        self, model: CamClassifier, samples: Sequence[Sample], preset: Preset, ctx: Context, folder: Path
    ) -> None:
        self.model, self.samples, self.ctx, self.folder = model, samples, ctx, folder
        self.config, self.precision = preset.cam, preset.classifier.precision
        self.plain = PlainCam(model)
        self.images = {sample.id: read_image(sample.image) for sample in samples}
        self.batches = [batch.items for batch in cam_batches(samples, self.config, [], ctx)]
        self.runs = count()

    def one_by_one(self) -> Tensor:
        maps = torch.zeros(0)
        for image in self.images.values():
            self.ctx.stop.check()
            maps = self.views(image, self.plain.cam)
        return maps

    def views(self, image: np.ndarray, cam: Callable[[Tensor], Tensor]) -> Tensor:
        """Sum of the maps of all views of an image, each a forward pass of its own, [C, h, w] at stride 4."""
        height, width = image.shape[:2]
        out_size = ((height - 1) // 4 + 1, (width - 1) // 4 + 1)
        total: Tensor | None = None
        with torch.no_grad(), self.ctx.autocast(self.precision):
            for scale in self.config.scales:
                size = (max(round(width * scale), 1), max(round(height * scale), 1))
                resized = torch.from_numpy(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC))
                x = self.plain.normalise(resized.to(self.ctx.device).permute(2, 0, 1)[None])
                for mirrored in (False, True) if self.config.flip else (False,):
                    maps = cam(x.flip(3) if mirrored else x).float()
                    maps = maps.flip(3) if mirrored else maps
                    maps = F.interpolate(maps, out_size, mode="bilinear", align_corners=False)
                    total = maps if total is None else total + maps
        assert total is not None
        return total[0]

    def one_by_one_with_files(self) -> None:
        folder = self.folder / f"{next(self.runs)}"
        for sample in self.samples:
            self.ctx.stop.check()
            image = read_image(sample.image)
            maps = self.views(image, self.plain.cam).cpu().numpy()[[label - 1 for label in sample.labels]]
            write_cam(folder / f"{sample.id}.npz", normalise_cam(maps), sample.labels, image.shape[:2])
        shutil.rmtree(folder)

    def batched(self, view: Callable[[Sequence[Sequence[int]]], CamModel]) -> Tensor:
        maps = torch.zeros(0)
        for batch in self.batches:
            self.ctx.stop.check()
            tags = [[label - 1 for label in sample.labels] for sample in batch]
            images = [self.images[sample.id] for sample in batch]
            with self.ctx.autocast(self.precision):
                maps = multiscale_cam(
                    view(tags), images, self.config.scales, self.config.flip, self.ctx.device, side_multiple(self.model)
                )
        return maps

    def stage(self) -> None:
        run = RunDir(self.folder / f"{next(self.runs)}", RunRecord(stage="cam", state="running"))
        quiet = replace(self.ctx, ui=Silent())  # there is a bar already
        make_cams(self.model, lambda tags: self.plain, self.samples, self.config, self.precision, run, quiet)
        shutil.rmtree(run.path)


def _peer(model: CamClassifier, work: _Work) -> Work:
    """The package `grad-cam` on the views of each image, one class after another."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    scores = _Scores(model)
    peer = GradCAM(model=scores, target_layers=[scores.last])

    def run() -> None:
        for sample in work.samples:
            work.ctx.stop.check()

            def cam(x: Tensor, labels: Sequence[int] = sample.labels) -> Tensor:
                with torch.enable_grad():
                    maps = [peer(input_tensor=x, targets=[ClassifierOutputTarget(label - 1)]) for label in labels]
                return torch.from_numpy(np.stack(maps, 1))

            work.views(work.images[sample.id], cam)

    return run


class _Scores(nn.Module):
    """Class scores, with a module that gives the last feature map as the leaf of the backward pass."""

    def __init__(self, model: CamClassifier) -> None:
        super().__init__()
        self.model, self.last = model, nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        features = self.model.features(x).detach().float().requires_grad_()  # numpy has no bfloat16
        return self.model.scores(self.last(features))
