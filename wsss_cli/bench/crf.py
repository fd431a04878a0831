"""Dense CRF, backend by backend: time, memory, and whether they say the same."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from wsss_cli.bench.ceilings import add_share, measured_ceilings
from wsss_cli.bench.inputs import pictures, score_maps
from wsss_cli.bench.measure import (
    Case,
    Measured,
    Row,
    Work,
    five_digits,
    make_rows,
    measure,
    report,
    require_choice,
    require_cuda,
)
from wsss_cli.config.refine import CRF_SETS
from wsss_cli.crf import dense_crf, lattice
from wsss_cli.engine.context import Context
from wsss_cli.errors import UsageError

BACKENDS = ("lattice", "pydensecrf2", "exact", "triton")
ON_ONE_CORE = ("lattice", "pydensecrf2")
SIZE = {"cuda": (375, 500), "cpu": (96, 128)}
PAIR_LABELS = 4e10  # all pairs times labels times iterations that a CPU is asked for: about a minute


def bench_crf(
    ctx: Context,
    *,
    size: tuple[int, int] = (0, 0),
    labels: int = 21,
    parameters: str = "irn",
    iterations: int = 10,
    backends: Sequence[str] = BACKENDS,
    repeats: int = 3,
    seed: int = 0,
    data: str = "",
) -> dict[str, Any]:
    """Time `dense_crf` on one image, a call from arrays to arrays.

    Args:
        size: height and width of the image; 0: 375 x 500 on a GPU, 96 x 128 on a CPU.
        parameters: a key of CRF_SETS.
        backends: rows; 'lattice', on one core, is what ratios are taken to.
        data: see `bench_inputs.pictures`.
    Returns:
        See `bench_measure.report`; rows also have 'same_as_lattice' and 'same_as_exact', the shares of pixels that get
        the same label.
    Raises:
        UsageError: there is no such backend.
    """
    if unknown := sorted(set(backends) - set(BACKENDS)):
        raise UsageError(f"there is no backend {unknown[0]!r}", f"choose from {', '.join(BACKENDS)}")
    height, width = (side or usual for side, usual in zip(size, SIZE[ctx.device.type], strict=True))
    picture = pictures(1, height, width, seed=seed, data=data)[0]
    unary = -np.log(np.clip(score_maps(picture.mask, labels, seed), 1e-5, 1.0))
    values = CRF_SETS[parameters].model_copy(update={"iterations": iterations}).model_dump()
    cases = [
        Case(name, partial(_prepared, name, picture.image, unary, values, ctx), host=name in ON_ONE_CORE)
        for name in backends
    ]
    ceilings = measured_ceilings(ctx)
    timings = measure(cases, ctx, repeats=repeats, title="dense CRF")
    why = lattice.why_not() if "lattice" in backends else ""
    rows = make_rows(timings, units=1, unit="images_s", base="lattice")
    messages = 2.0 * (height * width) ** 2 * labels * iterations
    for row in rows:
        if row["name"] not in ON_ONE_CORE:
            add_share(row, messages, "fp32_gflop_s", ceilings)
    _add_agreement(rows, timings)
    return report(
        "crf",
        ctx,
        rows,
        settings={
            "height": height,
            "width": width,
            "labels": labels,
            "parameters": parameters,
            "iterations": iterations,
            "repeats": repeats,
            "seed": seed,
            "data": data,
        },
        ceilings=ceilings,
        ratio_to="lattice",
        notes=[
            *([f"lattice: computed by pydensecrf2, as its own one is not used here: {why}"] if why else []),
            "one image, from arrays to arrays; lattice and pydensecrf2: an approximation, on one core",
            "share: of the float32 matrix rate, for 2 N^2 K operations an iteration, the messages of one kernel",
            "memory: added to what was held before; on the GPU what torch allocated, of lattice what was resident",
        ],
        peers=["pydensecrf2"],
    )


def _prepared(name: str, image: np.ndarray, unary: np.ndarray, values: dict[str, Any], ctx: Context) -> Work:
    require_choice(dense_crf, "backend", name)
    if name == "triton":
        require_cuda(ctx.device)
    pairs = (image.shape[0] * image.shape[1]) ** 2
    if name == "exact" and ctx.device.type == "cpu" and pairs * len(unary) * values["iterations"] > PAIR_LABELS:
        raise UsageError(f"{pairs:.1e} pairs of pixels are too many for a CPU; give a smaller --height and --width")
    backend: Any = name  # which ones there are is read off the signature
    return lambda: dense_crf(image, unary, **values, backend=backend)


def _add_agreement(rows: Sequence[Row], timings: Sequence[Measured]) -> None:
    maps = {one.name: one.result.argmax(0) for one in timings if one.result is not None}
    for other in ("lattice", "exact"):
        for row in rows:
            if row["name"] in maps and other in maps and row["name"] != other:
                row[f"same_as_{other}"] = five_digits(float((maps[row["name"]] == maps[other]).mean()))
