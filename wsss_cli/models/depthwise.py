"""Depthwise convolution whose backward pass on a CPU runs near the speed of its forward pass.

oneDNN computes the input gradient of strided, and the weight gradient of 5x5, depthwise convolutions in bfloat16 by a
reference loop, 20 to 60 times slower than the forward pass. Both gradients have fast equivalents: the input gradient
is the forward convolution of the (zero-stuffed) output gradient with the mirrored kernel, and the weight gradient is
fast in float32, but for a dilated kernel as wide as the map, which is taken tap by tap.

In float32 the reference loop is met where the kernel is dilated: there, and nowhere else, the input gradient is that
convolution, and the weight gradient is taken tap by tap.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = (stride, padding, dilation)
        return F.conv2d(x, weight, None, stride, padding, dilation, x.shape[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        x, weight = ctx.saved_tensors
        stride, padding, dilation = ctx.geometry
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = _input_gradient(grad, weight, x.shape, stride, padding, dilation)
        wide = dilation * (weight.shape[-1] - 1) >= max(x.shape[2:])
        if ctx.needs_input_grad[1] and stride == 1 and (wide or x.dtype == torch.float32):
            grad_weight = _weight_by_taps(grad, x, weight, padding, dilation)
        elif ctx.needs_input_grad[1]:
            _, grad_weight, _ = torch.ops.aten.convolution_backward(
                grad.float(),
                x.float(),
                weight.float(),
                None,
                [stride] * 2,
                [padding] * 2,
                [dilation] * 2,
                False,
                [0, 0],
                x.shape[1],
                [False, True, False],
            )
            grad_weight = grad_weight.to(weight.dtype)
        return grad_x, grad_weight, None, None, None


def _weight_by_taps(grad: Tensor, x: Tensor, weight: Tensor, padding: int, dilation: int) -> Tensor:
    """Weight gradient at stride 1, in float32, of the dtype of `weight`: for each tap, the pixels that it meets."""
    slopes = torch.zeros(weight.shape, dtype=torch.float32)
    (height, width), (out_height, out_width) = x.shape[2:], grad.shape[2:]
    g, x = grad.float().permute(0, 2, 3, 1), x.float().permute(0, 2, 3, 1)
    size = weight.shape[-1]
    for row in range(size):
        down = row * dilation - padding
        top, bottom = max(0, -down), min(out_height, height - down)
        for column in range(size):
            along = column * dilation - padding
            left, right = max(0, -along), min(out_width, width - along)
            if top < bottom and left < right:
                seen = x[:, top + down : bottom + down, left + along : right + along]
                slopes[:, 0, row, column] = (g[:, top:bottom, left:right] * seen).sum((0, 1, 2))
    return slopes.to(weight.dtype)


def _input_gradient(
    grad: Tensor, weight: Tensor, shape: torch.Size, stride: int, padding: int, dilation: int
) -> Tensor:
    reach = dilation * (weight.shape[-1] - 1)
    if stride > 1:
        # every place where a window may begin at stride 1: the last ones may lie behind the last one at this stride
        places = [size + 2 * padding - reach for size in shape[2:]]
        stuffed = grad.new_zeros(*grad.shape[:2], *places).contiguous(memory_format=torch.channels_last)
        stuffed[:, :, ::stride, ::stride] = grad
        grad = stuffed
    return F.conv2d(grad, weight.flip(2, 3), None, 1, reach - padding, dilation, grad.shape[1])


class DepthwiseConv2d(nn.Module):
    """A bias-free depthwise `nn.Conv2d` (or timm's `Conv2dSame`) with the fast CPU backward pass; shares its weight.

    Args:
        conv: the convolution that this one replaces; square kernel, stride and dilation.
        same: pad as TensorFlow does (timm's `Conv2dSame`).
    """

    def __init__(self, conv: nn.Conv2d, same: bool) -> None:
        super().__init__()
        self.weight = conv.weight
        self.bias: nn.Parameter | None = None  # of a batch norm that is folded in, for predictions
        self.stride, self.dilation = conv.stride[0], conv.dilation[0]
        self.padding = 0 if same else int(conv.padding[0])
        self.same = same

    def forward(self, x: Tensor) -> Tensor:
        padding = self.padding
        if self.same:
            pads = [self._same_pad(size) for size in x.shape[-2:]]
            if pads[0] == pads[1] and pads[0] % 2 == 0 and self.stride == 1:
                padding = pads[0] // 2
            elif any(pads):
                (top, left) = (pads[0] // 2, pads[1] // 2)
                x = F.pad(x, (left, pads[1] - left, top, pads[0] - top))
        if x.device.type == "cpu" and torch.is_autocast_enabled("cpu") and torch.is_grad_enabled():
            dtype = torch.get_autocast_dtype("cpu")
            with torch.autocast("cpu", enabled=False):
                out: Tensor = _Depthwise.apply(x.to(dtype), self.weight.to(dtype), self.stride, padding, self.dilation)
                return out
        trained = x.device.type == "cpu" and x.dtype == torch.float32 and torch.is_grad_enabled()
        if trained and self.dilation > self.stride == 1:
            dilated: Tensor = _Depthwise.apply(x, self.weight, 1, padding, self.dilation)
            return dilated
        return F.conv2d(x, self.weight, self.bias, self.stride, padding, self.dilation, x.shape[1])

    def _same_pad(self, size: int) -> int:
        out = -(-size // self.stride)
        return max((out - 1) * self.stride + (self.weight.shape[-1] - 1) * self.dilation + 1 - size, 0)


def speed_up_depthwise(model: nn.Module) -> int:
    """Replace the depthwise convolutions of `model` in place; state-dict keys stay. Returns how many were replaced."""
    replaced = 0
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if not isinstance(child, nn.Conv2d) or not 1 < child.groups == child.in_channels == child.out_channels:
                continue
            same = type(child).__name__ == "Conv2dSame"
            plain = same or not isinstance(child.padding, str)
            square = len({*child.kernel_size}) == len({*child.stride}) == len({*child.dilation}) == 1
            if child.bias is None and plain and square and child.padding_mode == "zeros":
                setattr(parent, name, DepthwiseConv2d(child, same))
                replaced += 1
    return replaced
