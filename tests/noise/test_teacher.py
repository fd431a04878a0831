import numpy as np
import pytest
import torch
from references.noise import averaged, steadiness_reference
from torch import nn

from wsss_cli.models.average import Average
from wsss_cli.noise.teacher import fill_ignored, steadiness


def test_the_teacher_is_the_mean_at_first_and_an_exponential_average_later():
    network = nn.Linear(1, 1)
    weights = [1.0, 2.0, 6.0, 4.0]
    seen = []
    with torch.no_grad():
        network.weight.fill_(weights[0])
        teacher = Average(network, decay=0.7)
        for step, weight in enumerate(weights[1:], 1):
            network.weight.fill_(weight)
            teacher.follow(network, step)
            seen.append(teacher.model.weight.item())
    # keeps 1/2, 2/3, then 0.7 (3/4 is above the decay)
    assert seen == pytest.approx([1.5, 3.0, 0.7 * 3.0 + 0.3 * 4.0])
    assert seen == pytest.approx(averaged(weights, 0.7).tolist())


def test_the_teacher_has_no_gradient_and_keeps_to_evaluation_mode():
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)).train()
    teacher = Average(network, 0.5)
    network(torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0)))
    teacher.follow(network, 1)
    assert not any(p.requires_grad for p in teacher.model.parameters()) and not teacher.model.training
    assert network.training and all(p.requires_grad for p in network.parameters())
    torch.testing.assert_close(teacher.model[1].running_mean, 0.5 * network[1].running_mean)
    assert teacher.model[1].num_batches_tracked == network[1].num_batches_tracked == 1


def test_sure_classes_fill_ignored_pixels_by_hand():
    target = torch.tensor([[[255, 255, 255, 1]]])
    weight = torch.tensor([[[1.0, 0.0, 1.0, 0.5]]])
    probability = torch.tensor([[0.05, 0.3, 0.95, 0.95], [0.95, 0.7, 0.05, 0.05]]).view(1, 2, 1, 4)
    valid = torch.tensor([[[True, True, False, True]]])
    target, weight = fill_ignored(target, weight, probability, valid, threshold=0.9, strength=0.5)
    assert target.tolist() == [[[1, 255, 255, 1]]]
    assert weight.flatten().tolist() == pytest.approx([0.475, 0.0, 1.0, 0.5])


def test_steadiness_is_that_of_the_loop():
    scales = (0.5, 1.0, 3.0)
    q = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).mul(3).softmax(1)
    found = steadiness(q, scales)
    for b, y, x in np.ndindex(2, 3, 5):
        assert found[b, y, x].item() == pytest.approx(steadiness_reference(q[b, :, y, x].numpy(), scales), abs=1e-12)


def test_steadiness_by_hand():
    # scales 1/3 and 3: half background and half object become (3/4, 1/4) and (1/4, 3/4)
    # background 3/4: shares 9/10 and 1/2 of it, variance 1/25 for each class against 1/16
    q = torch.tensor([[1.0, 0.5, 0.0, 0.75], [0.0, 0.5, 1.0, 0.25]]).view(1, 2, 1, 4)
    assert steadiness(q, (1 / 3, 3.0)).flatten().tolist() == pytest.approx([1.0, 0.0, 1.0, 1 - 16 / 25], abs=1e-6)


def test_steadiness_is_mirrored_with_the_map():
    q = torch.randn(1, 3, 4, 5, generator=torch.Generator().manual_seed(1)).softmax(1)
    assert torch.equal(steadiness(q.flip(-1), (0.5, 2.0)), steadiness(q, (0.5, 2.0)).flip(-1))


@pytest.mark.gpu
def test_cpu_and_gpu_agree():
    q = torch.randn(2, 4, 9, 9).softmax(1)
    torch.testing.assert_close(steadiness(q, (0.5, 2.0)), steadiness(q.cuda(), (0.5, 2.0)).cpu())
    target, valid = torch.full((2, 9, 9), 255), torch.ones(2, 9, 9, dtype=torch.bool)
    arguments = (target, torch.ones(2, 9, 9), q, valid)
    here = fill_ignored(*arguments, threshold=0.5, strength=1.0)
    there = fill_ignored(*(a.cuda() for a in arguments), threshold=0.5, strength=1.0)
    assert (here[0] != 255).any() and torch.equal(here[0], there[0].cpu())
    torch.testing.assert_close(here[1], there[1].cpu())
