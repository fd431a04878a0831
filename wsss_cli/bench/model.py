"""Measure a network: frames a second, training iterations a second, memory."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from wsss_cli.bench.measure import wait
from wsss_cli.config.schema import Preset
from wsss_cli.engine.context import Context
from wsss_cli.engine.fit import build_optimiser
from wsss_cli.inference.predict import upsampled
from wsss_cli.models.build import build_segmentor
from wsss_cli.stages.kernel_choice import check_kernels
from wsss_cli.stages.segmentation import SegmentationTask
from wsss_cli.stages.train import on_usable_kernels, put_on_kernels

WARM_UP = 5  # calls before the clock starts


def bench_network(
    preset: Preset, num_classes: int, ctx: Context, *, crop: int, steps: int, train: bool = True
) -> dict[str, Any]:
    """Inference at batch 1 and training at the preset's batch on random images of `crop` x `crop` pixels.

    Args:
        steps: timed calls of each kind.
        train: also time training steps (forward, backward, optimiser; data not included).
    Returns:
        `fps`, `ms_per_image`; `train_it_s`, `train_img_s`; memory in GiB: on a GPU the peak that torch allocated in
        inference and in training, on a CPU the peak of the whole process; the settings that it holds for.
    Raises:
        UsageError: kernels that cannot run on this device.

    Source: the tools/analysis_tools/benchmark.py of MMSegmentation times single images after five warm-up calls, too.
    """
    check_kernels(preset.train, ctx.device.type)
    config = on_usable_kernels(preset.train, ctx.device)
    preset = preset.model_copy(update={"train": config})
    torch.manual_seed(preset.seed)
    model = build_segmentor(preset.train, num_classes, ctx.device, weights=False)
    figures: dict[str, Any] = {
        "preset": preset.name,
        "backbone": preset.train.backbone.name,
        "num_classes": num_classes,
        "crop": crop,
        "precision": preset.train.precision,
        "channels_last": preset.train.channels_last,
        "compile": preset.train.compile,
        "kernels": preset.train.kernels,
        "steps": steps,
        "device": ctx.device_name,
        "torch": torch.__version__,
    }
    image = torch.randint(0, 256, (1, 3, crop, crop), device=ctx.device, dtype=torch.uint8)

    def predict() -> Tensor:
        with torch.no_grad(), ctx.autocast(preset.train.precision):
            return upsampled(model, model.backbone.normalise(image)).argmax(1)

    model.eval()
    seconds = _seconds(predict, steps, ctx, "inference")
    figures |= {"fps": round(steps / seconds, 2), "ms_per_image": round(1000 * seconds / steps, 2)}
    figures["inference_memory_gib"] = _peak_memory(ctx.device)
    if train:
        figures |= _train(model, preset, num_classes, ctx, crop, steps)
    return figures


def _train(model: Any, preset: Preset, num_classes: int, ctx: Context, crop: int, steps: int) -> dict[str, Any]:
    put_on_kernels(model, preset.train)
    config, task = preset.train, SegmentationTask(model, preset.train, lambda model: {})
    optimiser = build_optimiser(task, config.optim, ctx.device)
    size = (config.batch, crop, crop)
    batch = {
        "image": torch.randint(0, 256, (*size, 3), device=ctx.device, dtype=torch.uint8),
        "mask": torch.randint(0, num_classes, size, device=ctx.device, dtype=torch.uint8),
        # what a preset with [train.noise] may ask for
        "confidence": torch.full(size, 255, device=ctx.device, dtype=torch.uint8),
        "tags": torch.ones(config.batch, num_classes, device=ctx.device, dtype=torch.uint8),
        "size": torch.full((config.batch, 2), crop, device=ctx.device),
        "vouched": torch.zeros(size, device=ctx.device, dtype=torch.uint8),
        "draw": (preset.seed, 0, 0),
    }

    def step() -> None:
        with ctx.autocast(config.precision):
            loss = torch.stack(list(task.losses(batch).values())).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    model.train()
    seconds = _seconds(step, steps, ctx, "training")
    return {
        "batch": config.batch,
        "train_it_s": round(steps / seconds, 3),
        "train_img_s": round(steps * config.batch / seconds, 2),
        "train_memory_gib": _peak_memory(ctx.device),
    }


def _seconds(work: Callable[[], object], steps: int, ctx: Context, title: str) -> float:
    """Seconds of `steps` calls after the warm-up."""
    if ctx.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(ctx.device)
    warm_up = min(WARM_UP, steps)
    begin = 0.0
    with ctx.ui.progress(warm_up + steps, title) as bar:
        for number in range(warm_up + steps):
            ctx.stop.check()
            if number == warm_up:
                wait(ctx.device)
                begin = time.perf_counter()
            work()
            bar.advance(1)
        wait(ctx.device)
    return time.perf_counter() - begin


def _peak_memory(device: torch.device) -> float:
    """GiB: the peak that torch allocated on a GPU since the last reset, or the peak of this process so far."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**30, 2)
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30, 2)
