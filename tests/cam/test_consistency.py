import numpy as np
import pytest
import torch
from references.consistency import affinity_by_loops, pixel_features, puzzle_by_loops, refined_by_loops, seam_by_loops
from references.loops import resized
from torch import nn

from wsss_cli.cam.consistency import (
    SeamCam,
    correlation_loss,
    equivariance_loss,
    merge,
    puzzle_losses,
    ramped,
    refine,
    seam_er_losses,
    seam_losses,
    tagged_planes,
    tiles,
)
from wsss_cli.cam.multiscale import multiscale_cam
from wsss_cli.config.classifier import SeamConfig, SeamErConfig
from wsss_cli.errors import UsageError
from wsss_cli.models.classifier import CamClassifier, SeamClassifier, pixel_affinity

TAGS = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_planes_by_hand():
    activations = torch.tensor([[[[4.0, 1.0]], [[9.0, 9.0]], [[-1.0, 2.0]]]])
    found = tagged_planes(activations, torch.tensor([[1.0, 0.0, 1.0]]))
    expected = torch.tensor([[[[0.0, 0.0]], [[1.0, 0.25]], [[0.0, 0.0]], [[0.0, 1.0]]]])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_an_image_without_tags_is_background():
    found = tagged_planes(draw(1, 3, 2, 2), torch.zeros(1, 3))
    assert found[:, 0].eq(1).all()
    assert not found[:, 1:].any()


def test_equivariance_by_hand():
    full = torch.tensor([[[[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]]]])
    assert float(equivariance_loss(full, torch.tensor([[[[1.0, 0.0]]]]))) == 0.0
    assert float(equivariance_loss(full, torch.tensor([[[[0.5, 0.25]]]]))) == pytest.approx(0.375)


def test_the_hardest_values_of_each_image_by_hand():
    planes = torch.tensor([[[[0.9, 0.2]], [[0.1, 0.8]]]])  # winners: 0.9 in the first plane, 0.8 in the second
    refined = torch.tensor([[[[0.4, 0.1]], [[0.3, 0.6]]]])  # distances 0.5, 0.1, 0.3, 0.2
    assert float(correlation_loss(refined, planes, 0.5)) == pytest.approx(0.4)
    assert float(correlation_loss(refined, planes, 1.0)) == pytest.approx(0.275)


def test_refined_cams_against_loops():
    activations, affinity = draw(2, 3, 2, 3), draw(2, 6, 6, seed=1).abs()
    affinity = affinity / affinity.sum(1, keepdim=True)
    found = refine(activations, affinity, TAGS).numpy()
    for image in range(2):
        given = activations[image].double().numpy(), affinity[image].double().numpy(), TAGS[image].numpy()
        np.testing.assert_allclose(found[image], refined_by_loops(*given), atol=1e-5)


@pytest.fixture
def seam(tiny):
    torch.manual_seed(3)
    return SeamClassifier(tiny, 4, channels=8)


def test_the_affinity_against_a_plain_reference(seam):
    x = draw(1, 3, 16, 24)
    with torch.no_grad():
        activations, pixels = seam.activations_and_pixels(x)
        affinity = pixel_affinity(pixels)
        maps = [own[0].double().numpy() for own in seam.backbone(x)]
    layers = (seam.pcm_third, seam.pcm_fourth, seam.pcm_joint)
    weights = (layer.weight.detach().flatten(1).double().numpy() for layer in layers)
    features = pixel_features(x[0].double().numpy(), maps, *weights)
    np.testing.assert_allclose(affinity[0].numpy(), affinity_by_loops(features), atol=1e-4)
    assert activations.shape == (1, 3, 2, 3)


def views(seam, x):
    """What `seam_by_loops` takes: activations and features of every image, float64."""
    with torch.no_grad():
        activations, pixels = (part.double().numpy() for part in seam.activations_and_pixels(x))
    return list(zip(activations, pixels.transpose(0, 2, 1), strict=True))


def test_the_losses_of_seam_are_those_of_the_loops(seam):
    x = draw(2, 3, 64, 48)
    smaller = torch.from_numpy(resized(x.double().numpy(), (32, 24), smooth=True)).float()
    found = seam_losses(seam, x, TAGS, SeamConfig(scale=0.5, weight=0.5, ecr_weight=2.0, hard=0.3))
    expected = seam_by_loops(views(seam, x), views(seam, smaller), TAGS.numpy(), 0.3)
    weighted = [expected[0], 0.5 * expected[1], 2 * expected[2]]
    values = [found[name].item() for name in ("tags", "equivariance", "correlation")]
    np.testing.assert_allclose(values, weighted, rtol=1e-4)


def test_seam_trains_the_classifier_by_er_and_the_module_by_ecr(seam):
    losses = seam_losses(seam, draw(2, 3, 64, 64).abs(), TAGS, SeamConfig(scale=0.5))
    assert losses.keys() == {"tags", "equivariance", "correlation"}
    assert all(torch.isfinite(loss) and loss > 0 for loss in losses.values())
    parameters = dict(seam.named_parameters())

    def trained(name):
        found = torch.autograd.grad(losses[name], list(parameters.values()), retain_graph=True, allow_unused=True)
        return {key for key, gradient in zip(parameters, found, strict=True) if gradient is not None and gradient.any()}

    module = {"pcm_third.weight", "pcm_fourth.weight", "pcm_joint.weight"}
    assert trained("correlation") == module
    assert "classifier.weight" in trained("equivariance")
    assert not module & (trained("equivariance") | trained("tags"))


