"""Focal, Dice and Lovasz losses, class weights and hard pixels: by hand, and beside plain loops."""

import math

import numpy as np
import pytest
import torch
from references.loops import resized

from wsss_cli.config.loss import OhemConfig
from wsss_cli.losses.cross_entropy import cross_entropy, hard_pixels
from wsss_cli.losses.dice import dice_loss
from wsss_cli.losses.focal import focal_loss
from wsss_cli.losses.lovasz import lovasz_loss

HALF, QUARTER = 0.0, math.log(3.0)
LOSSES = {
    "class weights": lambda z, y: cross_entropy(z, y, "valid", class_weights=[0.5, 1.0, 2.0]),
    "class weights, all": lambda z, y: cross_entropy(z, y, "all", class_weights=[0.5, 1.0, 2.0]),
    "ohem": lambda z, y: cross_entropy(z, y, ohem=OhemConfig(min_kept=3)),
    "ohem, thresh": lambda z, y: cross_entropy(z, y, ohem=OhemConfig(min_kept=3, thresh=0.4)),
    "focal": focal_loss,
    "focal, flat": lambda z, y: focal_loss(z, y, 0.5, "valid"),
    "dice": dice_loss,
    "dice, per class": lambda z, y: dice_loss(z, y, True),
    "lovasz": lovasz_loss,
    "lovasz, per image": lambda z, y: lovasz_loss(z, y, True),
}


def two_pixels():
    """Probabilities (3/4, 1/4) and (1/2, 1/2) of two classes, logits [1, 2, 1, 2]."""
    return torch.tensor([[[[QUARTER, HALF]], [[0.0, 0.0]]]])


def draw(seed=0, size=(4, 5)):
    """Logits [2, 3, *size] and a target [2, 4, 5] of three classes and 255, as arrays."""
    rng = np.random.default_rng(seed)
    return 2 * rng.normal(size=(2, 3, *size)), rng.choice([0, 0, 1, 2, 255], (2, 4, 5)).astype(np.uint8)


def pixels(logits, target):
    """(image, probabilities, label) of every pixel that is not 255."""
    logits = resized(logits, target.shape[1:])
    for b, y, x in np.ndindex(*target.shape):
        if target[b, y, x] != 255:
            p = np.exp(logits[b, :, y, x])
            yield b, p / p.sum(), int(target[b, y, x])


def tensors(logits, target):
    return torch.from_numpy(logits).float(), torch.from_numpy(target)


# -- all of them -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSES)
def test_nothing_but_ignored_pixels_is_a_loss_of_0_with_a_gradient_of_0(name):
    logits = torch.randn(2, 3, 2, 2, requires_grad=True)
    loss = LOSSES[name](logits, torch.full((2, 4, 4), 255, dtype=torch.uint8))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("name", LOSSES)
def test_logits_of_ignored_pixels_do_not_matter(name):
    logits, target = tensors(*draw())
    logits.requires_grad_()
    LOSSES[name](logits, target).backward()
    ignored = (target == 255)[:, None].expand_as(logits)
    assert (logits.grad[ignored] == 0).all() and (logits.grad[~ignored] != 0).any()
    other = torch.where(ignored, 7.0, logits.detach())
    torch.testing.assert_close(LOSSES[name](other, target), LOSSES[name](logits, target))


@pytest.mark.parametrize("name", LOSSES)
def test_an_image_without_labels_adds_no_gradient_and_low_precision_is_taken(name):
    logits, target = tensors(*draw())
    target[1] = 255
    low = logits.bfloat16().requires_grad_()
    loss = LOSSES[name](low, target)
    loss.backward()
    assert loss.dtype == torch.float32 and loss > 0
    torch.testing.assert_close(loss, LOSSES[name](logits.bfloat16().float(), target))
    assert (low.grad[1] == 0).all() and torch.isfinite(low.grad).all()


# -- class weights and hard pixels -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(4, 5), (2, 3)])
def test_class_weights_are_those_of_the_loop(size):
    logits, target = draw(1, size)
    factors = [0.5, 1.0, 2.0]
    total = sum(-factors[label] * math.log(p[label]) for _, p, label in pixels(logits, target))
    share = sum(factors[label] for _, _, label in pixels(logits, target))
    z, y = tensors(logits, target)
    found = cross_entropy(z, y, "valid", class_weights=factors).item()
    assert found == pytest.approx(total / share, rel=1e-5)
    assert found == pytest.approx(
        torch.nn.functional.cross_entropy(
            torch.from_numpy(resized(logits, (4, 5))).float(), y.long(), torch.tensor(factors), ignore_index=255
        ).item(),
        rel=1e-5,
    )
    ignored = int((target == 255).sum())
    assert cross_entropy(z, y, class_weights=factors).item() == pytest.approx(total / (share + ignored), rel=1e-5)


