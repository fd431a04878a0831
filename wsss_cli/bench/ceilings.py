"""What a device reaches at its best, and what part of that a piece of work reached."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from wsss_cli.bench.measure import Row, Work, five_digits, wait
from wsss_cli.engine.context import Context, bf16_serves

COPY_MIB = {"cuda": 512, "cpu": 128}  # beyond the caches
MATRIX = {"cuda": 8192, "cpu": 1024}
TRIES = 5  # of a ceiling; the best one is taken


def measured_ceilings(ctx: Context) -> dict[str, Any]:
    """What the device reaches at its best: a copy (bytes read and written), and products of square matrices.

    Returns:
        'copy_gb_s', 'fp32_gflop_s' (on a GPU in TF32, as the networks run), 'bf16_gflop_s' (None without the hardware).
    """
    kind, device = ctx.device.type, ctx.device
    ceilings: dict[str, Any] = {"copy_gb_s": five_digits(_copy_rate(ctx)), "bf16_gflop_s": None}
    size = MATRIX[kind]
    types = {"fp32": torch.float32, **({"bf16": torch.bfloat16} if bf16_serves(device) else {})}
    for name, dtype in types.items():
        a = torch.randn(size, size, device=device).to(dtype)
        product = torch.empty_like(a)
        seconds = _best(partial(torch.mm, a, a, out=product), ctx)
        ceilings[f"{name}_gflop_s"] = five_digits(2 * size**3 / seconds / 1e9)
    return ceilings


def _copy_rate(ctx: Context) -> float:
    """GB/s, bytes read and bytes written both counted."""
    source = torch.ones(COPY_MIB[ctx.device.type] * 2**18, device=ctx.device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _best(lambda: target.copy_(source), ctx) / 1e9


def _best(work: Work, ctx: Context) -> float:
    """Seconds of the quickest call."""
    work()
    seconds = []
    for _ in range(TRIES):
        ctx.stop.check()
        wait(ctx.device)
        begin = time.perf_counter()
        work()
        wait(ctx.device)
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def count_flop(work: Work) -> float:
    """Floating-point operations of the convolutions and matrix products of a call, by their shapes; 2 a product."""
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.convolution_backward: _backward}) as counter:
        work()
    return float(counter.get_total_flops())


def _backward(
    grad: Sequence[int], x: Sequence[int], weight: Sequence[int], *rest: Any, out_shape: Any = None, **_: Any
) -> int:
    """Of a convolution's gradients, by shapes: each takes the products of the forward pass.

    torch counts the weight gradient of a convolution in groups as if it had none: a depthwise one of 1,152 channels
    1,152 times.
    """
    transposed, mask = rest[4], rest[7]
    places = math.prod(x) if transposed else math.prod(grad)
    return 2 * places * math.prod(weight[1:]) * (bool(mask[0]) + bool(mask[1]))


def add_share(row: Row, amount: float, rate: str, ceilings: dict[str, Any]) -> None:
    """Add what a row reached of a ceiling, where it has a time: 'reached', 'reached_of' (the rate), 'share' (0..1).

    Args:
        amount: bytes or floating-point operations of a call.
        rate: 'copy_gb_s', 'fp32_gflop_s' or 'bf16_gflop_s'.
    """
    if "ms" in row and ceilings.get(rate):
        reached = amount / 1e6 / row["ms"]
        row |= {"reached_of": rate, "reached": five_digits(reached), "share": five_digits(reached / ceilings[rate])}
