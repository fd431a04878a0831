import numpy as np
import pytest
import torch
from references.recam import loss_by_loops, pooled

from wsss_cli.cam.recam import class_features, softmax_loss
from wsss_cli.models.classifier import CamClassifier, ReCamClassifier


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_features_under_a_cam_by_hand():
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])
    activations = torch.tensor([[[[4.0, 2.0]], [[-1.0, -1.0]]]])
    found = class_features(features, activations)
    torch.testing.assert_close(found, torch.tensor([[[1.0, 2.5], [0.0, 0.0]]]), atol=1e-4, rtol=1e-4)


def test_features_under_a_cam_against_loops():
    features, activations = draw(2, 5, 3, 4), draw(2, 3, 3, 4, seed=1)
    expected = pooled(features.double().numpy(), activations.double().numpy())
    np.testing.assert_allclose(class_features(features, activations).numpy(), expected, atol=1e-5)


@pytest.fixture
def model(tiny):
    return ReCamClassifier(CamClassifier(tiny, 4))


def test_features_under_a_cam_are_not_rounded_by_autocast():
    maps, activations = torch.rand(2, 5, 4, 6), torch.rand(2, 3, 4, 6)
    with torch.autocast("cpu", torch.bfloat16):
        halved = class_features(maps, activations)
    torch.testing.assert_close(halved, class_features(maps, activations))


def test_the_loss_against_a_plain_reference(model):
    features = draw(3, 5, 3, 4).abs()
    tags = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    weights = (layer.weight.detach().flatten(1).double().numpy() for layer in (model.classifier, model.second))
    found = softmax_loss(model, features, tags)
    assert found.item() == pytest.approx(loss_by_loops(features.double().numpy(), tags.numpy(), *weights), abs=1e-5)
    found.backward()
    assert model.second.weight.grad.any()
    assert model.classifier.weight.grad.any()


def test_a_batch_without_tags_has_no_loss(model):
    assert softmax_loss(model, draw(2, 5, 3, 4), torch.zeros(2, 3)).item() == 0.0


def test_cams_are_made_with_the_product_of_both_weights(model):
    x = torch.rand(2, 3, 32, 48)
    weight = model.classifier.weight * model.second.weight
    expected = torch.einsum("cd,bdhw->bchw", weight.flatten(1), model.features(x)).clamp(min=0)
    torch.testing.assert_close(model.cam(x), expected, atol=1e-6, rtol=1e-5)
    model.second.weight.data.fill_(1.0)
    torch.testing.assert_close(model.cam(x), CamClassifier.cam(model, x))


@pytest.mark.gpu
def test_cpu_and_gpu_agree(model):
    features, tags = draw(2, 5, 3, 4).abs(), torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    here = float(softmax_loss(model, features, tags))
    assert float(softmax_loss(model.cuda(), features.cuda(), tags.cuda())) == pytest.approx(here, abs=1e-3)
