"""Parameters and multiply-adds of a network by module, counted without computing anything."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from wsss_cli.config.schema import Preset
from wsss_cli.models.build import build_segmentor

COUNTED = "convolutions, matrix products and attention of one image; not norms, activations, pooling and resizing"


def bench_flops(preset: Preset, num_classes: int, *, size: tuple[int, int], depth: int) -> dict[str, Any]:
    """What the segmentation network of a preset costs for one image, on the meta device: no memory, no time.

    Args:
        size: height and width of the image, pixels.
        depth: how many levels of modules; 1: backbone and heads.
    Returns:
        {'preset', 'backbone', 'head', 'num_classes', 'height', 'width', 'depth', 'parameters', 'multiply_adds',
        'flops': twice that, 'counted': of what, 'modules': as `count_modules`}.
    Raises:
        UsageError: the network cannot be made.
    """
    nowhere = torch.device("meta")
    with nowhere:
        model = build_segmentor(preset.train, num_classes, nowhere, weights=False)
        image = model.backbone.normalise(torch.empty(1, 3, *size))
    modules, total = count_modules(model, image, depth)
    return {
        "preset": preset.name,
        "backbone": preset.train.backbone.name,
        "head": preset.train.head.kind,
        "num_classes": num_classes,
        "height": size[0],
        "width": size[1],
        "depth": depth,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "multiply_adds": total,
        "flops": 2 * total,
        "counted": COUNTED,
        "modules": modules,
    }


@torch.no_grad()
def count_modules(model: nn.Module, x: Tensor, depth: int) -> tuple[list[dict[str, Any]], int]:
    """Parameters and multiply-adds of the modules of a network down to a depth, in their order.

    A module counts what is in it, too. One that is all of the module above it has no row of its own.

    Args:
        model: on any device, the meta device among them.
        x: what it takes.
    Returns:
        ([{'name': dotted, 'type', 'parameters', 'multiply_adds'}], multiply-adds of all). A multiply-add is two FLOPs.

    Source: torch.utils.flop_counter, which counts 2 FLOPs for a multiply-add.
    """
    with FlopCounterMode(display=False) as counter:
        model.eval()(x)
    operations = _multiply_adds(model, counter.get_flop_counts())
    parameters = {name: sum(one.numel() for one in module.parameters()) for name, module in model.named_modules()}
    rows: list[dict[str, Any]] = []
    for name, module in model.named_modules():
        figures, above = (parameters[name], operations[name]), name.rpartition(".")[0]
        repeated = figures == (parameters[above], operations[above])
        if name and name.count(".") < depth and any(figures) and not repeated:
            kind = type(module).__name__
            rows.append({"name": name, "type": kind, "parameters": figures[0], "multiply_adds": figures[1]})
    return rows, counter.get_total_flops() // 2


def _multiply_adds(model: nn.Module, flops: dict[str, dict[Any, int]]) -> dict[str, int]:
    """Those of each module; one that is never called itself, such as a list, has those of what is in it."""
    root = type(model).__name__
    operations: dict[str, int] = {}
    for name, module in reversed(list(model.named_modules())):  # what is in a module comes before it
        path = f"{root}.{name}" if name else root
        inside = [operations.get(f"{name}.{child}" if name else child, 0) for child, _ in module.named_children()]
        operations[name] = sum(flops[path].values()) // 2 if path in flops else sum(inside)
    return operations
