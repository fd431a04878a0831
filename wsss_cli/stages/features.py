"""Feature maps of any layer as colours: the three directions in which the features of all pixels differ most."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from wsss_cli.cam.gradcam import PROBES, find_layer
from wsss_cli.engine.context import Context
from wsss_cli.errors import UsageError

TAILS = 1.0  # per cent of the pixels at each end whose colour is that of the end


@torch.no_grad()
def layer_output(model: nn.Module, layer: str, image: np.ndarray, ctx: Context) -> np.ndarray:
    """What a layer gives for an image, at the image's own size.

    Args:
        model: a network with a `backbone` that normalises; in evaluation mode afterwards.
        layer: as `named_modules` calls it, or, of the backbone, as timm does.
        image: RGB, uint8 [H, W, 3].
    Returns:
        Features, float32 [C, h, w].
    Raises:
        UsageError: there is no such layer; it has no part in a prediction; it gives no map.
    """
    model.eval()
    module = find_layer(model, layer, "--layer")
    last = _given(model, module, torch.from_numpy(image)[None].permute(0, 3, 1, 2), layer, ctx)
    looks = [_given(model, module, torch.zeros(1, 3, *sides), layer, ctx).shape for sides in PROBES]
    first, taller, wider = (tuple(look) for look in looks)
    if (taller[:2], taller[3], wider[:3]) != (first[:2], first[3], first[:3]) or first[0] != 1:
        what = f"{list(last.shape)}, whose last two axes are not height and width"
        raise UsageError(f"--layer: {layer} gives {what}", "choose another layer")
    maps: np.ndarray = last[0].float().cpu().numpy()
    return maps


def _given(model: nn.Module, module: nn.Module, images: Tensor, layer: str, ctx: Context) -> Tensor:
    """What a module gives for an image, RGB in 0..255, [1, 3, H, W]."""
    outputs: list[object] = []
    handle = module.register_forward_hook(lambda _, __, output: outputs.append(output))
    try:
        model(model.get_submodule("backbone").normalise(images.to(ctx.device)))  # type: ignore[operator]
    finally:
        handle.remove()
    if not outputs:
        raise UsageError(f"--layer: {layer} has no part in a prediction", "choose another layer")
    last = outputs[-1]
    last = last[-1] if isinstance(last, (list, tuple)) and last else last  # a backbone gives all its maps
    if not isinstance(last, Tensor) or last.ndim != 4:
        shape = f"a tensor {list(last.shape)}" if isinstance(last, Tensor) else f"a {type(last).__name__}"
        raise UsageError(f"--layer: {layer} gives {shape}, which is no map [1, C, h, w]", "choose another layer")
    return last


def principal_colors(maps: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Features -> pictures that can be compared: equal features have equal colours in all of them.

    Red, green and blue are the first three principal components over the pixels of all maps, each from its 1st to its
    99th percentile; their signs are those with which most of the weight is positive.

    Args:
        maps: float [C, h, w] each, of one C.
    Returns:
        RGB, uint8 [h, w, 3] each.
    """
    rows = torch.cat([torch.from_numpy(one).flatten(1).T for one in maps]).double()
    centred = rows - rows.mean(0)
    _, directions = torch.linalg.eigh(centred.T @ centred)
    top = directions.flip(1)[:, :3]
    top = top * torch.where(top.sum(0) < 0, -1.0, 1.0)
    parts = torch.zeros(len(rows), 3, dtype=torch.float64)
    parts[:, : top.shape[1]] = centred @ top
    low, high = (np.percentile(parts.numpy(), at, axis=0) for at in (TAILS, 100 - TAILS))
    scaled = np.clip((parts.numpy() - low) / np.maximum(high - low, 1e-12), 0, 1)
    colors = np.rint(255 * scaled).astype(np.uint8)
    ends = np.cumsum([one.shape[1] * one.shape[2] for one in maps])[:-1]
    return [part.reshape(*one.shape[1:], 3) for part, one in zip(np.split(colors, ends), maps, strict=True)]