def test_classes_of_weight_0_alone_cost_0():
    logits = torch.randn(1, 2, 2, 2)
    assert cross_entropy(logits, torch.zeros(1, 2, 2, dtype=torch.uint8), "valid", class_weights=[0.0, 1.0]) == 0


def hard(probabilities, ignored=0, **settings):
    cost = -torch.tensor(probabilities).log()[None, None]
    target = torch.zeros(cost.shape, dtype=torch.int64)
    target[..., :ignored] = 255
    return hard_pixels(cost, target, OhemConfig(**settings))[0, 0].tolist()


def test_hard_pixels_by_hand():
    p = [0.9, 0.2, 0.6, 0.4, 0.8]
    assert hard(p, thresh=0.5, min_kept=1) == [False, True, False, True, False]
    assert hard(p, thresh=0.5, min_kept=3) == [False, True, True, True, False]
    assert hard(p, thresh=0.5, min_kept=99) == [False, True, True, True, True]  # the easiest of all never
    assert hard(p, min_kept=2) == [False, True, False, True, False]
    assert hard(p, min_kept=99) == [True] * 5
    assert hard(p, ignored=2, thresh=0.5, min_kept=1) == [False, False, False, True, False]
    assert hard(p, ignored=2, min_kept=2) == [False, False, True, True, False]


def test_class_weights_rank_pixels_by_loss_but_not_by_probability():
    cost, target = torch.tensor([[[1.0, 0.8]]]), torch.tensor([[[0, 1]]])
    assert hard_pixels(cost, target, OhemConfig(min_kept=1), [1.0, 2.0]).tolist() == [[[False, True]]]
    thresh = OhemConfig(min_kept=1, thresh=0.4)  # exp(-1) is below it, exp(-0.8) = 0.449 is not
    assert hard_pixels(cost, target, thresh, [1.0, 2.0]).tolist() == [[[True, False]]]


def test_easy_pixels_stay_in_the_divisor_and_weights_come_after_the_choice():
    target = torch.tensor([[[0, 0]]])  # costs ln 4/3 and ln 2
    found = cross_entropy(two_pixels(), target, ohem=OhemConfig(min_kept=1))
    assert found.item() == pytest.approx(math.log(2) / 2, rel=1e-6)
    weight = torch.tensor([[[1.0, 0.1]]])
    found = cross_entropy(two_pixels(), target, ohem=OhemConfig(min_kept=1), weight=weight)
    assert found.item() == pytest.approx(0.1 * math.log(2) / 2, rel=1e-6)


# -- focal -------------------------------------------------------------------------------------------------------------


def test_focal_by_hand():
    target = torch.tensor([[[1, 0]]])  # probabilities 1/4 and 1/2
    expected = (0.75**2 * math.log(4) + 0.5**2 * math.log(2)) / 2
    assert focal_loss(two_pixels(), target).item() == pytest.approx(expected, rel=1e-6)
    weight = torch.tensor([[[0.5, 0.0]]])
    assert focal_loss(two_pixels(), target, weight=weight).item() == pytest.approx(
        0.5 * 0.75**2 * math.log(4) / 2, rel=1e-6
    )


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("size", [(4, 5), (2, 3)])
def test_focal_is_that_of_the_loop(size, gamma):
    logits, target = draw(2, size)
    total = sum(-((1 - p[label]) ** gamma) * math.log(p[label]) for _, p, label in pixels(logits, target))
    for average, over in (("all", target.size), ("valid", int((target != 255).sum()))):
        found = focal_loss(*tensors(logits, target), gamma, average).item()
        assert found == pytest.approx(total / over, rel=1e-5)


def test_a_pixel_that_is_certain_has_a_finite_gradient():
    logits = torch.tensor([[[[90.0]], [[0.0]]]], requires_grad=True)
    focal_loss(logits, torch.zeros(1, 1, 1, dtype=torch.uint8), 0.5).backward()
    assert torch.isfinite(logits.grad).all()


