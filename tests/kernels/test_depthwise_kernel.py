import pytest
import torch
import torch.nn.functional as F
from compiling import compile_kernels
from torch import nn

MODULE = "wsss_cli.kernels.depthwise"
ROUNDING = 2**-8 if torch.cuda.is_available() else 2**-7  # of bfloat16; the interpreter cuts digits off


def relative(found, expected):
    return ((found.double().cpu() - expected).norm() / expected.norm()).item()


def inputs(device, shape, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, grad = (torch.randn(shape, generator=generator).to(dtype).to(device) for _ in range(2))
    weight = torch.randn(shape[1], 1, 3, 3, generator=generator).to(device)
    return x.contiguous(memory_format=torch.channels_last), weight, grad.contiguous(memory_format=torch.channels_last)


def launched(x, weight, grad, dilation):
    x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
    out = pytest.importorskip(MODULE).depthwise3x3(x, weight, dilation)
    return out, *torch.autograd.grad(out, (x, weight), grad)


def plain(x, weight, grad, dilation):
    """Output and gradients in float64, tap by tap: shifted and cut maps, summed."""
    x, weight, grad = x.double().cpu(), weight.double().cpu(), grad.double().cpu()
    out, grad_x, grad_weight = torch.zeros_like(x), torch.zeros_like(x), torch.zeros_like(weight)
    height, width = x.shape[2:]
    for i in range(3):
        for j in range(3):
            down, along = (i - 1) * dilation, (j - 1) * dilation
            for y in range(max(0, -down), min(height, height - down)):
                for u in range(max(0, -along), min(width, width - along)):
                    out[:, :, y, u] += weight[:, 0, i, j] * x[:, :, y + down, u + along]
                    grad_x[:, :, y + down, u + along] += weight[:, 0, i, j] * grad[:, :, y, u]
                    grad_weight[:, 0, i, j] += (grad[:, :, y, u] * x[:, :, y + down, u + along]).sum(0)
    return out, grad_x, grad_weight


CASES = {  # shape, dilation
    "adjacent taps": ((2, 5, 3, 4), 1),
    "more channels than a block, not a power of two": ((1, 70, 2, 3), 1),
    "dilated, odd": ((1, 4, 5, 3), 2),
    "taps off the map": ((1, 3, 2, 3), 12),
    "wider than a tile": ((1, 2, 1, 37), 24),
}


@pytest.mark.parametrize("name", CASES)
def test_output_and_gradients_are_those_of_float64(name, device):
    shape, dilation = CASES[name]
    x, weight, grad = inputs(device, shape, torch.float32)
    found, expected = launched(x, weight, grad, dilation), plain(x, weight, grad, dilation)
    assert [relative(*pair) < 1e-6 for pair in zip(found, expected, strict=True)] == [True] * 3
    assert found[0].is_contiguous(memory_format=torch.channels_last)


def test_bfloat16_is_rounded_once(device):
    x, weight, grad = inputs(device, (1, 5, 3, 4), torch.bfloat16)
    found, expected = launched(x, weight, grad, 1), plain(x, weight, grad, 1)
    assert [tensor.dtype for tensor in found] == [torch.bfloat16, torch.bfloat16, torch.float32]
    for left, right in zip(found[:2], expected[:2], strict=True):
        torch.testing.assert_close(left.double().cpu(), right, rtol=ROUNDING, atol=1e-6)
    assert relative(found[2], expected[2]) < 1e-6


def test_the_module_is_the_convolution_that_it_stands_for(device):
    kernels = pytest.importorskip(MODULE)
    conv = nn.Conv2d(3, 3, 3, padding=2, dilation=2, groups=3, bias=False).to(device)
    x, _, _ = inputs(device, (1, 3, 4, 5), torch.float32)
    expected = conv(x)
    conv.__class__ = kernels.DepthwiseConv3x3
    torch.testing.assert_close(conv(x), expected)
    assert type(conv(x).grad_fn).__name__ == "_DepthwiseBackward"
    with torch.autocast(device.type, torch.bfloat16):
        assert conv(x).dtype == torch.bfloat16
    conv.eval()
    torch.testing.assert_close(conv(x), expected)
    assert type(conv(x).grad_fn).__name__ == "_DepthwiseBackward"
    conv.dilation = conv.padding = (1, 1)
    assert torch.equal(conv(x), F.conv2d(x, conv.weight, None, 1, 1, 1, 3))
    assert type(conv(x).grad_fn).__name__ == "ConvolutionBackward0"


@pytest.mark.parametrize(
    "changed",
    [{"groups": 2}, {"stride": 2}, {"bias": True}, {"padding": 1}, {"kernel_size": 5}, {"padding_mode": "reflect"}],
)
def test_other_convolutions_are_left_alone(changed):
    fits = pytest.importorskip(MODULE).fits
    usual = {"kernel_size": 3, "padding": 2, "dilation": 2, "groups": 4, "bias": False}
    assert fits(nn.Conv2d(4, 4, **usual))
    assert not fits(nn.Conv2d(4, 4, **(usual | changed)))


GEOMETRY = {"height": "i32", "width": "i32", "channels": "i32", "dilation": "i32"}


def test_the_kernels_compile_and_keep_everything_in_registers():
    kernels = pytest.importorskip(MODULE)
    forward = {"x": "*bf16", "weight": "*fp32", "out": "*bf16"} | GEOMETRY | {"tiles": "i32", "blocks": "i32"}
    weight = {"x": "*bf16", "grad": "*bf16", "sums": "*fp32", "all_rows": "i32"} | GEOMETRY
    weight |= {"rows": "i32", "blocks": "i32"}
    jobs = [
        ("depthwise_forward", forward, {"MIRROR": False, "PIXELS": kernels.PIXELS, "CHANNELS": 64}, kernels.LAUNCH),
        ("depthwise_forward", forward, {"MIRROR": True, "PIXELS": kernels.PIXELS, "CHANNELS": 64}, kernels.LAUNCH),
        ("depthwise_weight", weight, {"PIXELS": kernels.CHUNK_PIXELS, "CHANNELS": 64}, {}),
    ]
    jobs = [
        (MODULE, name, arguments | dict.fromkeys(constants, "constexpr"), constants, ["width", "channels"], launch)
        for name, arguments, constants, launch in jobs
    ]
    made = compile_kernels(jobs)
    assert [kernel["spilled"] for kernel in made] == [0] * len(jobs)
    assert max(kernel["registers"] for kernel in made[:2]) <= 160  # 12 warps fit a multiprocessor


@pytest.mark.gpu
@pytest.mark.parametrize(("channels", "size", "dilation"), [(560, 65, 1), (512, 33, 12), (520, 64, 24), (96, 64, 36)])
def test_layers_of_the_head_on_a_gpu(channels, size, dilation):
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 4e-3)):
        x, weight, grad = inputs(torch.device("cuda"), (3, channels, size, size - 1), dtype, seed=channels)
        found = launched(x, weight, grad, dilation)
        left, right = x.double().requires_grad_(), weight.double().requires_grad_()
        out = F.conv2d(left, right, None, 1, dilation, dilation, channels)
        expected = (out, *torch.autograd.grad(out, (left, right), grad.double()))
        for one, other in zip(found, expected, strict=True):
            assert relative(one, other.detach().cpu()) < tolerance
        for one, other in zip(found, launched(x, weight, grad, dilation), strict=True):
            assert torch.equal(one, other)  # the same bits again
