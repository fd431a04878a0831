"""Collision cross-entropy: by hand, beside a plain loop in double, and where it is the cross-entropy."""

import math

import numpy as np
import torch

from wsss_cli.losses.collision import collision_cross_entropy
from wsss_cli.losses.cross_entropy import cross_entropy

TAGS = torch.tensor([[1, 1, 0, 1], [0, 0, 1, 0], [1, 0, 0, 0]])  # what stands for the background does not matter


def draw(seed=0, dtype=torch.float32):
    """Logits, labels within the tags and 255, certainties: [3, 4, 3, 5] and [3, 3, 5]."""
    rng = np.random.default_rng(seed)
    allowed = [[0, 1, 3, 255], [0, 2, 255], [0, 255]]
    target = np.stack([rng.choice(each, (3, 5)) for each in allowed]).astype(np.uint8)
    logits, certainty = 3 * rng.normal(size=(3, 4, 3, 5)), rng.uniform(0.3, 1, target.shape)
    return torch.from_numpy(logits).to(dtype), torch.from_numpy(target), torch.from_numpy(certainty).to(dtype)


def by_pixel(logits, target, certainty):
    """The definition, pixel by pixel in double, as a sum with its gradient."""
    logits = logits.double().requires_grad_()
    total = logits.sum() * 0
    for b, y, x in np.ndindex(*target.shape):
        label = int(target[b, y, x])
        if label == 255:
            continue
        classes = sorted({0, *np.flatnonzero(TAGS[b]).tolist()})
        q = float(certainty[b, y, x]) if len(classes) > 1 else 1.0
        soft = [q if c == label else (1 - q) / (len(classes) - 1) for c in classes]
        p = logits[b, :, y, x].softmax(0)
        total = total - sum(s * p[c] for s, c in zip(soft, classes, strict=True)).log()
    return total.detach(), torch.autograd.grad(total, logits)[0]


def test_it_is_what_it_says_and_so_is_its_gradient():
    logits, target, certainty = draw()
    expected, slope = by_pixel(logits, target, certainty)
    logits.requires_grad_()
    for average, count in (("all", target.numel()), ("valid", int((target != 255).sum()))):
        loss = collision_cross_entropy(logits, target, certainty, TAGS, average)
        torch.testing.assert_close(loss.double(), expected / count)
        torch.testing.assert_close(torch.autograd.grad(loss, logits)[0].double(), slope / count, rtol=1e-4, atol=1e-7)


def test_by_hand():
    """Two classes, p = (3/4, 1/4): -log(0.8 * 3/4 + 0.2 * 1/4) = -log 0.65 where the label is background."""
    logits = torch.tensor([[[[math.log(3.0)]], [[0.0]]]])
    loss = collision_cross_entropy(logits, torch.zeros(1, 1, 1).byte(), torch.full((1, 1, 1), 0.8), torch.ones(1, 2))
    torch.testing.assert_close(loss, torch.tensor(-math.log(0.65)))


def test_certain_labels_cost_their_cross_entropy_however_wrong_the_network_is():
    logits, target, _ = draw()
    logits = (20 * logits).requires_grad_()  # probabilities down to 1e-80
    pairs = [
        collision_cross_entropy(logits, target, torch.ones(target.shape), TAGS, "valid"),
        cross_entropy(logits, target, "valid"),
    ]
    torch.testing.assert_close(*pairs)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in pairs))


def test_a_label_of_which_nothing_is_known_teaches_only_the_tags():
    logits = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(1)).requires_grad_()
    target, all_tags = torch.ones(1, 2, 2, dtype=torch.uint8), torch.ones(1, 4)
    loss = collision_cross_entropy(logits, target, torch.full((1, 2, 2), 0.25), all_tags)
    torch.testing.assert_close(loss, torch.tensor(math.log(4.0)))
    torch.testing.assert_close(torch.autograd.grad(loss, logits)[0], torch.zeros_like(logits), rtol=0, atol=1e-7)


def test_nothing_but_ignored_pixels_is_a_loss_of_0_with_a_gradient_of_0():
    logits, target, certainty = draw()
    logits.requires_grad_()
    loss = collision_cross_entropy(logits, torch.full_like(target, 255), 0 * certainty, TAGS)
    assert loss == 0 and torch.equal(torch.autograd.grad(loss, logits)[0], torch.zeros_like(logits))
