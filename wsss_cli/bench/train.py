"""Training steps of one network in several precisions, memory layouts and compilations."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from wsss_cli.bench.ceilings import add_share, count_flop, measured_ceilings
from wsss_cli.bench.inputs import pictures, untrained
from wsss_cli.bench.measure import (
    Case,
    Row,
    Work,
    five_digits,
    make_rows,
    measure,
    report,
)
from wsss_cli.config.schema import Preset
from wsss_cli.config.train import TrainConfig
from wsss_cli.engine.context import Context, bf16_serves
from wsss_cli.engine.fit import build_optimiser
from wsss_cli.errors import UsageError
from wsss_cli.models.build import build_segmentor
from wsss_cli.stages.segmentation import SegmentationTask

PLAIN = "fp32"
VARIANTS: dict[str, dict[str, Any]] = {
    PLAIN: {"precision": "fp32", "channels_last": False, "compile": False, "kernels": "plain"},
    "bf16": {"precision": "bf16", "channels_last": False, "compile": False, "kernels": "plain"},
    "channels-last": {"precision": "bf16", "channels_last": True, "compile": False, "kernels": "plain"},
    "compile": {"precision": "bf16", "channels_last": True, "compile": True, "kernels": "plain"},
    "fused": {"precision": "bf16", "channels_last": True, "compile": False, "kernels": "fused"},
}
"""Rows by name: what each changes in the preset's train section. All but the first are in bfloat16."""

COUNTED = (PLAIN, "bf16", "channels-last")  # the operations of kernels and compiled graphs are not seen


def bench_train(
    preset: Preset,
    ctx: Context,
    *,
    num_classes: int = 21,
    crop: int = 0,
    batch: int = 0,
    variants: Sequence[str] = (),
    steps: int = 0,
    repeats: int = 3,
    data: str = "",
) -> dict[str, Any]:
    """Time training iterations (forward, backward, optimiser) on one batch that stays on the device.

    Every row starts from the same weights, sees the same batch and draws the same dropout; learning rates stay at the
    preset's.

    Args:
        crop, batch: 0: the preset's on a GPU, 64 and 2 on a CPU.
        variants: keys of VARIANTS; none: all on a GPU, all that do not compile on a CPU.
        steps: iterations in a turn; 0: 20 on a GPU, 2 on a CPU.
        data: see `bench_inputs.pictures`.
    Returns:
        See `bench_measure.report`; rows also have 'loss_first' and 'loss_last' of all iterations of a row.
    Raises:
        UsageError: there is no such variant.
    """
    cpu = ctx.device.type == "cpu"
    crop, batch = crop or (64 if cpu else preset.train.crop), batch or (2 if cpu else preset.train.batch)
    variants = variants or [name for name in VARIANTS if not (cpu and name == "compile")]
    steps = steps or (2 if cpu else 20)
    if unknown := sorted(set(variants) - set(VARIANTS)):
        raise UsageError(f"there is no variant {unknown[0]!r}", f"choose from {', '.join(VARIANTS)}")
    preset = untrained(preset)
    inputs = _batch(preset, num_classes, batch, crop, ctx, data)
    losses: dict[str, list[torch.Tensor]] = {}
    cases = [Case(name, partial(_prepared, name, preset, num_classes, inputs, ctx, losses)) for name in variants]
    ceilings = measured_ceilings(ctx)
    timings = measure(cases, ctx, repeats=repeats, calls=steps, warm_up=2, title="training")
    rows = make_rows(timings, units=1, unit="it_s", base=PLAIN)
    ran = [row["name"] for row in rows if "ms" in row and row["name"] in COUNTED]
    flop = count_flop(_prepared(ran[0], preset, num_classes, inputs, ctx, {})) if ran else 0.0
    for row in rows:
        if flop:
            add_share(row, flop, "fp32_gflop_s" if row["name"] == PLAIN else "bf16_gflop_s", ceilings)
        _add_losses(row, losses)
    return report(
        "train",
        ctx,
        rows,
        settings={
            "preset": preset.name,
            "backbone": preset.train.backbone.name,
            "num_classes": num_classes,
            "crop": crop,
            "batch": batch,
            "steps": steps,
            "repeats": repeats,
            "seed": preset.seed,
            "data": data,
        },
        ceilings=ceilings,
        ratio_to=PLAIN,
        notes=[
            "one batch that stays on the device; data loading is not included",
            "all rows but fp32 are in bfloat16; compile and fused are channels-last, too",
            *([] if bf16_serves(ctx.device) else ["this device has no bfloat16 units: these rows are emulated"]),
            f"loss: at the first and at iteration {2 + steps * repeats}, from the same weights on the same batch",
            "share: of the matrix rate of the row's precision, by the operations of the plain network",
            "memory: added to what was held before, weights and optimiser included",
        ],
    )


def _batch(preset: Preset, num_classes: int, batch: int, crop: int, ctx: Context, data: str) -> dict[str, Any]:
    shown = pictures(batch, crop, crop, seed=preset.seed, data=data)
    shown = [shown[index % len(shown)] for index in range(batch)]
    masks = np.stack([np.where((p.mask < num_classes) | (p.mask == 255), p.mask, 0) for p in shown])
    tags = np.stack([np.isin(np.arange(num_classes), mask) for mask in masks])
    size = (batch, crop, crop)
    tensors = {
        "image": torch.from_numpy(np.stack([picture.image for picture in shown])),
        "mask": torch.from_numpy(masks),
        # what a preset with [train.noise] may ask for
        "confidence": torch.full(size, 255, dtype=torch.uint8),
        "tags": torch.from_numpy(tags.astype(np.uint8)),
        "size": torch.full((batch, 2), crop),
        "vouched": torch.zeros(size, dtype=torch.uint8),
    }
    return {key: value.to(ctx.device) for key, value in tensors.items()} | {"draw": (preset.seed, 0, 0)}


def _prepared(
    name: str,
    preset: Preset,
    num_classes: int,
    inputs: dict[str, Any],
    ctx: Context,
    losses: dict[str, list[torch.Tensor]],
) -> Work:
    changes = VARIANTS[name]
    if missing := sorted(set(changes) - set(TrainConfig.model_fields)):
        raise UsageError(f"this version has no train.{missing[0]}")
    config = TrainConfig.model_validate({**preset.train.model_dump(), **changes})
    torch.manual_seed(preset.seed)
    model = build_segmentor(config, num_classes, ctx.device, weights=False)
    task = SegmentationTask(model, config, lambda model: {})
    optimiser = build_optimiser(task, config.optim, ctx.device)
    model.train()
    seen = losses.setdefault(name, [])

    def step() -> None:
        torch.manual_seed(preset.seed + len(seen))  # dropout
        with ctx.autocast(config.precision):
            loss = torch.stack(list(task.losses(inputs).values())).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        seen.append(loss.detach())

    return step


def _add_losses(row: Row, losses: dict[str, list[torch.Tensor]]) -> None:
    if "ms" in row:
        seen = losses[row["name"]]
        row |= {"loss_first": five_digits(float(seen[0])), "loss_last": five_digits(float(seen[-1]))}
