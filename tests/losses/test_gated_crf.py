import math

import numpy as np
import pytest
import torch
from references.gated_crf import draw, energy_by_pixel

from wsss_cli.config.loss import GatedCrfConfig
from wsss_cli.losses.gated_crf import gated_crf_energy, gated_crf_loss


def test_two_pixels_by_hand():
    # one pair, met from both sides: 2 k (1 - p.p'); k = exp(-1/2 (1/sxy^2 + 3 * 10^2 / srgb^2))
    p = torch.tensor([[0.75, 0.5], [0.25, 0.5]]).view(1, 2, 1, 2)
    image = torch.tensor([0.0, 10.0]).view(1, 1, 1, 2).expand(1, 3, 1, 2)
    energy = gated_crf_energy(p, image, torch.ones(1, 1, 2, dtype=torch.bool), 5, 2.0, 20.0)
    assert energy.item() == pytest.approx(2 * math.exp(-0.5 * (0.25 + 0.75)) * 0.5, rel=1e-6)


@pytest.mark.parametrize("radius", [1, 3, 8])
def test_the_energy_is_that_of_the_loop(radius):
    p, image, gate = draw()
    expected = sum(energy_by_pixel(*(t[i].numpy() for t in (p, image, gate)), radius, 2.5, 30.0) for i in range(2))
    assert gated_crf_energy(p, image, gate, radius, 2.5, 30.0).item() == pytest.approx(expected, rel=1e-12)


def test_the_gradient_is_that_of_finite_differences():
    p, image, gate = draw(1, 2, 3, 4)
    assert torch.autograd.gradcheck(lambda q: gated_crf_energy(q, image, gate, 2, 2.0, 30.0), p.requires_grad_())


def test_certain_and_equal_pixels_cost_nothing_and_edges_cost_less():
    p = torch.zeros(1, 2, 4, 4)
    p[:, 0] = 1
    flat = torch.zeros(1, 3, 4, 4)
    gate = torch.ones(1, 4, 4, dtype=torch.bool)
    assert gated_crf_energy(p, flat, gate, 2, 6.0, 25.5).item() == pytest.approx(0.0, abs=1e-5)
    p[:, :, :, 2:] = p[:, [1, 0], :, 2:]  # the label changes in the middle
    edge = flat.clone()
    edge[..., 2:] = 200.0  # and so does the colour
    assert gated_crf_energy(p, edge, gate, 2, 6.0, 25.5) < 1e-4 * gated_crf_energy(p, flat, gate, 2, 6.0, 25.5)


def test_what_is_gated_out_has_neither_energy_nor_gradient():
    p, image, gate = draw()
    p.requires_grad_()
    gated_crf_energy(p, image, gate, 2, 6.0, 25.5).backward()
    closed = ~gate[:, None].expand_as(p)
    assert closed.any() and (p.grad[closed] == 0).all() and (p.grad[~closed] != 0).any()


@pytest.mark.parametrize("dims", [(-1,), (-2,)])
def test_a_mirrored_crop_has_the_same_loss_and_the_mirrored_gradient(dims):
    config = GatedCrfConfig(radius=3)
    logits = torch.randn(2, 3, 6, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()
    image = torch.randint(0, 256, (2, 24, 32, 3), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    valid = torch.ones(2, 24, 32, dtype=torch.bool)
    valid[0, 15:], valid[1, :, 21:] = False, False
    loss = gated_crf_loss(logits, image, valid, config)
    mirrored = logits.detach().flip(dims).requires_grad_()
    at = [dim - 1 for dim in dims]  # images have their channels last
    other = gated_crf_loss(mirrored, image.flip(at), valid.flip(dims), config)
    assert loss.item() > 0
    torch.testing.assert_close(loss, other)
    loss.backward()
    other.backward()
    torch.testing.assert_close(logits.grad.flip(dims), mirrored.grad, rtol=1e-4, atol=1e-7)


def test_the_loss_is_the_energy_of_the_reduced_crop_for_each_cell():
    # 8 x 8 crop of which 8 x 6 is image: at stride 4 the right column of cells is half padding and takes no part
    config = GatedCrfConfig(weight=0.5, average="valid", radius=1, sxy=1.0, srgb=20.0)
    image = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    image[:, 4:, :4] = torch.tensor([0, 40], dtype=torch.uint8).repeat(2)[:, None]  # a mean of 20
    valid = torch.ones(1, 8, 8, dtype=torch.bool)
    valid[..., 6:] = False
    logits = torch.zeros(1, 2, 2, 2)
    logits[0, 0, 0, 0] = math.log(3.0)
    energy = 2 * math.exp(-0.5 * (1 + 3 * 20**2 / 20**2)) * 0.5
    assert gated_crf_loss(logits, image, valid, config).item() == pytest.approx(0.5 * energy / 2, rel=1e-5)
    config = config.model_copy(update={"average": "all"})
    assert gated_crf_loss(logits, image, valid, config).item() == pytest.approx(0.5 * energy / 4, rel=1e-5)


@pytest.mark.parametrize("average", ["all", "valid"])
def test_a_crop_of_padding_alone_costs_0(average):
    logits = torch.randn(1, 2, 2, 2, requires_grad=True)
    image, valid = torch.zeros(1, 8, 8, 3, dtype=torch.uint8), torch.zeros(1, 8, 8, dtype=torch.bool)
    loss = gated_crf_loss(logits, image, valid, GatedCrfConfig(average=average))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_logits_of_another_stride_are_resized():
    config = GatedCrfConfig(stride=8)
    logits = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(4))
    image = torch.randint(0, 256, (1, 32, 32, 3), generator=torch.Generator().manual_seed(5), dtype=torch.uint8)
    valid = torch.ones(1, 32, 32, dtype=torch.bool)
    small = torch.nn.functional.interpolate(logits, size=(4, 4), mode="bilinear", align_corners=False)
    colour = image.permute(0, 3, 1, 2).float().view(1, 3, 4, 8, 4, 8).mean((3, 5))
    energy = energy_by_pixel(
        small.softmax(1)[0].numpy(), colour[0].numpy(), np.ones((4, 4), bool), config.radius, config.sxy, config.srgb
    )
    assert gated_crf_loss(logits, image, valid, config).item() == pytest.approx(0.1 * energy / 16, rel=1e-5)


@pytest.mark.gpu
def test_cpu_and_gpu_agree():
    logits = torch.randn(2, 5, 16, 16, requires_grad=True)
    image = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    valid = torch.ones(2, 64, 64, dtype=torch.bool)
    valid[0, 40:] = False
    loss = gated_crf_loss(logits, image, valid, GatedCrfConfig())
    loss.backward()
    there = logits.detach().cuda().requires_grad_()
    other = gated_crf_loss(there, image.cuda(), valid.cuda(), GatedCrfConfig())
    other.backward()
    torch.testing.assert_close(loss, other.cpu(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(logits.grad, there.grad.cpu(), rtol=1e-3, atol=1e-6)
