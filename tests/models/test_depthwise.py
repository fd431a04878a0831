import copy

import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn

from wsss_cli.models.depthwise import DepthwiseConv2d, speed_up_depthwise

CHANNELS = 8


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def conv(kernel, stride, dilation, same, channels=CHANNELS):
    make = Conv2dSame if same else nn.Conv2d
    padding = 0 if same else dilation * (kernel // 2)
    return make(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False)


def gradients(module, x, bf16):
    x = x.clone().requires_grad_()
    module.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        out = module(x)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    (out.float() * weights).sum().backward()
    return out.detach().float(), x.grad, module.weight.grad.clone()


def error(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(15, 21), (16, 18), (17, 16), (5, 7)])
@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (1, 3), (2, 1), (2, 3)])
def test_gradients_are_those_of_the_convolution(stride, dilation, kernel, same, size, layout):
    reference = conv(kernel, stride, dilation, same)
    fast = DepthwiseConv2d(copy.deepcopy(reference), same)
    x = torch.randn(2, CHANNELS, *size).contiguous(memory_format=layout)
    expected = gradients(reference, x, bf16=False)
    for bf16, tolerance in ((True, 2e-2), (False, 1e-5)):
        found = gradients(fast, x, bf16)
        for name, left, right in zip(("output", "input", "weight"), found, expected, strict=True):
            assert left.shape == right.shape
            assert left.dtype == torch.float32
            assert error(left, right) < tolerance, name


def test_an_input_without_gradient_gets_none():
    fast = DepthwiseConv2d(conv(3, 2, 1, True), True)
    with torch.autocast("cpu", torch.bfloat16):
        out = fast(torch.randn(1, CHANNELS, 9, 9))
    out.float().sum().backward()
    assert fast.weight.grad.isfinite().all()
    fast.weight.requires_grad_(False)
    fast.weight.grad = None
    x = torch.randn(1, CHANNELS, 9, 9, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        fast(x).float().sum().backward()
    assert fast.weight.grad is None
    assert x.grad.abs().sum() > 0


def test_depthwise_convolutions_alone_are_replaced_and_the_keys_stay():
    net = nn.Sequential(
        nn.Conv2d(3, CHANNELS, 3),
        nn.Sequential(conv(3, 2, 1, True), nn.BatchNorm2d(CHANNELS), conv(5, 1, 3, False)),
        nn.Conv2d(CHANNELS, CHANNELS, 3, groups=2),
        nn.Conv2d(CHANNELS, CHANNELS, 3, groups=CHANNELS),  # has a bias
        nn.Conv2d(CHANNELS, CHANNELS, (3, 1), groups=CHANNELS, bias=False),
        nn.Conv2d(CHANNELS, 2 * CHANNELS, 3, groups=CHANNELS, bias=False),
    ).eval()
    x = torch.randn(1, 3, 40, 40)
    before, state = net(x), copy.deepcopy(net.state_dict())
    assert speed_up_depthwise(net) == 2
    assert isinstance(net[1][0], DepthwiseConv2d)
    assert isinstance(net[1][2], DepthwiseConv2d)
    assert list(net.state_dict()) == list(state)
    assert torch.allclose(net(x), before, atol=1e-5)
    net.load_state_dict(state)
    assert speed_up_depthwise(net) == 0