def test_er_alone_is_the_er_of_seam(seam):
    x = draw(2, 3, 64, 64).abs()
    both = seam_losses(seam, x, TAGS, SeamConfig(scale=0.5, weight=2.0))
    alone = seam_er_losses(seam, x, TAGS, SeamErConfig(scale=0.5, weight=2.0))
    for name in ("tags", "equivariance"):
        torch.testing.assert_close(both[name], alone[name], atol=1e-6, rtol=1e-5)


def test_refined_cams_of_mirrored_images_are_mirrored(seam):
    seam.eval().requires_grad_(False)
    seam.classifier.weight.abs_()
    batch = list(np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), np.uint8))
    mirrored = [np.ascontiguousarray(image[:, ::-1]) for image in batch]
    view = SeamCam(seam, [[0, 2], [1]])
    straight = multiscale_cam(view, batch, (1.0, 0.5), True, torch.device("cpu"))
    turned = multiscale_cam(view, mirrored, (1.0, 0.5), True, torch.device("cpu"))
    torch.testing.assert_close(turned.flip(3), straight, atol=1e-5, rtol=1e-4)
    assert straight[0].max() > 0
    assert not straight[0, 1].any()
    assert not straight[1, [0, 2]].any()


def test_a_backbone_of_one_map_has_no_pixel_correlation():
    class One(nn.Module):
        channels = (4,)

    with pytest.raises(UsageError, match="one map") as caught:
        SeamClassifier(One(), 3)
    assert "seam-er" in caught.value.hint


def test_tiles_by_hand():
    x = torch.arange(8.0).view(1, 1, 2, 4)
    assert tiles(x).flatten(1).tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_merged_tiles_are_the_whole():
    x = draw(3, 2, 8, 12)
    assert torch.equal(merge(tiles(x)), x)


def test_a_network_that_does_not_look_across_tiles_has_no_puzzle_loss(tiny):
    model = CamClassifier(tiny, 4)
    x = draw(2, 3, 32, 32).abs()  # strides and kernels of the small network are equal, so no pixel sees another tile
    losses = puzzle_losses(model, x, TAGS, 4.0)
    assert losses["puzzle"].item() == pytest.approx(0.0, abs=1e-5)
    torch.testing.assert_close(losses["tags"], losses["tiles"])


def test_the_puzzle_loss_by_hand():
    class Mean(nn.Module):
        """Every pixel of its map is the mean of the image."""

        channels = (1,)

        def forward(self, x):
            return [x[:, :1].mean((2, 3), keepdim=True).expand(-1, -1, *x.shape[-2:])]

    model = CamClassifier(Mean(), 3)
    model.classifier.weight.data = torch.tensor([1.0, 2.0]).view(2, 1, 1, 1)
    x = torch.tensor([[0.0, 4.0], [8.0, 4.0]]).expand(1, 3, 2, 2)
    losses = puzzle_losses(model, x, torch.tensor([[1.0, 0.0]]), 0.5)
    # whole 4 everywhere, tiles 0, 4, 8, 4: distance 4, 0, 4, 0 of the first class, the second is not tagged
    assert losses["puzzle"].item() == pytest.approx(0.5 * (4 + 4) / 8)


def test_the_losses_of_the_puzzle_are_those_of_the_loops():
    class Across(nn.Module):
        """A convolution that looks across tiles; its map of a tile is larger than half the whole's."""

        channels = (4,)

        def __init__(self):
            super().__init__()
            torch.manual_seed(5)
            self.conv = nn.Conv2d(3, 4, 3, 2, 1)

        def forward(self, x):
            return [self.conv(x)]

    model, x = CamClassifier(Across(), 4), draw(2, 3, 14, 10)
    weight = model.classifier.weight.detach().flatten(1).double().numpy()

    def features(image):
        with torch.no_grad():
            return model.features(torch.from_numpy(image)[None])[0].double().numpy()

    found = puzzle_losses(model, x, TAGS, 3.0)
    expected = puzzle_by_loops(features, weight, x.numpy(), TAGS.numpy())
    values = [found[name].item() for name in ("tags", "tiles", "puzzle")]
    np.testing.assert_allclose(values, [*expected[:2], 3 * expected[2]], rtol=1e-4)
    assert expected[2] > 0.01


@pytest.mark.parametrize(("step", "expected"), [(0, 0.0), (25, 2.0), (50, 4.0), (99, 4.0)])
def test_the_weight_rises_and_stays(step, expected):
    assert ramped(4.0, step, 100, 0.5) == expected


@pytest.mark.gpu
def test_cpu_and_gpu_agree(seam):
    x = draw(2, 3, 64, 64).abs()
    here = {**seam_losses(seam, x, TAGS, SeamConfig()), **puzzle_losses(seam, x, TAGS, 1.0)}
    seam.cuda()
    tags = TAGS.cuda()
    there = {**seam_losses(seam, x.cuda(), tags, SeamConfig()), **puzzle_losses(seam, x.cuda(), tags, 1.0)}
    for name, loss in here.items():
        torch.testing.assert_close(there[name].cpu(), loss, atol=1e-3, rtol=1e-3)
