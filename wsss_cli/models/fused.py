"""A network that runs on the Triton kernels; imported only where they are asked for, as it needs Triton."""

from __future__ import annotations

from itertools import pairwise

from timm.models import FeatureListNet
from timm.models.resnet import Bottleneck
from torch import Tensor, nn

from wsss_cli.kernels import batch_norm, depthwise
from wsss_cli.models.blocks import ConvBnRelu


class FusedBottleneck(Bottleneck):
    """timm's residual block, its last batch norm, sum and ReLU being one; `fuse` makes it of a plain block."""

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.bn1(self.conv1(x))))
        summed: Tensor = self.bn3(self.conv3(out), x if self.downsample is None else self.downsample(x))
        return summed


def fuse(model: nn.Module) -> int:
    """Put the training of `model` on the kernels, in place; parameters, buffers and state-dict keys stay.

    Batch norms (`nn.BatchNorm2d`, not its subclasses) take over the ReLU, or the residual sum and the ReLU, that
    follow them in a `nn.Sequential`, in timm's ResNets and in `ConvBnRelu`; 3x3 depthwise convolutions at stride 1 get
    their kernel. In evaluation mode, and where batch norm is frozen, all but dilated depthwise convolutions compute
    what they did before.

    Returns:
        How many batch norms and convolutions were replaced.
    """
    replaced = 0
    for module in model.modules():
        if batch_norm.fits(module):
            module.__class__ = batch_norm.FusedBatchNorm2d
            replaced += 1
        elif depthwise.fits(module):
            module.__class__ = depthwise.DepthwiseConv3x3
            replaced += 1
    for module in model.modules():
        if type(module) is Bottleneck:
            _fuse_bottleneck(module)
        elif type(module) is ConvBnRelu:
            _take_over(module, "bn", "relu")
        elif isinstance(module, (nn.Sequential, FeatureListNet)):  # these call their children in order
            names = [name for name, _ in module.named_children()]
            for norm, act in pairwise(names):
                _take_over(module, norm, act)
    return replaced


def fuse_dilated(model: nn.Module) -> int:
    """Put the dilated 3x3 depthwise convolutions of a network that predicts on their kernel, in place.

    Returns:
        How many there are.
    """
    dilated = [
        one for one in model.modules() if isinstance(one, nn.Conv2d) and depthwise.fits(one) and one.dilation[0] > 1
    ]
    for convolution in dilated:
        convolution.__class__ = depthwise.DepthwiseConv3x3
    return len(dilated)


def _take_over(parent: nn.Module, norm: str, act: str) -> None:
    """Let a batch norm do the ReLU after it."""
    first = getattr(parent, norm)
    if isinstance(first, batch_norm.FusedBatchNorm2d) and isinstance(getattr(parent, act), nn.ReLU):
        first.relu = True
        setattr(parent, act, nn.Identity())


def _fuse_bottleneck(block: Bottleneck) -> None:
    """Leaves a block alone that does more than a plain ResNet's."""
    between = (block.drop_block, block.aa)
    plain = all(isinstance(module, nn.Identity) for module in between) and block.se is None and block.drop_path is None
    norms = all(isinstance(norm, batch_norm.FusedBatchNorm2d) for norm in (block.bn1, block.bn2, block.bn3))
    if plain and norms and all(isinstance(act, nn.ReLU) for act in (block.act1, block.act2, block.act3)):
        for number in (1, 2, 3):
            _take_over(block, f"bn{number}", f"act{number}")
        block.__class__ = FusedBottleneck
