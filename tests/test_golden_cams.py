"""Ways to CAMs, from images on, against frozen results of plain references; tests/golden/make_cams.py made them."""

import numpy as np
import pytest
import torch
from references.loops import Draws
from torch import nn

from wsss_cli.cam.consistency import SeamCam, puzzle_losses, seam_er_losses, seam_losses
from wsss_cli.cam.gradcam import grad_cam
from wsss_cli.cam.lpcam import LpCam, prototypes, split_features
from wsss_cli.cam.recam import class_features, softmax_loss
from wsss_cli.config.cam import LpCamConfig
from wsss_cli.config.classifier import SeamConfig, SeamErConfig
from wsss_cli.models.classifier import CamClassifier, ReCamClassifier, SeamClassifier

TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}  # float32 against float64


class Network(nn.Module):
    """Two convolutions that look beyond their pixel, with weights from the file."""

    channels = (3, 4)

    def __init__(self, golden):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 3, 2, 1), nn.Conv2d(3, 4, 3, 1, 1)
        for layer, number in ((self.first, 1), (self.second, 2)):
            layer.weight.data = torch.from_numpy(golden[f"net_kernel{number}"])
            layer.bias.data = torch.from_numpy(golden[f"net_bias{number}"])

    def normalise(self, x):
        return x

    def forward(self, x):
        first = self.first(x).relu()
        return [first, self.second(first).relu()]


def weight(golden, name):
    return torch.from_numpy(golden[name])[..., None, None]


@pytest.fixture
def model(golden):
    model = CamClassifier(Network(golden), 4)
    model.classifier.weight.data = weight(golden, "net_classes")
    return model.eval()


@pytest.fixture
def seam(golden):
    model = SeamClassifier(Network(golden), 4, channels=4)
    model.classifier.weight.data = weight(golden, "net_classes")
    for name in ("pcm_third", "pcm_fourth", "pcm_joint"):
        getattr(model, name).weight.data = weight(golden, name)
    return model.eval()


@pytest.fixture
def x(golden):
    return torch.from_numpy(golden["net_images"])


@pytest.fixture
def tags(golden):
    return torch.from_numpy(golden["net_tags"]).float()


def values(losses):
    return [loss.item() for loss in losses.values()]


@pytest.mark.parametrize("layer", ["first", "second", "last"])
def test_grad_cam(golden, model, x, layer):
    model.requires_grad_(False)
    module = None if layer == "last" else getattr(model.backbone, layer)
    classes = [np.flatnonzero(row).tolist() for row in golden["net_tags"]]
    np.testing.assert_allclose(grad_cam(model, x, classes, module), golden[f"gradcam_{layer}"], **TOLERANCE)


def test_recam(golden, model, x, tags):
    second = ReCamClassifier(model).requires_grad_(False)
    second.second.weight.data = weight(golden, "recam_second")
    features = second.features(x)
    vectors = class_features(features, second.classifier(features))
    np.testing.assert_allclose(vectors, golden["recam_vectors"], **TOLERANCE)
    assert softmax_loss(second, features, tags).item() == pytest.approx(float(golden["recam_loss"]), rel=1e-5)
    np.testing.assert_allclose(second.cam(x), golden["recam_cam"], **TOLERANCE)


def test_lpcam(golden, model, x):
    model.requires_grad_(False)
    features, config = model.features(x), LpCamConfig(clusters=4, tau=0.3, class_score=0.5, context_score=0.3)
    found = {}
    for index in (0, 2):
        activations = model.cam(x)[:, index]
        parts = [split_features(*pair, config.tau) for pair in zip(features, activations, strict=True)]
        inside, outside = (torch.cat(part) for part in zip(*parts, strict=True))
        draws = Draws(golden["lpcam_draws"][index])
        found[index] = prototypes(inside, outside, model.classifier.weight.flatten(1), index, config, draws)
        for name, part in zip(("own", "context"), found[index], strict=True):
            np.testing.assert_allclose(part, golden[f"lpcam_{name}{index}"], **TOLERANCE)
    np.testing.assert_allclose(LpCam(model, found).cam(x), golden["lpcam_maps"], rtol=1e-5, atol=1e-5)


def test_seam(golden, seam, x, tags):
    found = seam_losses(seam, x, tags, SeamConfig(scale=0.7, weight=0.5, ecr_weight=2.0, hard=0.3))
    np.testing.assert_allclose(values(found), golden["seam_losses"] * (1, 0.5, 2), rtol=1e-4)


def test_seam_without_its_pixel_correlation_module(golden, model, x, tags):
    found = seam_er_losses(model, x, tags, SeamErConfig(scale=0.7, weight=0.5))
    np.testing.assert_allclose(values(found), golden["seam_losses"][:2] * (1, 0.5), rtol=1e-5)


def test_cams_that_seam_refines(golden, seam, x):
    view = SeamCam(seam.requires_grad_(False), [np.flatnonzero(row).tolist() for row in golden["net_tags"]])
    np.testing.assert_allclose(view.cam(x), golden["seam_refined"], rtol=1e-4, atol=1e-5)


def test_puzzle_cam(golden, model, x, tags):
    found = puzzle_losses(model, x, tags, 3.0)
    np.testing.assert_allclose(values(found), golden["puzzle_losses"] * (1, 1, 3), rtol=1e-5)
