import math

import pytest
import torch

from wsss_cli.losses import multilabel_soft_margin, segmentation_loss


def test_segmentation_loss_by_hand():
    # two pixels, two classes: logits (ln 3, 0) give probabilities (3/4, 1/4)
    logits = torch.tensor([math.log(3.0), 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 2)
    target = torch.tensor([[[0, 1]]])
    expected = (math.log(4 / 3) + math.log(4)) / 2
    assert segmentation_loss(logits, target).item() == pytest.approx(expected, rel=1e-6)
    assert segmentation_loss(logits, target, "valid").item() == pytest.approx(expected, rel=1e-6)


def test_ignored_pixels_count_in_the_divisor_only_with_all():
    logits = torch.zeros(1, 4, 2, 2)  # every pixel costs ln 4
    target = torch.tensor([[[0, 255], [255, 255]]], dtype=torch.uint8)
    assert segmentation_loss(logits, target, "all").item() == pytest.approx(math.log(4) / 4)
    assert segmentation_loss(logits, target, "valid").item() == pytest.approx(math.log(4))


@pytest.mark.parametrize("average", ["all", "valid"])
def test_nothing_but_ignored_pixels_is_a_loss_of_0_with_a_gradient_of_0(average):
    logits = torch.randn(2, 3, 2, 2, requires_grad=True)
    loss = segmentation_loss(logits, torch.full((2, 4, 4), 255), average)
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_logits_are_upsampled_bilinearly_without_aligned_corners():
    # class 0 has logits (0, 4) in a row of two; four pixels sample it at 0, 1, 3, 4; class 1 has 0
    logits = torch.tensor([[[[0.0, 4.0]], [[0.0, 0.0]]]])
    target = torch.zeros(1, 1, 4, dtype=torch.int64)
    expected = sum(math.log(1 + math.exp(-v)) for v in (0, 1, 3, 4)) / 4
    assert segmentation_loss(logits, target).item() == pytest.approx(expected, rel=1e-6)


def test_low_precision_logits_give_a_float32_loss():
    logits = torch.zeros(1, 2, 4, 4, dtype=torch.bfloat16, requires_grad=True)
    loss = segmentation_loss(logits, torch.zeros(1, 4, 4, dtype=torch.uint8))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log(2), rel=1e-6)


def test_multilabel_soft_margin_by_hand():
    logits = torch.tensor([[0.0, math.log(3.0)]])  # sigmoids 1/2 and 3/4
    targets = torch.tensor([[1, 0]], dtype=torch.uint8)
    assert multilabel_soft_margin(logits, targets).item() == pytest.approx((math.log(2) + math.log(4)) / 2, rel=1e-6)
    assert multilabel_soft_margin(logits, 1 - targets).item() == pytest.approx(
        (math.log(2) + math.log(4 / 3)) / 2, rel=1e-6
    )
