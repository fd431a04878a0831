"""Whole-image prediction over scales and mirrored views: batched as the eval stage does it, and one view at a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from wsss_cli.bench.ceilings import add_share, count_flop, measured_ceilings
from wsss_cli.bench.inputs import pictures, untrained
from wsss_cli.bench.measure import (
    Case,
    five_digits,
    make_rows,
    measure,
    report,
)
from wsss_cli.config.schema import Preset
from wsss_cli.engine.context import Context
from wsss_cli.inference.predict import largest_batch, predict, upsampled, view_size
from wsss_cli.metrics.confusion import Confusion
from wsss_cli.metrics.scores import summary
from wsss_cli.models.build import build_segmentor
from wsss_cli.models.segmentor import Segmentor

SIZE = {"cuda": (375, 500), "cpu": (96, 128)}
IMAGES = {"cuda": 32, "cpu": 4}
ONE = "one view at a time"


def bench_eval(
    preset: Preset,
    ctx: Context,
    *,
    num_classes: int = 21,
    images: int = 0,
    height: int = 0,
    width: int = 0,
    repeats: int = 3,
    seed: int = 0,
    data: str = "",
) -> dict[str, Any]:
    """Time ms+flip prediction of images in memory with random weights, with and without the confusion matrix.

    Args:
        images: in a call; 0: 32 on a GPU, 4 on a CPU.
        height, width: of the images; 0: 375 x 500 on a GPU, 96 x 128 on a CPU.
        data: see `bench_inputs.pictures`.
    Returns:
        See `bench_measure.report`; rows also have 'same_as_one_view', the share of pixels with the same label.
    """
    height, width = height or SIZE[ctx.device.type][0], width or SIZE[ctx.device.type][1]
    shown = pictures(images or IMAGES[ctx.device.type], height, width, seed=seed, data=data)
    preset = untrained(preset)
    torch.manual_seed(seed)
    model = build_segmentor(preset.train, num_classes, ctx.device, weights=False)
    photographs = [picture.image for picture in shown]
    batched = partial(_batched, model, photographs, preset, ctx)
    single = partial(_one_by_one, model, photographs, preset, ctx)
    masks = np.stack([np.where((p.mask < num_classes) | (p.mask == 255), p.mask, 0) for p in shown])

    def with_metric(work: Callable[[], np.ndarray]) -> np.ndarray:
        confusion = Confusion(num_classes)
        labels = work()
        for one, mask in zip(labels, masks, strict=True):
            confusion.add(one, mask)
        summary(confusion.areas())
        return labels

    cases = [
        Case(ONE, lambda: single),
        Case("batched", lambda: batched),
        Case(f"{ONE}, metric", lambda: partial(with_metric, single)),
        Case("batched, metric", lambda: partial(with_metric, batched)),
    ]
    ceilings = measured_ceilings(ctx)
    timings = measure(cases, ctx, repeats=repeats, title="ms+flip")
    rows = make_rows(timings, units=len(shown), unit="images_s", base=ONE)
    rate = "bf16_gflop_s" if ctx.in_bf16(preset.train.precision) else "fp32_gflop_s"
    flop = count_flop(batched) if timings[1].seconds else 0.0
    for row, one in zip(rows, timings, strict=True):
        if flop:
            add_share(row, flop, rate, ceilings)
        if one.result is not None and timings[0].result is not None:
            row["same_as_one_view"] = five_digits(float((one.result == timings[0].result).mean()))
    return report(
        "eval",
        ctx,
        rows,
        settings={
            "preset": preset.name,
            "backbone": preset.train.backbone.name,
            "precision": preset.train.precision,
            "num_classes": num_classes,
            "scales": list(preset.eval.scales),
            "images": len(shown),
            "height": height,
            "width": width,
            "repeats": repeats,
            "seed": seed,
            "data": data,
        },
        ceilings=ceilings,
        ratio_to=ONE,
        notes=[
            "whole images in memory, every scale mirrored too; labels end in main memory",
            "metric: also the confusion matrix of all images, and the scores of it",
            f"share: of the matrix rate in {rate[:4]}, by the operations of the batched forward passes",
        ],
    )


def _batched(model: Segmentor, images: list[np.ndarray], preset: Preset, ctx: Context) -> np.ndarray:
    labels = []
    count = largest_batch(images[0].shape[:2], preset.eval, ctx, ms_flip=True)
    for start in range(0, len(images), count):
        batch = images[start : start + count]
        ctx.stop.check()
        maps = predict(model, batch, preset.eval, ctx, preset.train.precision, single=False, ms_flip=True)
        labels.append(maps["ms_flip"])
    return np.concatenate(labels)


@torch.no_grad()
def _one_by_one(model: Segmentor, images: list[np.ndarray], preset: Preset, ctx: Context) -> np.ndarray:
    labels = []
    for image in images:
        ctx.stop.check()
        height, width = image.shape[:2]
        total = torch.zeros((), device=ctx.device)
        for scale in preset.eval.scales:
            size = view_size(height, width, scale, preset.eval)
            resized = torch.from_numpy(cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR))
            x = model.backbone.normalise(resized.to(ctx.device).permute(2, 0, 1)[None])
            for mirrored in (False, True):
                with ctx.autocast(preset.train.precision):
                    logits = upsampled(model, x.flip(3) if mirrored else x)
                logits = F.interpolate(logits, (height, width), mode="bilinear", align_corners=False)
                probabilities = logits.softmax(1)
                total = total + (probabilities.flip(3) if mirrored else probabilities)
        labels.append(total.argmax(1).to(torch.uint8).cpu().numpy())
    return np.concatenate(labels)
