"""Affinity losses and their gradients, against loops over pairs and automatic differentiation."""

import math

import pytest
import torch
from references.affinity import EPS, boundary_reference, feature_reference, random_labels

from wsss_cli.pseudo.affinity_loss import boundary_loss, feature_loss
from wsss_cli.pseudo.pairs import half_disc


@pytest.mark.parametrize("radius", [2, 4])
def test_boundary_loss_and_gradient_are_those_of_the_loops(radius):
    logits = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(1))
    labels, target = random_labels(1, (2, 5, 6))
    own, other = logits.clone().requires_grad_(), logits.double().requires_grad_()
    loss = boundary_loss(own, target, half_disc(radius))
    expected = boundary_reference(other, labels, radius)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    (3 * loss).backward()
    (3 * expected).backward()
    torch.testing.assert_close(own.grad, other.grad.float(), rtol=1e-3, atol=1e-5)


def test_feature_loss_and_gradient_are_those_of_the_loops():
    features = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(2))
    labels, target = random_labels(2, (2, 4, 5))
    own, other = features.clone().requires_grad_(), features.double().requires_grad_()
    loss = feature_loss(own, target, half_disc(3))
    expected = feature_reference(other, labels, 3)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(own.grad, other.grad.float(), rtol=1e-3, atol=1e-6)


def test_by_hand():
    # two pixels of one row, boundary probability 1/2 and 1/4: their affinity is 1 - 1/2
    logits = torch.tensor([[[0.0, math.log(1 / 3)]]])
    for pair, share, a in (((0, 0), 4, 0.5), ((3, 3), 4, 0.5), ((0, 3), 2, 0.5), ((1, 3), 2, 0.5)):
        loss = boundary_loss(logits, torch.tensor([[pair]]), [(0, 1)])
        assert loss.item() == pytest.approx(-math.log(a + EPS) / share)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_without_a_labelled_pair_it_is_zero(dtype):
    logits = torch.randn(1, 4, 4, requires_grad=True)
    labels = torch.full((1, 4, 4), 255, dtype=dtype)
    labels[0, 0, 0] = 1
    loss = boundary_loss(logits, labels, half_disc(3))
    loss.backward()
    assert loss.item() == 0.0
    assert not logits.grad.any()


def test_equal_logits_on_a_path_get_one_gradient_not_several():
    logits = torch.zeros(1, 1, 4, requires_grad=True)
    boundary_loss(logits, torch.zeros(1, 1, 4, dtype=torch.uint8), [(0, 3)]).backward()
    # one pair of background: d/dm of -log(sigmoid(-m) + eps) / 4 is a (1 - a) / (a + eps) / 4
    assert logits.grad.sum().item() == pytest.approx(0.25 * 0.25 / (0.5 + EPS))


def test_half_precision_logits_are_taken():
    logits = torch.randn(1, 6, 6).bfloat16().requires_grad_()
    _, labels = random_labels(3, (1, 6, 6))
    loss = boundary_loss(logits, labels, half_disc(3))
    loss.backward()
    assert (loss.dtype, logits.grad.dtype) == (torch.float32, torch.bfloat16)
    assert logits.grad.any()


@pytest.mark.gpu
def test_the_gpu_agrees():
    logits = torch.randn(2, 20, 24)
    features = torch.randn(2, 16, 20, 24)
    _, labels = random_labels(4, (2, 20, 24))
    for loss, x in ((boundary_loss, logits), (feature_loss, features)):
        made = []
        for device in ("cpu", "cuda"):
            leaf = x.to(device).requires_grad_()
            value = loss(leaf, labels.to(device), half_disc(5))
            value.backward()
            made.append((value.detach().cpu(), leaf.grad.cpu()))
        torch.testing.assert_close(made[0], made[1], rtol=1e-4, atol=1e-6)
