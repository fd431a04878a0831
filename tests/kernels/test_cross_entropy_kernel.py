import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from compiling import compile_kernels

from wsss_cli.losses.cross_entropy import cross_entropy

MODULE = "wsss_cli.kernels.cross_entropy"
ROUNDING = 2**-8 if torch.cuda.is_available() else 2**-7  # of bfloat16; the interpreter cuts digits off


def launched(*args):
    return pytest.importorskip(MODULE).upsampled_cross_entropy(*args)


def relative(found, expected):
    return ((found.double().cpu() - expected).norm() / expected.norm()).item()


def inputs(device, batch, classes, size, out_size, dtype=torch.float32):
    generator = torch.Generator().manual_seed(classes)
    logits = (4 * torch.randn(batch, classes, *size, generator=generator)).to(dtype)
    logits = logits.contiguous(memory_format=torch.channels_last)
    target = torch.randint(0, classes, (batch, *out_size), generator=generator, dtype=torch.uint8)
    target[torch.rand(target.shape, generator=generator) < 0.2] = 255
    weight = torch.rand(target.shape, generator=generator)
    return logits.to(device), target.to(device), weight.to(device)


def plain(logits, target, weight):
    """Loss and gradient in float64 on the CPU, upsampled logits in memory."""
    logits = logits.detach().cpu().double().requires_grad_()
    target = target.cpu().long()
    upsampled = F.interpolate(logits, size=target.shape[-2:], mode="bilinear", align_corners=False)
    cost = F.cross_entropy(upsampled, target, ignore_index=255, reduction="none")
    total = (cost if weight is None else cost * weight.cpu()).sum()
    return total.detach(), torch.autograd.grad(total, logits)[0]


SHAPES = {  # batch, classes, cells, pixels
    "twice, odd": (1, 3, (2, 3), (5, 6)),
    "more images than one": (2, 2, (2, 1), (3, 3)),
    "as large as the mask": (1, 5, (2, 3), (2, 3)),
    "larger than the mask": (1, 4, (4, 3), (2, 3)),
    "81 classes": (1, 81, (1, 2), (3, 4)),
}
WEIGHTED = ("twice, odd", "81 classes")


@pytest.mark.parametrize("name", SHAPES)
def test_sum_count_and_gradient_are_those_of_float64(name, device):
    logits, target, weight = inputs(device, *SHAPES[name])
    weight = weight if name in WEIGHTED else None
    logits.requires_grad_()
    total, count = launched(logits, target, weight)
    (grad,) = torch.autograd.grad(total, logits)
    expected, expected_grad = plain(logits, target, weight)
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)
    assert count.item() == (target != 255).sum().item()
    assert relative(grad, expected_grad) < 1e-6


def test_bfloat16_logits_get_the_float64_gradient_rounded_once(device):
    logits, target, weight = inputs(device, 1, 3, (1, 2), (3, 4), torch.bfloat16)
    total, _ = launched(logits.requires_grad_(), target.long(), weight)
    (grad,) = torch.autograd.grad(total, logits)
    expected, expected_grad = plain(logits, target, weight)
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)
    assert grad.dtype == torch.bfloat16
    torch.testing.assert_close(grad.double().cpu(), expected_grad, rtol=ROUNDING, atol=1e-5)


def test_by_hand(device):
    # class 0 has logits (0, 4) in a row of two; four pixels sample it at 0, 1, 3, 4; class 1 has 0
    logits = torch.tensor([[[[0.0, 4.0]], [[0.0, 0.0]]]], device=device, requires_grad=True)
    total, count = launched(logits, torch.zeros(1, 1, 4, dtype=torch.int64, device=device))
    total.backward()
    assert total.item() == pytest.approx(sum(math.log(1 + math.exp(-v)) for v in (0, 1, 3, 4)), rel=1e-6)
    assert count.item() == 4
    other = [1 / (1 + math.exp(v)) for v in (0, 1, 3, 4)]  # the softmax of class 1
    expected = [other[0] + 0.75 * other[1] + 0.25 * other[2], 0.25 * other[1] + 0.75 * other[2] + other[3]]
    assert logits.grad.cpu()[0, 1, 0].numpy() == pytest.approx(np.array(expected), rel=1e-5)
    assert logits.grad.cpu()[0, 0, 0].numpy() == pytest.approx(-np.array(expected), rel=1e-5)