# -- Dice --------------------------------------------------------------------------------------------------------------


def test_dice_by_hand():
    target = torch.tensor([[[0, 1]]])
    both, squares = 0.75 + 0.5, 0.75**2 + 0.25**2 + 2 * 0.5**2
    expected = 1 - 2 * both / (squares + 2 + 0.002)
    assert dice_loss(two_pixels(), target).item() == pytest.approx(expected, rel=1e-6)
    first = 1 - 2 * 0.75 / (0.75**2 + 0.5**2 + 1 + 0.002)
    second = 1 - 2 * 0.5 / (0.25**2 + 0.5**2 + 1 + 0.002)
    assert dice_loss(two_pixels(), target, True).item() == pytest.approx((first + second) / 2, rel=1e-6)
    target[0, 0, 1] = 255
    weight = torch.tensor([[[0.5, 1.0]]])
    expected = 1 - 2 * 0.5 * 0.75 / (0.5 * (0.75**2 + 0.25**2) + 0.5 + 0.002)
    assert dice_loss(two_pixels(), target, weight=weight).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("size", [(4, 5), (2, 3)])
def test_dice_is_that_of_the_loop(size, per_class):
    logits, target = draw(3, size)
    target[0][target[0] == 2] = 0  # a class that the first image has not
    losses = []
    for image in range(2):
        for classes in [[0], [1], [2]] if per_class else [[0, 1, 2]]:
            own = [(p[c], float(label == c)) for b, p, label in pixels(logits, target) if b == image for c in classes]
            both, p2, y2 = (sum(part) for part in zip(*((p * y, p * p, y * y) for p, y in own), strict=True))
            if y2:
                losses.append(1 - 2 * both / (p2 + y2 + 0.002))
    assert len(losses) == (5 if per_class else 2)
    assert dice_loss(*tensors(logits, target), per_class).item() == pytest.approx(np.mean(losses), rel=1e-5)


# -- Lovasz ------------------------------------------------------------------------------------------------------------


def test_lovasz_by_hand():
    # class 0 alone is present: errors 1/4 and 1/2, both pixels of the class: Jaccard loss 1/2 after one, 1 after two
    assert lovasz_loss(two_pixels(), torch.tensor([[[0, 0]]])).item() == pytest.approx(0.5 * 0.5 + 0.25 * 0.5)
    # target (0, 1). Class 0: errors 1/4 (its own), 1/2 (not its own); the latter first: union 2, loss 1/2; then 1
    # class 1: errors 1/4 (not its own), 1/2 (its own); the latter first: loss 1; then 1, nothing more
    found = lovasz_loss(two_pixels(), torch.tensor([[[0, 1]]])).item()
    assert found == pytest.approx(((0.5 * 0.5 + 0.25 * 0.5) + 0.5) / 2)


def jaccard_extension(own):
    """Of (probability, whether it belongs) of a class's pixels: set by set, as equations 8 and 9 have it."""
    errors = [(1 - p if belongs else p, belongs) for p, belongs in own]
    order = sorted(range(len(errors)), key=lambda i: -errors[i][0])
    truth = {i for i, (_, belongs) in enumerate(errors) if belongs}
    total, before, wrong = 0.0, 0.0, set()
    for i in order:
        wrong.add(i)
        after = len(wrong) / len(truth | wrong)
        total += errors[i][0] * (after - before)
        before = after
    return total


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("size", [(4, 5), (2, 3)])
def test_lovasz_is_that_of_the_loop(size, per_image):
    logits, target = draw(4, size)
    target[0][target[0] == 1] = 255  # a class that the first image has not
    means = []
    for images in [[0], [1]] if per_image else [[0, 1]]:
        seen = [(p, label) for b, p, label in pixels(logits, target) if b in images]
        present = sorted({label for _, label in seen})
        means.append(np.mean([jaccard_extension([(p[c], label == c) for p, label in seen]) for c in present]))
    assert lovasz_loss(*tensors(logits, target), per_image).item() == pytest.approx(np.mean(means), rel=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("name", LOSSES)
def test_cpu_and_gpu_agree(name):
    logits, target = tensors(*draw())
    torch.testing.assert_close(LOSSES[name](logits, target), LOSSES[name](logits.cuda(), target.cuda()).cpu())
