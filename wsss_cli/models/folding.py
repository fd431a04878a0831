"""Batch norms as part of the convolutions before them: the same scores from fewer passes over memory."""

from __future__ import annotations

import copy

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from wsss_cli.models.depthwise import DepthwiseConv2d
from wsss_cli.models.segmentor import Segmentor

LIMIT = 1e-5  # largest difference of a score, as a share of the largest score, 1 at least
SIDE = 32  # of the image that both are tried on, pixels

Pair = tuple[nn.Module, nn.Module]


@torch.no_grad()
def folded(model: Segmentor) -> Segmentor:
    """A copy of a network for predictions whose batch norms are folded into the convolutions that feed them.

    Which convolution feeds which batch norm is seen in a forward pass. Both networks are tried on an image of noise:
    where their scores differ by more than `LIMIT`, or are not finite, the network itself is given back, as it is where
    nothing can be folded.

    Args:
        model: on the CPU; in evaluation mode afterwards, else as it was.
    Returns:
        A network for predictions alone, without gradients.
    Source: the fold is `torch.nn.utils.fusion.fuse_conv_bn_weights`.
    """
    model.eval()
    numbers = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (1, 3, SIDE, SIDE), generator=numbers).float()
    x = model.backbone.normalise(pixels)
    twin = copy.deepcopy(model)
    names = {module: name for name, module in twin.named_modules()}
    try:
        pairs = _pairs(twin, x)
    except RuntimeError:  # no memory even for this: what is done about it is the caller's
        return model
    for conv, norm in pairs:
        _fold(conv, norm)
        parent, _, leaf = names[norm].rpartition(".")
        setattr(twin.get_submodule(parent), leaf, _rest(norm))
    scores, others = model(x), twin(x)
    bound = LIMIT * max(float(scores.abs().max()), 1.0)
    return twin if pairs and float((scores - others).abs().max()) <= bound else model


def _pairs(model: nn.Module, x: Tensor) -> list[Pair]:
    """Convolutions and the batch norms that are given their outputs, both used once."""
    outputs: dict[int, tuple[nn.Module, Tensor]] = {}  # holds the outputs, so that no other gets the id of one
    calls: list[nn.Module] = []
    pairs: list[Pair] = []

    def convolved(conv: nn.Module, _: object, out: Tensor) -> None:
        calls.append(conv)
        outputs[id(out)] = (conv, out)

    def normalising(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        calls.append(norm)
        if id(inputs[0]) in outputs:
            pairs.append((outputs[id(inputs[0])][0], norm))

    hooks = []
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, DepthwiseConv2d)):
            hooks.append(module.register_forward_hook(convolved))
        elif type(module) in (nn.BatchNorm2d, BatchNormAct2d):
            hooks.append(module.register_forward_pre_hook(normalising))
    model(x)
    for hook in hooks:
        hook.remove()
    return [pair for pair in pairs if all(calls.count(module) == 1 for module in pair)]


def _fold(conv: nn.Module, norm: nn.Module) -> None:
    assert isinstance(conv, (nn.Conv2d, DepthwiseConv2d)) and isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None and norm.running_var is not None
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )


def _rest(norm: nn.Module) -> nn.Module:
    """What a batch norm does after normalising."""
    return nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity()