@pytest.mark.parametrize("average", ["all", "valid"])
def test_the_loss_of_the_plain_path_with_and_without_the_kernel(average, device):
    logits, target, weight = inputs(device, 1, 3, (2, 2), (4, 3))
    fused = cross_entropy(logits, target, average, weight=weight, kernels="fused")
    assert fused.item() == pytest.approx(cross_entropy(logits, target, average, weight=weight).item(), rel=1e-6)
    target[:] = 255
    logits.requires_grad_()
    nothing = cross_entropy(logits, target, average, kernels="fused")
    nothing.backward()
    assert nothing.item() == 0.0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_what_the_kernel_does_not_do_takes_the_plain_path(device):
    logits, target, _ = inputs(device, 1, 3, (2, 2), (4, 3))
    fused = cross_entropy(logits, target, balance="fg-bg", kernels="fused")
    assert torch.equal(fused, cross_entropy(logits, target, balance="fg-bg"))


def test_faults_show(device):
    logits, target, _ = inputs(device, 1, 3, (1, 2), (2, 2))
    target[:] = 0
    target[0, 0, 0] = 3  # no such class
    assert math.isnan(launched(logits, target)[0].item())
    target[0, 0, 0] = 0
    logits[0, 1, 0, 0] = math.nan
    assert math.isnan(launched(logits, target)[0].item())


def test_large_logits_beside_the_cell_do_no_harm(device):
    logits = torch.tensor([[[[0.0, 0.0, 0.0, 900.0]], [[0.0, 900.0, 0.0, 0.0]]]], device=device, requires_grad=True)
    target = torch.zeros(1, 1, 8, dtype=torch.uint8, device=device)
    total, _ = launched(logits, target)
    (grad,) = torch.autograd.grad(total, logits)
    expected, expected_grad = plain(logits, target, None)
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)
    assert relative(grad, expected_grad) < 1e-6


SIZES = dict.fromkeys(("classes", "height", "width", "out_height", "out_width"), "i32")
AFTER_CROPS = ["height", "width", "out_height", "out_width"]  # multiples of 16
SIZES |= {"scale_y": "fp32", "scale_x": "fp32"}


def test_the_kernels_compile_and_keep_everything_in_registers():
    jobs = []
    for logits, target, padded, rows, cells in (("*bf16", "*i64", 32, 4, 16), ("*fp32", "*u8", 128, 1, 4)):
        start = {"logits": logits, "target": target, "weight": "*fp32", "log_sum": "*fp32"}
        forward = start | {"sums": "*fp32", "counts": "*i32"} | SIZES | {"tiles_y": "i32", "tiles_x": "i32"}
        constants = {"CLASSES": padded, "ROWS": rows, "COLUMNS": 16, "WEIGHTED": True}
        signature = forward | dict.fromkeys(constants, "constexpr")
        jobs.append((MODULE, "cross_entropy_forward", signature, constants, AFTER_CROPS, {}))
        backward = start | {"upstream": "*fp32", "grad": logits} | SIZES
        backward |= {"steps_y": "i32", "steps_x": "i32", "tiles": "i32"}
        constants = {"CLASSES": padded, "COLUMNS": cells, "WEIGHTED": True}
        signature = backward | dict.fromkeys(constants, "constexpr")
        jobs.append((MODULE, "cross_entropy_backward", signature, constants, AFTER_CROPS, {}))
    assert [made["spilled"] for made in compile_kernels(jobs)] == [0] * len(jobs)


@pytest.mark.gpu
@pytest.mark.parametrize("stride", [4, 8])
@pytest.mark.parametrize("classes", [2, 21, 81])
def test_sizes_of_a_training_on_a_gpu(classes, stride):
    cuda = torch.device("cuda")
    size = (512 // stride, 512 // stride + 1)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 4e-3)):
        logits, target, weight = inputs(cuda, 2, classes, size, (512, 509), dtype)
        total, count = launched(logits.requires_grad_(), target, weight)
        (grad,) = torch.autograd.grad(total, logits, retain_graph=True)
        expected, expected_grad = plain(logits, target, weight)
        assert total.item() == pytest.approx(expected.item(), rel=1e-5)
        assert count.item() == (target != 255).sum().item()
        assert relative(grad, expected_grad) < tolerance
        assert torch.equal(grad, torch.autograd.grad(total, logits)[0])  # the same bits again
