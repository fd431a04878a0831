"""Training on noisy masks against frozen results of plain references; tests/golden/make_noise.py made them."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from wsss_cli.config.load import load_preset
from wsss_cli.config.noise import UpdateConfig
from wsss_cli.losses.cross_entropy import cross_entropy
from wsss_cli.losses.tags import multilabel_soft_margin
from wsss_cli.models.average import Average
from wsss_cli.noise.targets import NoisyTargets
from wsss_cli.noise.teacher import steadiness
from wsss_cli.noise.update import IouCurves, slope_drop


def test_weighted_and_balanced_cross_entropy(golden):
    logits, target, own = (torch.from_numpy(golden[f"loss_{name}"]) for name in ("logits", "target", "weight"))
    settings = itertools.product(("all", "valid"), ("none", "fg-bg"), (None, own))
    found = [
        cross_entropy(logits, target, average, weight=weight, balance=balance).item()
        for average, balance, weight in settings
    ]
    np.testing.assert_allclose(found, golden["loss_values"], rtol=1e-5)


def test_the_loss_of_the_tags(golden):
    logits, tags = torch.from_numpy(golden["tags_logits"]), torch.from_numpy(golden["tags_true"])
    assert multilabel_soft_margin(logits, tags).item() == pytest.approx(float(golden["tags_loss"]), rel=1e-5)


def test_the_moving_average_of_weights_and_statistics(golden):
    network = nn.BatchNorm1d(5)

    def take(values):
        network.weight.data = torch.from_numpy(values)
        network.running_mean = torch.from_numpy(-values)

    take(golden["teacher_weights"][0])
    teacher = Average(network, 0.7)
    for step, values in enumerate(golden["teacher_weights"][1:], 1):
        take(values)
        teacher.follow(network, step)
        np.testing.assert_allclose(teacher.model.weight, golden["teacher_means"][step - 1], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(teacher.model.running_mean, -golden["teacher_means"][step - 1], rtol=1e-5, atol=1e-6)


def test_weights_by_uncertainty(golden):
    found = steadiness(torch.from_numpy(golden["steady_q"]), (0.5, 1.0, 3.0))
    np.testing.assert_allclose(found, golden["steady_weight"], atol=1e-12)


def test_learning_curves_and_when_they_are_flat(golden):
    curves = IouCurves(3, UpdateConfig(points=12), iters=12, device=torch.device("cpu"))
    first = [0, 0, 0]
    for step, (prediction, label) in enumerate(
        zip(golden["update_predictions"], golden["update_labels"], strict=True), 1
    ):
        curves.record(torch.from_numpy(prediction).long(), torch.from_numpy(label))
        for index in curves.after_step(step):
            first[index] = step
    np.testing.assert_allclose(curves.curves, golden["update_iou"], rtol=1e-12)
    assert first == golden["update_first"].tolist()
    drops = [[slope_drop(golden["update_iou"][:last, index]) for index in range(3)] for last in range(5, 13)]
    np.testing.assert_allclose(drops, golden["update_drops"], atol=1e-3)


class Network(nn.Module):
    """One convolution, with the interface of a segmentation network."""

    num_classes = 3

    def __init__(self, kernel):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, 2, 1, bias=False)
        self.conv.weight.data = torch.from_numpy(kernel)

    def forward(self, x):
        return self.conv(x)


@pytest.mark.parametrize(
    ("case", "settings"),
    [
        ("ignore", ["confidence=ignore", "min_confidence=0.7", "teacher={ threshold = 0.55, weight = 0.5 }"]),
        ("update", ["confidence=weight", "update.threshold=0.55"]),
        (
            "all",
            [
                *("confidence=weight", "update={ threshold = 0.55, scales = [0.7, 1.0] }"),
                *("teacher.threshold=0.6", "uncertainty.scales=[0.5, 1.0, 3.0]"),
            ],
        ),
    ],
)
def test_targets_and_weights(golden, case, settings):
    config = load_preset("toy", [f"train.noise.{text}" for text in settings]).train
    network, teacher = (Network(kernel) for kernel in golden["targets_kernels"])
    targets = NoisyTargets(network, config)
    state = {**targets.state(), "step": config.iters}
    if config.noise.teacher:
        state["teacher"] = teacher.state_dict()
    if config.noise.update:
        state["update"]["corrected"] = torch.tensor([True, False, True])
    targets.load_state(state)
    batch = {name: torch.from_numpy(golden[f"targets_{name}"]) for name in ("mask", "confidence", "tags", "size")}
    labels, weights = targets.make(batch, torch.from_numpy(golden["targets_images"]), torch.zeros(2, 3, 5, 5))
    np.testing.assert_array_equal(labels, golden[f"targets_labels_{case}"])
    np.testing.assert_allclose(weights, golden[f"targets_weights_{case}"], rtol=1e-5, atol=1e-6)
