"""What the Triton kernels should take on an H100, and what they are compiled to. Needs no GPU; prints Markdown.

    python benchmarks/kernel_figures.py

Times are arithmetic from the rates below, the highest of what bounds a launch; those marked as assumed are guesses.
Registers and shared memory are read from machine code that Triton makes for sm_90.
"""

from __future__ import annotations

import importlib
import re
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from wsss_cli.crf.dense import TOLERANCE
from wsss_cli.kernels import batch_norm, crf, depthwise, gated_crf, pair_losses, par, walk
from wsss_cli.pseudo.pairs import half_disc, path

MULTIPROCESSORS, CLOCK = 132, 1.7e9  # of an H100 SXM
REGISTERS, SHARED, WARPS = 65536, 227 * 1024, 64  # of a multiprocessor
RATES = {
    "memory": 0.85 * 3.35e12,  # bytes a second; the share is assumed
    "second cache": 5.5e12,  # bytes a second, assumed
    "first cache": 128 * MULTIPROCESSORS * CLOCK,  # bytes a second, assumed
    "exp2": 16 * MULTIPROCESSORS * CLOCK,
    "instructions": 128 * MULTIPROCESSORS * CLOCK,  # of one lane each
    "TF32": 0.7 * 495e12,  # flop a second; the share is assumed
    "float16": 0.7 * 989e12,
}
LAUNCH = 2e-6  # seconds, within a graph; assumed
COUNTED = {  # instructions of a lane, counted in the machine code of the loops of Triton 3.8.0
    "neighbour": 90,  # of the gated CRF, for a block of classes
    "step": 11,  # of a path, and
    "pair": 171,  # of IRN
    "difference": 15,  # of a channel, and
    "sign": 11,  # of it
}
NEAR = 0.119  # share of the pairs of a photograph that are near at this tolerance, see docs/explain/crf.md
TOOL = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
assert TOLERANCE == 3e-4


@dataclass(frozen=True)
class Kernel:
    """A kernel at one size of work.

    Attributes:
        types: of its arguments, in order, as Triton names them.
        constants: its compile-time arguments.
        work: how much of each of RATES one launch takes.
        launches: of one call, or of one step of a training.
        aligned: integers that are multiples of 16.
    """

    module: Any
    name: str
    what: str
    types: dict[str, str]
    constants: dict[str, Any]
    work: dict[str, float]
    launches: int = 1
    aligned: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


def kernels() -> list[Kernel]:
    """All of them but those that take next to nothing."""
    return [_dense_crf(), *_loss(), *_batch_norm(), *_depthwise(), _walk(), _par(), _gated_crf(), *_pair_losses()]


def _typed(**groups: str) -> dict[str, str]:
    """Types of arguments, given as type=names, in the order of the names; '_' stands for '*'."""
    return {name: kind.replace("_", "*") for kind, names in groups.items() for name in names.split()}


def _dense_crf() -> Kernel:
    pairs = NEAR * (375 * 500) ** 2
    types = {
        **_typed(_fp32="features centres"),
        "values": "*fp16",
        **_typed(_i32="offsets near"),
        "out": "*fp32",
        "columns": "i32",
    }
    constants = {"WIDTH": 32, "QUERIES": crf.QUERIES, "KEYS": crf.KEYS}
    work = {"exp2": pairs, "TF32": pairs * 2 * 16 * 2, "float16": pairs * 32 * 2}
    return Kernel(
        crf, "_spread", "375x500, 21 labels, 10 iterations", types, constants, work, 10, ("columns",), crf.LAUNCH
    )


def _loss() -> list[Kernel]:
    module = importlib.import_module("wsss_cli.kernels.cross_entropy")
    pixels, cells = 16 * 512 * 512, 16 * 128 * 128
    start = {"logits": "*bf16", "target": "*u8", "weight": "*fp32", "log_sum": "*fp32"}
    sizes = _typed(i32="classes height width out_height out_width", fp32="scale_y scale_x")
    forward = start | _typed(_fp32="sums", _i32="counts") | sizes | _typed(i32="tiles_y tiles_x")
    backward = start | {"upstream": "*fp32", "grad": "*bf16"} | sizes | _typed(i32="steps_y steps_x tiles")
    aligned = ("height", "width", "out_height", "out_width")
    first = {"CLASSES": 32, "ROWS": 4, "COLUMNS": 16, "WEIGHTED": True}
    second = {"CLASSES": 32, "COLUMNS": 16, "WEIGHTED": True}
    around = cells * 64 * 32  # pixels that a cell touches, classes
    what = "b16, crop 512, 21 classes, logits at stride 4"
    return [
        Kernel(
            module, "cross_entropy_forward", what, forward, first,
            {"memory": pixels * 9 + cells * 42, "exp2": pixels * 32, "instructions": pixels * 32 * 12}, 1, aligned,
        ),
        Kernel(
            module, "cross_entropy_backward", what, backward, second,
            {"memory": pixels * 9 + cells * 84, "exp2": around, "instructions": around * 199 / 4}, 1, aligned,
        ),
    ]  # fmt: skip


