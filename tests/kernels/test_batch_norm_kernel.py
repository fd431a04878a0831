import copy

import pytest
import torch
import torch.nn.functional as F
from compiling import compile_kernels
from torch import nn

MODULE = "wsss_cli.kernels.batch_norm"
ROUNDING = 2**-8 if torch.cuda.is_available() else 2**-7  # of bfloat16; the interpreter cuts digits off


def relative(found, expected):
    return ((found.double().cpu() - expected).norm() / expected.norm()).item()


def fused(norm, relu):
    norm = copy.deepcopy(norm)
    norm.__class__ = pytest.importorskip(MODULE).FusedBatchNorm2d
    norm.relu = relu
    return norm


def layer(channels, seed=0):
    norm = nn.BatchNorm2d(channels, eps=1e-3, momentum=0.3)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        norm.weight.copy_(torch.randn(channels, generator=generator))
        norm.bias.copy_(torch.randn(channels, generator=generator))
        norm.running_mean.copy_(torch.randn(channels, generator=generator))
    return norm


def inputs(device, shape, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    made = (torch.randn(shape, generator=generator) for _ in range(3))
    x, residual, grad = (t.to(dtype).to(device).contiguous(memory_format=torch.channels_last) for t in made)
    return 2 * x + 5, residual, grad  # the mean is far from 0


def launched(norm, x, residual, grad):
    """Output, gradients of input, weight, bias and residual, running statistics."""
    leaves = [x.detach().requires_grad_()] + ([] if residual is None else [residual.detach().requires_grad_()])
    out = norm(*leaves)
    grads = torch.autograd.grad(out, [leaves[0], norm.weight, norm.bias, *leaves[1:]], grad)
    return out.detach(), *grads, norm.running_mean, norm.running_var


def plain(norm, x, residual, grad, relu):
    """The same by torch's own layers in float64."""
    norm = copy.deepcopy(norm).double().cpu()
    x = x.detach().double().cpu().requires_grad_()
    out = norm(x)
    leaves = [x, norm.weight, norm.bias]
    if residual is not None:
        residual = residual.detach().double().cpu().requires_grad_()
        out, leaves = out + residual, [*leaves, residual]
    out = F.relu(out) if relu else out
    grads = torch.autograd.grad(out, leaves, grad.double().cpu())
    return out.detach(), *grads, norm.running_mean, norm.running_var


CASES = {  # shape, relu, residual
    "alone": ((2, 5, 3, 4), False, False),
    "with ReLU": ((2, 5, 3, 4), True, False),
    "with residual and ReLU": ((1, 5, 7, 6), True, True),  # more pixels than a tile
    "with residual": ((1, 5, 2, 3), False, True),
    "more channels than a block, not a power of two": ((1, 70, 3, 3), True, True),
    "pooled": ((5, 3, 1, 1), True, False),
}


@pytest.mark.parametrize("name", CASES)
def test_output_gradients_and_running_statistics_are_those_of_float64(name, device):
    shape, relu, with_residual = CASES[name]
    norm = layer(shape[1])
    x, residual, grad = inputs(device, shape)
    residual = residual if with_residual else None
    expected = plain(norm, x, residual, grad, relu)
    mine = fused(norm, relu).to(device)
    found = launched(mine, x, residual, grad)
    assert [relative(*pair) < 1e-5 for pair in zip(found, expected, strict=True)] == [True] * len(expected)
    assert mine.num_batches_tracked.item() == 1
    assert found[0].is_contiguous(memory_format=torch.channels_last)


def test_bfloat16_is_rounded_once(device):
    norm = layer(5)
    x, residual, grad = inputs(device, (2, 5, 3, 4), torch.bfloat16)
    expected, found = plain(norm, x, residual, grad, True), launched(fused(norm, True).to(device), x, residual, grad)
    out, grad_x, grad_weight, grad_bias, grad_residual, *_ = found
    assert [t.dtype for t in (out, grad_x, grad_residual)] == [torch.bfloat16] * 3
    torch.testing.assert_close(out.double().cpu(), expected[0], rtol=ROUNDING, atol=1e-5)
    torch.testing.assert_close(grad_x.double().cpu(), expected[1], rtol=ROUNDING, atol=1e-5)
    assert torch.equal(grad_residual.double().cpu(), expected[4])  # the gradient where the ReLU is open, as it is
    for left, right in zip((grad_weight, grad_bias), expected[2:4], strict=True):
        assert relative(left, right) < 1e-5


def test_a_mean_far_from_0_costs_no_digits(device):
    norm = layer(2)
    x, _, grad = inputs(device, (1, 2, 5, 8))
    x = x + 1000  # float32 keeps 2^-14 of it; squares of the values themselves would be off by more than the variance
    found, expected = launched(fused(norm, False).to(device), x, None, grad), plain(norm, x, None, grad, False)
    assert relative(found[0], expected[0]) < 1e-4
    assert relative(found[-1], expected[-1]) < 1e-5


def test_chunks_of_many_pixels_are_merged(device, monkeypatch):
    monkeypatch.setattr(pytest.importorskip(MODULE), "PROGRAMS", 2)
    norm = layer(3)
    x, residual, grad = inputs(device, (1, 3, 9, 13))  # 117 pixels: a chunk of 64 and one of 53, in tiles of 32
    found, expected = launched(fused(norm, True).to(device), x, residual, grad), plain(norm, x, residual, grad, True)
    assert [relative(*pair) < 1e-5 for pair in zip(found, expected, strict=True)] == [True] * len(expected)


def test_a_frozen_norm_is_the_plain_one(device):
    norm = layer(3).eval()
    x, residual, _ = inputs(device, (1, 3, 2, 2))
    mine = fused(norm, True).to(device)
    torch.testing.assert_close(mine(x, residual), F.relu(norm.to(device)(x) + residual), rtol=0, atol=0)
    assert mine.num_batches_tracked.item() == 0


def test_a_layer_that_works_in_place_may_follow(device):
    norm = layer(3)
    x, residual, grad = inputs(device, (1, 3, 2, 2))
    out = fused(norm, False).to(device)(x.requires_grad_())
    out += residual
    (found,) = torch.autograd.grad(out, x, grad)
    assert relative(found, plain(norm, x, residual, grad, False)[1]) < 1e-5


def test_one_value_a_channel_is_refused_as_torch_does(device):
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        fused(layer(3), True).to(device)(torch.zeros(1, 3, 1, 1, device=device))


def test_what_is_not_finite_stays_so(device):
    x, _, _ = inputs(device, (1, 2, 2, 2))
    x[0, 0, 0, 0] = torch.nan
    out = fused(layer(2), True).to(device)(x)
    assert out[0, 0].isnan().all()
    assert out[0, 1].isfinite().all()


def test_other_norms_are_left_alone():
    fits = pytest.importorskip(MODULE).fits
    assert fits(nn.BatchNorm2d(3))
    others = [nn.BatchNorm2d(3, affine=False), nn.BatchNorm2d(3, track_running_stats=False)]
    others += [nn.BatchNorm2d(3, momentum=None), nn.BatchNorm1d(3), nn.SyncBatchNorm(3)]
    assert not any(map(fits, others))


TILE = {"ROWS": 32, "CHANNELS": 64}
PARAMETERS = dict.fromkeys(("mean", "scale", "weight", "bias"), "*fp32")
SIZE = {"pixels": "i32", "channels": "i32"}
KERNELS = {
    "batch_norm_statistics": ({"x": "*bf16", "means": "*fp32", "squares": "*fp32"} | SIZE | {"rows": "i32"}, TILE),
    "batch_norm_finish": (
        dict.fromkeys(("means", "squares", "mean_out", "scale_out", "running_mean", "running_var"), "*fp32")
        | SIZE
        | {"rows": "i32", "chunks": "i32", "momentum": "fp32", "eps": "fp32"},
        {"ROWS": 64, "CHANNELS": 16},
    ),
    "batch_norm_apply": (
        {"x": "*bf16", "residual": "*bf16"} | PARAMETERS | {"out": "*bf16"} | SIZE,
        {"RELU": True, "RESIDUAL": True} | TILE,
    ),
    "batch_norm_reduce": (
        dict.fromkeys(("grad", "x", "out", "masked"), "*bf16")
        | PARAMETERS
        | {"sums": "*fp32"}
        | SIZE
        | {"rows": "i32"},
        {"FROM_INPUT": False, "FROM_OUTPUT": True} | TILE,
    ),
    "batch_norm_gradient": (
        {"grad": "*bf16", "x": "*bf16"} | PARAMETERS | {"sums": "*fp32", "grad_x": "*bf16"} | SIZE,
        {"FROM_INPUT": True} | TILE,
    ),
}


def test_the_kernels_compile_and_keep_everything_in_registers():
    jobs = []
    for name, (arguments, constants) in KERNELS.items():
        signature = arguments | dict.fromkeys(constants, "constexpr")
        jobs.append((MODULE, name, signature, constants, ["pixels", "channels", "rows"], {}))
    assert [made["spilled"] for made in compile_kernels(jobs)] == [0] * len(jobs)


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(4, 64, 128, 127), (3, 560, 33, 31), (2, 2048, 32, 32), (16, 512, 1, 1)])
@pytest.mark.parametrize(("relu", "with_residual"), [(False, False), (True, False), (True, True)])
def test_layers_of_a_resnet_on_a_gpu(shape, relu, with_residual):
    cuda = torch.device("cuda")
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.bfloat16, 1e-2)):  # a ReLU's mask may flip near 0
        norm = layer(shape[1])
        x, residual, grad = inputs(cuda, shape, dtype, seed=shape[1])
        residual = residual if with_residual else None
        found = launched(fused(norm, relu).to(cuda), x, residual, grad)
        for left, right in zip(found, plain(norm, x, residual, grad, relu), strict=True):
            assert relative(left, right) < tolerance
        for left, right in zip(found, launched(fused(norm, relu).to(cuda), x, residual, grad), strict=True):
            assert torch.equal(left, right)  # the same bits again
