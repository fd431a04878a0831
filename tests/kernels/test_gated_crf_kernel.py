import pytest
import torch
from compiling import compile_kernel

from wsss_cli.config.loss import GatedCrfConfig
from wsss_cli.losses import gated_crf
from wsss_cli.losses.gated_crf import gated_crf_energy, gated_crf_loss

MODULE = "wsss_cli.kernels.gated_crf"


def inputs(device, batch, classes, height, width):
    generator = torch.Generator().manual_seed(classes)
    probabilities = torch.randn(batch, classes, height, width, generator=generator).softmax(1)
    image = 60 * torch.rand(batch, 3, height, width, generator=generator)
    gate = torch.rand(batch, height, width, generator=generator) < 0.8
    return probabilities.to(device), image.to(device), gate.to(device)


def energy_and_gradient(probabilities, *rest, fused):
    probabilities = probabilities.detach().requires_grad_()
    energy = gated_crf_energy(probabilities, *rest, fused=fused)
    return energy.detach(), torch.autograd.grad(3 * energy, probabilities)[0]


def relative(found, expected):
    return ((found.double() - expected).norm() / expected.norm()).item()


SHAPES = {  # batch, classes, height, width; radius
    "odd": ((2, 3, 7, 9), 5),
    "two tiles": ((1, 4, 12, 13), 3),
    "more than a block of classes": ((1, 17, 3, 5), 2),
    "a window larger than the map": ((1, 2, 4, 7), 8),
    "one row": ((1, 9, 1, 17), 5),
}


@pytest.mark.parametrize("name", SHAPES)
def test_energy_and_gradient_are_those_of_float64(name, device):
    pytest.importorskip("triton")
    shape, radius = SHAPES[name]
    probabilities, image, gate = inputs(device, *shape)
    energy, gradient = energy_and_gradient(probabilities, image, gate, radius, 2.5, 30.0, fused=True)
    right = energy_and_gradient(probabilities.double(), image.double(), gate, radius, 2.5, 30.0, fused=False)
    assert energy.item() == pytest.approx(right[0].item(), rel=1e-5)
    assert relative(gradient, right[1]) < 1e-5


def test_nothing_open_is_nothing(device):
    pytest.importorskip("triton")
    probabilities, image, gate = inputs(device, 1, 3, 4, 5)
    energy, gradient = energy_and_gradient(probabilities, image, gate & False, 2, 2.5, 30.0, fused=True)
    assert energy.item() == 0.0 and not gradient.any()


def test_other_layouts_in_memory_make_no_difference(device):
    pytest.importorskip("triton")
    probabilities, image, gate = inputs(device, 2, 3, 4, 5)
    there = [x.contiguous(memory_format=torch.channels_last) for x in (probabilities, image)]
    one, other = (energy_and_gradient(*x, gate, 2, 2.5, 30.0, fused=True) for x in ((probabilities, image), there))
    assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


@pytest.mark.parametrize("passed", [True, False])
def test_the_loss_takes_the_kernel_where_it_passes_its_trial(passed, device, monkeypatch):
    module, taken = pytest.importorskip(MODULE), []

    def launched(*args, right=module.messages_and_energy):
        taken.append(args)
        return right(*args)

    monkeypatch.setattr(module, "messages_and_energy", launched)
    monkeypatch.setattr(gated_crf, "usable", lambda check, where: passed)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 3, 4, 5, generator=generator).to(device).requires_grad_()
    image = torch.randint(0, 256, (1, 16, 20, 3), generator=generator, dtype=torch.uint8).to(device)
    valid = torch.ones(1, 16, 20, dtype=torch.bool, device=device)
    valid[:, 8:] = False
    losses = [gated_crf_loss(logits, image, valid, GatedCrfConfig(radius=2), way) for way in ("fused", "plain")]
    assert len(taken) == passed
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in losses]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-9)


@pytest.mark.slow
def test_the_kernel_compiles_and_keeps_everything_in_registers():
    signature = dict.fromkeys(("probabilities", "image"), "*fp32") | {"gate": "*u8"}
    signature |= dict.fromkeys(("messages", "energies"), "*fp32")
    signature |= dict.fromkeys(("classes", "height", "width", "radius"), "i32")
    signature |= {"space": "fp32", "colour": "fp32", "BLOCK": "constexpr", "PIXELS": "constexpr"}
    made = compile_kernel(MODULE, "gated_crf_messages", signature, {"BLOCK": 16, "PIXELS": 128})
    assert made["spilled"] == 0