def _batch_norm() -> list[Kernel]:
    tile = {"ROWS": batch_norm.ROWS, "CHANNELS": batch_norm.CHANNELS}
    parameters, size = _typed(_fp32="mean scale weight bias"), _typed(i32="pixels channels")
    values, residual = 3.32e9, 1.14e9  # of all 70 layers, and of those with a residual sum
    what = "all 70 layers of R50-D8, b16, crop 512"
    aligned = ("pixels", "channels", "rows")
    rows = [
        ("statistics", {"x": "*bf16", **_typed(_fp32="means squares"), **size, "rows": "i32"}, {}, values),
        (
            "apply",
            {**_typed(_bf16="x residual"), **parameters, "out": "*bf16", **size},
            {"RELU": True, "RESIDUAL": True},
            2 * values + residual,
        ),
        (
            "reduce",
            {**_typed(_bf16="grad x out masked"), **parameters, "sums": "*fp32", **size, "rows": "i32"},
            {"FROM_INPUT": False, "FROM_OUTPUT": True},
            2 * values + 2 * residual,
        ),
        (
            "gradient",
            {**_typed(_bf16="grad x"), **parameters, "sums": "*fp32", "grad_x": "*bf16", **size},
            {"FROM_INPUT": True},
            3 * values,
        ),
    ]
    return [
        Kernel(batch_norm, f"batch_norm_{name}", what, types, more | tile, {"memory": 2 * moved / 70}, 70, aligned)
        for name, types, more, moved in rows
    ]


def _depthwise() -> list[Kernel]:
    geometry = _typed(i32="height width channels dilation")
    moved = 0.68e9 * 2 * 2 / 5
    forward = {"x": "*bf16", "weight": "*fp32", "out": "*bf16", **geometry, **_typed(i32="tiles blocks")}
    weight = {**_typed(_bf16="x grad"), "sums": "*fp32", "all_rows": "i32", **geometry, **_typed(i32="rows blocks")}
    what, aligned = "the 5 layers of the head, b16, crop 512", ("width", "channels")
    channels = {"CHANNELS": depthwise.CHANNELS}
    return [
        Kernel(
            depthwise, "depthwise_forward", f"{what}, and backward", forward,
            {"MIRROR": False, "PIXELS": depthwise.PIXELS, **channels}, {"memory": moved}, 10, aligned, depthwise.LAUNCH,
        ),
        Kernel(
            depthwise, "depthwise_weight", what, weight, {"PIXELS": depthwise.CHUNK_PIXELS, **channels},
            {"memory": moved}, 5, aligned,
        ),
    ]  # fmt: skip


def _walk() -> Kernel:
    places, pairs, classes = 94 * 125, len(half_disc(5)), 24
    types = {
        **_typed(_fp32="now new affinities degrees", _i32="distances"),
        **_typed(i32="pairs height width margin size"),
    }
    constants = {"CLASSES": classes, "BLOCK": 8, "ROWS": walk.ROWS, "COLUMNS": walk.COLUMNS, "UNROLL": walk.UNROLL}
    work = {
        "second cache": places * (2 * pairs * 4 * 3 + 2 * classes * 4),
        "instructions": places * 2 * pairs * classes * 2,
    }
    what = f"94x125, 21 classes, radius 5 ({pairs} pairs), 256 steps"
    return Kernel(walk, "walk_step", what, types, constants, work, 256, (), {"num_warps": 4, "num_stages": 1})


def _par() -> Kernel:
    places, neighbours, classes = 375 * 500, 48, 24
    types = {
        **_typed(_fp32="now new image scales", _i32="steps"),
        "shares": "*fp32",
        **_typed(i32="height width neighbours"),
    }
    constants = {"CLASSES": classes, "BLOCK": 8, "ROWS": par.ROWS, "COLUMNS": par.COLUMNS, "UNROLL": par.UNROLL}
    work = {
        "second cache": places * neighbours * (classes + 3 * 3) * 4,
        "exp2": places * neighbours * 3,
        "instructions": places * neighbours * (classes * 2 + 3 * 20),
    }
    options = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": False}
    return Kernel(
        par, "par_step", "375x500, 21 classes, 48 neighbours, 20 steps", types, constants, work, 20, (), options
    )


