"""What whole networks should take on an H100, by arithmetic alone: nothing is computed. Needs Triton and no GPU; prints
Markdown.

    python benchmarks/network_figures.py

An operation takes what takes longest: its multiply-adds on the tensor cores, its bytes from and to memory, or a launch;
operations come one after the other. Rates and the kernels of a training step are those of kernel_figures.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from kernel_figures import LAUNCH, RATES, expected, kernels
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from wsss_cli.config.load import load_preset
from wsss_cli.models.build import build_classifier, build_segmentor

NOWHERE = torch.device("meta")
NORMS = ("native_batch_norm", "native_batch_norm_backward")
WITH_NORMS = (*NORMS, "relu", "relu_", "threshold_backward", "add_")  # what their kernels do too; add_: residual sums
OWN = {"batch_norm": "batch norm", "depthwise": "depthwise convolution", "cross_entropy": "loss"}  # kernels of a step
PRESET = "deeplabv3p-r50-voc-full"


@dataclass
class Times:
    """Milliseconds by kind of operation, and how many launches they are."""

    ms: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    launches: int = 0


class _Counting(TorchDispatchMode):
    """Adds up what operations on the meta device would take, but for those whose name or kind is in `free`."""

    def __init__(self, free: tuple[str, ...]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.free, self.times = free, Times()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name, kind = func.overloadpacket.__name__, _kind(func, args)
        if name in self.free or kind in self.free or kind == "none":
            return out
        moved = sum(one.numel() * one.element_size() for one in (*_tensors(args), *_tensors(out)))
        count = flop_registry.get(func.overloadpacket) if kind == "convolution" else None
        flops = count(*args, **kwargs, out_val=out) if count else 0
        self.times.ms[kind] += 1000 * max(moved / RATES["memory"], flops / RATES["float16"], LAUNCH)
        self.times.launches += 1
        return out


def _kind(func: Any, args: tuple[Any, ...]) -> str:
    """'none' for what moves nothing: views, and memory that is asked for."""
    name = func.overloadpacket.__name__
    view = any(one.alias_info and not one.alias_info.is_write for one in func._schema.returns)
    if view or name.startswith(("empty", "new_empty")):
        return "none"
    if name.startswith("convolution"):
        return "convolution" if args[9 if name.endswith("backward") else 8] == 1 else "depthwise convolution"
    return "batch norm" if name in NORMS else "other"


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _tensors(one)


def counted(work: Callable[[], object], *free: str) -> Times:
    """What some work on the meta device would take."""
    counting = _Counting(free)
    with counting:
        work()
    return counting.times


def training() -> dict[str, Times]:
    """A step of DeepLabV3+ R50-D8, crop 512, batch 16, without the optimiser: plain torch, and with kernels."""
    model = build_segmentor(load_preset(PRESET).train, 21, NOWHERE, weights=False).to(torch.bfloat16).train()
    x = torch.empty(16, 3, 512, 512, device=NOWHERE, dtype=torch.bfloat16)
    labels = torch.empty(16, 512, 512, device=NOWHERE, dtype=torch.long)

    def network() -> Tensor:
        return torch.stack([one.float().sum() for one in model(x, aux=True)]).sum()

    def step() -> None:
        losses = [F.cross_entropy(enlarged(one, 512, 512).float(), labels) for one in model(x, aux=True)]
        torch.stack(losses).sum().backward()

    fused = counted(lambda: network().backward(), *WITH_NORMS, "depthwise convolution")
    for kernel in kernels():
        for beginning, kind in OWN.items():
            if kernel.name.startswith(beginning):
                fused.ms[kind] += expected(kernel)[0]
    return {"training, plain": counted(step), "training, fused": fused}


@torch.no_grad()
def predictions() -> dict[str, tuple[Times, int]]:
    """A forward of that network to class numbers at 512x512, batch norm folded or not, and how many images."""
    model = build_segmentor(load_preset(PRESET).train, 21, NOWHERE, weights=False).to(torch.bfloat16)
    rows = {}
    for batch in (1, 16):
        x = torch.empty(batch, 3, 512, 512, device=NOWHERE, dtype=torch.bfloat16)

        def work(x: Tensor = x) -> None:
            enlarged(model(x), 512, 512).argmax(1).to(torch.uint8)

        rows[f"inference, batch {batch}"] = counted(work), batch
        rows[f"inference, batch {batch}, folded"] = counted(work, *NORMS), batch
    return rows


@torch.no_grad()
def cams() -> dict[str, tuple[Times, int]]:
    """CAMs of a ResNet-50 at stride 16 of eight photographs of 375x500, four scales, mirrored too."""
    preset = load_preset(PRESET)
    model = build_classifier(preset.classifier, 21, NOWHERE, weights=False).to(torch.bfloat16)
    views = [
        torch.empty(16, 3, round(375 * scale), round(500 * scale), device=NOWHERE, dtype=torch.bfloat16)
        for scale in preset.cam.scales
    ]

    def work() -> None:
        for view in views:
            enlarged(model.cam(view), 94, 125)

    return {"CAMs, 4 scales, mirrored": (counted(work), 8), "the same, folded": (counted(work, *NORMS), 8)}


def enlarged(maps: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(maps, (height, width), mode="bilinear", align_corners=False)


def table() -> list[str]:
    """The lines of the table."""
    kinds = ("convolution", "depthwise convolution", "batch norm", "loss", "other")
    lines = [
        "| work | ms | a second | launches | " + " | ".join(kinds) + " |",
        "|---|---|---|---|" + "---|" * len(kinds),
    ]
    rows = {name: (times, 1) for name, times in training().items()} | predictions() | cams()
    for name, (times, images) in rows.items():
        ms = sum(times.ms.values())
        parts = " | ".join(f"{times.ms[kind]:.1f}" for kind in kinds)
        lines.append(f"| {name} | {ms:.1f} | {1000 * images / ms:.3g} | {times.launches:,} | {parts} |")
    return lines


if __name__ == "__main__":
    print("\n".join(table()))
