import math

import numpy as np
import pytest
import torch
from references.cross_entropy import cross_entropy_by_pixel
from references.loops import tag_loss

from wsss_cli.losses.cross_entropy import cross_entropy
from wsss_cli.losses.tags import multilabel_soft_margin, within_tags


def test_cross_entropy_by_hand():
    # two pixels, two classes: logits (ln 3, 0) give probabilities (3/4, 1/4)
    logits = torch.tensor([math.log(3.0), 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 2)
    target = torch.tensor([[[0, 1]]])
    expected = (math.log(4 / 3) + math.log(4)) / 2
    assert cross_entropy(logits, target).item() == pytest.approx(expected, rel=1e-6)
    assert cross_entropy(logits, target, "valid").item() == pytest.approx(expected, rel=1e-6)


def test_ignored_pixels_count_in_the_divisor_only_with_all():
    logits = torch.zeros(1, 4, 2, 2)  # every pixel costs ln 4
    target = torch.tensor([[[0, 255], [255, 255]]], dtype=torch.uint8)
    assert cross_entropy(logits, target, "all").item() == pytest.approx(math.log(4) / 4)
    assert cross_entropy(logits, target, "valid").item() == pytest.approx(math.log(4))


@pytest.mark.parametrize("average", ["all", "valid"])
def test_nothing_but_ignored_pixels_is_a_loss_of_0_with_a_gradient_of_0(average):
    logits = torch.randn(2, 3, 2, 2, requires_grad=True)
    loss = cross_entropy(logits, torch.full((2, 4, 4), 255), average)
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_logits_are_upsampled_bilinearly_without_aligned_corners():
    # class 0 has logits (0, 4) in a row of two; four pixels sample it at 0, 1, 3, 4; class 1 has 0
    logits = torch.tensor([[[[0.0, 4.0]], [[0.0, 0.0]]]])
    target = torch.zeros(1, 1, 4, dtype=torch.int64)
    expected = sum(math.log(1 + math.exp(-v)) for v in (0, 1, 3, 4)) / 4
    assert cross_entropy(logits, target).item() == pytest.approx(expected, rel=1e-6)


def test_low_precision_logits_give_a_float32_loss():
    logits = torch.zeros(1, 2, 4, 4, dtype=torch.bfloat16, requires_grad=True)
    loss = cross_entropy(logits, torch.zeros(1, 4, 4, dtype=torch.uint8))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log(2), rel=1e-6)


def test_multilabel_soft_margin_by_hand():
    logits = torch.tensor([[0.0, math.log(3.0)]])  # sigmoids 1/2 and 3/4
    targets = torch.tensor([[1, 0]], dtype=torch.uint8)
    assert multilabel_soft_margin(logits, targets).item() == pytest.approx((math.log(2) + math.log(4)) / 2, rel=1e-6)
    assert multilabel_soft_margin(logits, 1 - targets).item() == pytest.approx(
        (math.log(2) + math.log(4 / 3)) / 2, rel=1e-6
    )


def test_multilabel_soft_margin_is_that_of_the_loop():
    rng = np.random.default_rng(1)
    logits, tags = 3 * rng.normal(size=(4, 5)), rng.integers(0, 2, (4, 5))
    found = multilabel_soft_margin(torch.from_numpy(logits), torch.from_numpy(tags)).item()
    assert found == pytest.approx(tag_loss(logits, tags), rel=1e-6)


# -- balance and weights -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("average", ["all", "valid"])
@pytest.mark.parametrize("balance", ["none", "fg-bg"])
@pytest.mark.parametrize("size", [(4, 5), (2, 3)])
def test_balance_and_weights_are_those_of_the_loop(size, balance, average):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 3, *size)).astype(np.float32)
    target = rng.choice([0, 0, 0, 1, 2, 255], (2, 4, 5)).astype(np.uint8)
    weight = rng.random((2, 4, 5)).astype(np.float32)
    found = cross_entropy(
        *(torch.from_numpy(t) for t in (logits, target)), average, weight=torch.from_numpy(weight), balance=balance
    )
    assert found.item() == pytest.approx(cross_entropy_by_pixel(logits, target, weight, balance, average), rel=1e-5)


def test_balance_by_hand():
    # class 0 is as likely as 3 of 4: background pixels cost ln 4/3, those of class 1 ln 4
    logits = torch.tensor([math.log(3.0), 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 4)
    target = torch.tensor([[[0, 0, 1, 255]]])
    expected = 0.5 * math.log(4 / 3) + 0.5 * math.log(4)
    assert cross_entropy(logits, target, "valid", balance="fg-bg").item() == pytest.approx(expected, rel=1e-6)
    assert cross_entropy(logits, target, "all", balance="fg-bg").item() == pytest.approx(0.75 * expected, rel=1e-6)


@pytest.mark.parametrize(("label", "cost"), [(0, math.log(4 / 3)), (1, math.log(4))])
def test_a_side_without_pixels_counts_0_and_the_other_keeps_its_half(label, cost):
    logits = torch.tensor([math.log(3.0), 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 2)
    target = torch.tensor([[[label, 255]]])
    assert cross_entropy(logits, target, "valid", balance="fg-bg").item() == pytest.approx(cost / 2, rel=1e-6)
    assert cross_entropy(logits, target, "all", balance="fg-bg").item() == pytest.approx(cost / 4, rel=1e-6)


@pytest.mark.parametrize("average", ["all", "valid"])
def test_nothing_but_ignored_pixels_is_0_with_balance_too(average):
    logits = torch.randn(2, 3, 2, 2, requires_grad=True)
    loss = cross_entropy(logits, torch.full((2, 4, 4), 255), average, balance="fg-bg")
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_the_weight_is_not_part_of_the_divisor():
    logits, target = torch.zeros(1, 4, 1, 2), torch.tensor([[[0, 1]]])  # every pixel costs ln 4
    weight = torch.tensor([[[0.5, 0.0]]])
    assert cross_entropy(logits, target, "valid", weight=weight).item() == pytest.approx(0.25 * math.log(4))


# -- tags --------------------------------------------------------------------------------------------------------------


def test_classes_that_are_not_tagged_are_out():
    logits = torch.tensor([[1.0, 5.0, 2.0], [1.0, 5.0, 2.0]]).view(2, 3, 1, 1)
    kept = within_tags(logits, torch.tensor([[1, 0, 1], [0, 1, 0]]))  # the background is always in
    assert kept.flatten(1).tolist() == [[1.0, -math.inf, 2.0], [1.0, 5.0, -math.inf]]
    assert kept.softmax(1)[0, 1].item() == 0.0
    assert logits[0, 1, 0, 0] == 5.0


@pytest.mark.gpu
def test_cpu_and_gpu_agree():
    logits, target = torch.randn(2, 4, 8, 8), torch.randint(0, 4, (2, 16, 16))
    target[0, :5] = 255
    weight = torch.rand(2, 16, 16)
    here = cross_entropy(logits, target, weight=weight, balance="fg-bg")
    there = cross_entropy(logits.cuda(), target.cuda(), weight=weight.cuda(), balance="fg-bg")
    torch.testing.assert_close(here, there.cpu())