def _gated_crf() -> Kernel:
    batch, classes, side, window, block = 16, 21, 128, 11 * 11, 16
    types = {
        **_typed(_fp32="probabilities image"),
        "gate": "*u8",
        **_typed(_fp32="messages energies", i32="classes height width radius", fp32="space colour"),
    }
    blocks, pairs = -(-classes // block), batch * side * side * window
    work = {
        "memory": batch * side * side * (2 * classes * 4 + 3 * 4 + 1),
        "first cache": pairs * blocks * (block + 3 + 1 / 4) * 4,
        "exp2": pairs * blocks,
        "instructions": pairs * blocks * COUNTED["neighbour"],
    }
    what = f"b16, 128x128, {classes} classes, radius 5"
    return Kernel(
        gated_crf, "gated_crf_messages", what, types, {"BLOCK": block, "PIXELS": gated_crf.PIXELS}, work, 1, ()
    )


def _pair_losses() -> list[Kernel]:
    boundary = {
        "logits": "*fp32",
        "labels": "*u8",
        **_typed(_i32="table begins steps"),
        "shares": "*fp32",
        "slopes": "*i64",
        "losses": "*fp32",
        **_typed(i32="offsets height width", fp32="scale"),
    }
    offsets = half_disc(10)
    pixels, steps = 16 * 128 * 128, sum(len(path(offset)) for offset in offsets)
    pairs = pixels * len(offsets)
    first = Kernel(
        pair_losses, "boundary_pairs", f"IRN: b16, 128x128, radius 10 ({len(offsets)} pairs, {steps} steps)",
        boundary, {"GROUP": pair_losses.GROUP, "PIXELS": pair_losses.PIXELS},
        {
            "second cache": pairs * 32,  # a sector for each slope
            "first cache": (pixels * steps + pairs) * 4,
            "exp2": pairs * 4,  # exp, log, two reciprocals; what the conversion to 64 bits takes beside it
            "instructions": pixels * steps * COUNTED["step"] + pairs * COUNTED["pair"],
        },
    )  # fmt: skip
    batch, channels, side, offsets = 8, 448, 56, half_disc(5)
    values = batch * channels * side * side
    tile = {"PIXELS": pair_losses.FEATURE_PIXELS, "CHANNELS": pair_losses.CHANNELS}
    geometry = _typed(i32="channels height width")
    start = {"features": "*fp32", "labels": "*u8", "table": "*i32", **_typed(_fp32="shares slopes losses")}
    back = {"features": "*fp32", "table": "*i32", **_typed(_fp32="slopes gradient"), "offsets": "i32", **geometry}
    what = f"PSA: b8, 448 channels, 56x56, radius 5 ({len(offsets)} pairs)"
    both = 2 * len(offsets) * values
    return [
        first,
        Kernel(
            pair_losses, "feature_pairs", what, start | geometry, tile,
            {"memory": values * 4, "first cache": both * 4, "instructions": both / 2 * COUNTED["difference"]},
        ),
        Kernel(
            pair_losses, "feature_gradient", what, back, tile,
            {"memory": values * 8, "first cache": both * 4, "instructions": both * COUNTED["sign"]},
        ),
    ]  # fmt: skip


def compiled(kernel: Kernel) -> tuple[int, int, int, int]:
    """Registers of a thread, bytes that are spilled from them, bytes of shared memory, warps that fit at once."""
    signature = kernel.types | dict.fromkeys(kernel.constants, "constexpr")
    known = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(signature)
        if name in kernel.aligned or signature[name].startswith("*")
    }
    source = ASTSource(
        fn=getattr(kernel.module, kernel.name), signature=signature, constexprs=kernel.constants, attrs=known
    )
    binary = compile(source, target=GPUTarget("cuda", 90, 32), options=kernel.options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        command = [TOOL, "--dump-resource-usage", file.name]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    registers, stack = (int(re.search(rf"{what}:(\d+)", said)[1]) for what in ("REG", "STACK"))  # type: ignore[index]
    warps, shared = kernel.options.get("num_warps", 4), int(binary.metadata.shared)
    by_registers = REGISTERS // (-(-registers * 32 // 256) * 256) // warps
    by_shared = SHARED // (shared + 1024) if shared else WARPS
    return registers, stack, shared, min(by_registers, by_shared, WARPS // warps) * warps


def expected(kernel: Kernel) -> tuple[float, str]:
    """Milliseconds of all launches, and what bounds one."""
    times = {what: amount / RATES[what] for what, amount in kernel.work.items()} | {"launch": LAUNCH}
    worst = max(times, key=lambda what: times[what])
    return 1000 * times[worst] * kernel.launches, worst


def main() -> None:
    """Print the table."""
    print("| kernel | work | launches | ms by arithmetic | bound by | registers | spilled | shared, bytes | warps |")
    print("|---|---|---|---|---|---|---|---|---|")
    for kernel in kernels():
        ms, bound = expected(kernel)
        registers, spilled, shared, warps = compiled(kernel)
        print(
            f"| `{kernel.name.lstrip('_')}` | {kernel.what} | {kernel.launches} | {ms:.2f} | {bound} | "
            f"{registers} | {spilled} | {shared:,} | {warps} |"
        )


if __name__ == "__main__":
    main()
