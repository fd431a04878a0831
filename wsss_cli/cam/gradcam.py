"""Grad-CAM: feature maps weighted by the mean gradient of a class score, for any layer of the backbone."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss_cli.errors import UsageError
from wsss_cli.models.classifier import CamClassifier


class GradCam:
    """Grad-CAMs of images whose tags are known, for `multiscale_cam`.

    Args:
        model: in evaluation mode, its parameters without gradient, so that nothing before the layer is kept.
        tags: classes (0 .. C-1) of each image; a batch of twice as many has the mirrored images behind them.
        layer: a module of the backbone, see `find_layer`; empty: the last feature map.
    """

    def __init__(self, model: CamClassifier, tags: Sequence[Sequence[int]], layer: str = "") -> None:
        self.model, self.tags = model, tags
        self.normalise = model.backbone.normalise
        self.layer = find_layer(model.backbone.net, layer) if layer else None

    def cam(self, x: Tensor) -> Tensor:
        """Normalised images [B, 3, H, W] -> h * w times `grad_cam`, [B, C, h, w]: at the last map the plain CAM.

        Without the factor the small scales, whose maps have few pixels, would outweigh the others in the sum.
        """
        maps = grad_cam(self.model, x, list(self.tags) * (len(x) // max(len(self.tags), 1)), self.layer)
        return maps * maps[0, 0].numel()


def grad_cam(model: CamClassifier, x: Tensor, tags: Sequence[Sequence[int]], layer: nn.Module | None = None) -> Tensor:
    """ReLU(sum_k w_k A_k) with w_k the spatial mean of d logit_c / d A_k.

    One forward pass, and one backward pass for the first tag of each image, one for the second, and so on: the
    images of a batch do not see each other. With `layer` None this is the plain CAM divided by h * w.

    Args:
        model: classifier in evaluation mode.
        x: normalised images, float [B, 3, H, W].
        tags: classes (0 .. C-1) of each image.
        layer: gives maps [B, D, h, w], or tokens [B, n, D] whose last h * w are the grid; None: the last feature map.
    Returns:
        float [B, C, h, w]; 0 for classes that an image is not tagged with.
    Raises:
        UsageError: the layer is not reached, or gives neither maps nor tokens.
    Source: Selvaraju et al., Grad-CAM, ICCV 2017, eq. 1-2.
    """
    features, maps = _forward(model, x, layer)
    grid = maps.shape[-2:] if maps.ndim == 4 else features.shape[-2:]
    if maps.ndim == 3 and maps.shape[1] < grid.numel():
        raise UsageError(f"cam.method.layer: {maps.shape[1]} tokens for a grid of {grid[0]} x {grid[1]}", HINT)
    result = maps.new_zeros((len(x), model.classifier.out_channels, *grid), dtype=torch.float32)
    rounds = max((len(classes) for classes in tags), default=0)
    with torch.enable_grad():
        logits = model.scores(features).float()
        for turn in range(rounds):
            rows = [row for row, classes in enumerate(tags) if len(classes) > turn]
            columns = [tags[row][turn] for row in rows]
            (gradient,) = torch.autograd.grad(logits[rows, columns].sum(), maps, retain_graph=turn + 1 < rounds)
            result[rows, columns] = F.relu(_weighted(maps.detach(), gradient, grid)[rows])
    return result


def check_layer(model: CamClassifier, name: str) -> None:
    """Refuse a layer whose output does not follow the sides of an image as a map, or the tokens of the last map, do.

    Three small images of other heights and widths tell: [B, h, w, D], heads of attention, windows and the tokens of an
    earlier stage have as many axes.

    Args:
        model: in evaluation mode while it is looked at.
        name: as of `find_layer`.
    Raises:
        UsageError: there is no such layer, or it gives neither maps nor the tokens of the last map.
    """
    layer, training = find_layer(model.backbone.net, name), model.training
    device = model.classifier.weight.device
    model.eval()
    looks = []
    try:
        for height, width in PROBES:
            features, maps = _forward(model, torch.zeros(1, 3, height, width, device=device), layer)
            looks.append((tuple(maps.shape), features.shape[-2:]))
    finally:
        model.train(training)
    (first, grid), (taller, _), (wider, _) = looks
    if len(first) == 4:
        steady = (taller[:2], taller[3], wider[:3]) == (first[:2], first[3], first[:3])
        fits = steady and taller[2] > first[2] and wider[3] > first[3]
    else:  # tokens: those that stand for no pixel are as many in every image
        fits = len({(shape[0], shape[2], shape[1] - pixels.numel()) for shape, pixels in looks}) == 1
    if not fits or first[0] != 1:
        raise UsageError(
            f"cam.method.layer: {name} gives {list(first)} where the last map has {grid[0]} x {grid[1]} pixels: "
            "neither maps [B, D, h, w] nor tokens of that map [B, n, D]",
            HINT,
        )


def _forward(model: CamClassifier, x: Tensor, layer: nn.Module | None) -> tuple[Tensor, Tensor]:
    """(last feature map, what the layer gave); the former depends on the latter, which is a leaf of the graph."""
    if layer is None:
        with torch.no_grad():
            features = model.features(x)
        leaf = features.detach().requires_grad_()
        return leaf, leaf
    leaves: list[Tensor] = []

    def cut(module: nn.Module, inputs: Any, output: Any) -> Any:
        if not isinstance(output, Tensor) or output.ndim not in (3, 4):
            raise UsageError(f"cam.method.layer: {type(module).__name__} gives neither maps nor tokens", HINT)
        leaves[:] = [output.detach().requires_grad_()]
        return leaves[0].clone()  # what follows may work in place, which a leaf does not allow

    handle = layer.register_forward_hook(cut)
    try:
        with torch.enable_grad():
            features = model.features(x)
    finally:
        handle.remove()
    if not leaves or not features.requires_grad:
        raise UsageError(f"cam.method.layer: the class scores do not depend on this {type(layer).__name__}", HINT)
    return features, leaves[0]


PROBES = ((64, 96), (128, 96), (64, 160))  # height and width of images that tell a map from other outputs
HINT = "choose a layer that gives feature maps, e.g. layer4.1 of a ResNet or blocks.11.norm1 of a ViT; '' is the last"


def _weighted(maps: Tensor, gradient: Tensor, grid: torch.Size) -> Tensor:
    """sum_k w_k A_k, float32 [B, h, w], whatever autocast would make of it."""
    with torch.autocast(maps.device.type, enabled=False):
        if maps.ndim == 4:
            return torch.einsum("bd,bdhw->bhw", gradient.float().mean((2, 3)), maps.float())
        pixels = grid[0] * grid[1]
        weights = gradient[:, -pixels:].float().mean(1)  # prefix tokens come first
        cam: Tensor = torch.einsum("bd,bnd->bn", weights, maps[:, -pixels:].float()).unflatten(1, tuple(grid))
        return cam


def find_layer(net: nn.Module, name: str, setting: str = "cam.method.layer") -> nn.Module:
    """The module of a backbone that timm calls `name`, or of a network that has one.

    Args:
        setting: what asked for it, for the error.
    Raises:
        UsageError: there is none; the nearest names are in the hint.
    """
    modules = dict(net.named_modules())
    for known_as in (name, f"model.{name}", name.replace(".", "_", 1)):  # timm's feature networks: stages_0, not .0
        for place in (known_as, f"backbone.net.{known_as}"):
            if known_as and place in modules:
                layer: nn.Module = modules[place]
                return layer
    known = [key.removeprefix("backbone.net.").removeprefix("model.") for key in modules if key]
    near = difflib.get_close_matches(name, known, 4, 0.5)
    names = f"near it: {', '.join(near)}" if near else f"it has {', '.join(_first(known, 12))}"
    raise UsageError(f"{setting}: the backbone has no module {name!r}", names)


def _first(names: list[str], count: int) -> list[str]:
    """The last of those of the fewest parts, which are what a network consists of."""
    return sorted(names, key=lambda name: name.count("."))[:count]
