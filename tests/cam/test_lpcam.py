import numpy as np
import pytest
import torch
from references.lpcam import lloyd, maps_by_loops, prototypes_by_loops

from wsss_cli.cam.lpcam import LpCam, direction, kmeans, prototypes, split_features
from wsss_cli.cam.multiscale import multiscale_cam
from wsss_cli.config.cam import LpCamConfig
from wsss_cli.models.classifier import CamClassifier


def rng(seed=0):
    return np.random.default_rng(seed)


def blobs():
    """Three groups of points around (0, 0), (10, 0) and (0, 10)."""
    centres = np.array([[0, 0], [10, 0], [0, 10]], np.float32)
    points = centres[np.arange(60) % 3] + rng(1).normal(0, 0.3, (60, 2)).astype(np.float32)
    return torch.from_numpy(points)


def test_kmeans_finds_the_means_of_groups_that_lie_apart():
    points = blobs()
    for seed in range(5):
        found = kmeans(points, 3, rng(seed))
        expected = torch.stack([points[start::3].mean(0) for start in range(3)])
        order = torch.cdist(expected, found).argmin(1)
        assert sorted(order.tolist()) == [0, 1, 2]
        torch.testing.assert_close(found[order], expected, atol=1e-5, rtol=1e-5)


def test_kmeans_ends_where_no_point_would_change_its_centre():
    points = torch.from_numpy(rng(3).normal(size=(200, 4)).astype(np.float32))
    centres = kmeans(points, 7, rng(4)).numpy()
    nearest = ((points.numpy()[:, None] - centres[None]) ** 2).sum(2).argmin(1)
    for index, centre in enumerate(centres):
        np.testing.assert_allclose(points.numpy()[nearest == index].mean(0), centre, atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_kmeans_is_that_of_the_loops(seed):
    points = torch.from_numpy(rng(seed).normal(size=(60, 3)).astype(np.float32))
    np.testing.assert_allclose(kmeans(points, 5, rng(9)).numpy(), lloyd(points.numpy(), 5, rng(9)), atol=1e-5)


def test_kmeans_is_a_function_of_its_seed():
    points = torch.from_numpy(rng(5).normal(size=(100, 3)).astype(np.float32))
    assert torch.equal(kmeans(points, 6, rng(1)), kmeans(points, 6, rng(1)))
    assert not torch.equal(kmeans(points, 6, rng(1)), kmeans(points, 6, rng(2)))


def test_few_points_are_their_own_centres():
    points = blobs()[:2]
    assert torch.equal(kmeans(points, 3, rng()), points)
    assert torch.isfinite(kmeans(points[:1].repeat(5, 1), 3, rng())).all()


def test_features_inside_and_outside_by_hand():
    features = torch.arange(8.0).view(2, 2, 2)
    inside, outside = split_features(features, torch.tensor([[0.0, 1.0], [4.0, 2.0]]), 0.25)
    assert inside.tolist() == [[2.0, 6.0], [3.0, 7.0]]  # 1.0 is not above a quarter of 4
    assert outside.tolist() == [[0.0, 4.0], [1.0, 5.0]]
    assert [len(part) for part in split_features(features, torch.zeros(2, 2), 0.1)] == [0, 0]


def test_clusters_are_kept_by_their_softmax_score():
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    config = LpCamConfig(clusters=2, class_score=0.9, context_score=0.5)
    inside = torch.tensor([[5.0, 0.0], [1.0, 1.0]])  # scores 0.993 and 0.5
    outside = torch.tensor([[0.0, 3.0], [2.0, 0.0]])  # 0.047 and 0.88
    own, context = prototypes(inside, outside, weight, 0, config, rng())
    assert (own.tolist(), context.tolist()) == ([[5.0, 0.0]], [[0.0, 3.0]])


def test_where_no_cluster_passes_the_closest_is_taken():
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    config = LpCamConfig(clusters=2, class_score=0.9, context_score=0.1)
    own, context = prototypes(torch.tensor([[1.0, 1.0], [1.0, 0.0]]), torch.eye(2), weight, 0, config, rng())
    assert (own.tolist(), context.tolist()) == ([[1.0, 0.0]], [[0.0, 1.0]])
    own, context = prototypes(weight[:0], weight[:0], weight, 1, config, rng())
    assert own.tolist() == [[0.0, 1.0]]
    assert len(context) == 0


def test_prototypes_are_those_of_the_loops():
    draw, config = rng(6), LpCamConfig(clusters=4, tau=0.3, class_score=0.7, context_score=0.4)
    maps, activations = draw.normal(size=(3, 2, 5, 6)), np.maximum(draw.normal(size=(3, 5, 6)), 0)
    activations[1] = 0
    weight = 2 * draw.normal(size=(3, 2))
    expected = prototypes_by_loops(maps, activations, weight, 1, config, rng(7))
    tensors = [
        (torch.from_numpy(m).float(), torch.from_numpy(a).float()) for m, a in zip(maps, activations, strict=True)
    ]
    inside, outside = (torch.cat(parts) for parts in zip(*(split_features(*t, 0.3) for t in tensors), strict=True))
    found = prototypes(inside, outside, torch.from_numpy(weight).float(), 1, config, rng(7))
    for part, plain in zip(found, expected, strict=True):
        np.testing.assert_allclose(part.numpy(), plain, atol=1e-5)
    assert 0 < len(found[0]) < 4 and 0 < len(found[1]) < 4


@pytest.fixture
def model(tiny):
    return CamClassifier(tiny, 4).eval().requires_grad_(False)


def found_for(model):
    draw = torch.Generator().manual_seed(0)
    return {
        index: (torch.randn(count, 5, generator=draw), torch.randn(2, 5, generator=draw))
        for index, count in ((0, 3), (2, 1))
    }


def test_maps_against_a_plain_reference(model):
    x = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(2))
    found = found_for(model)
    maps = LpCam(model, found).cam(x).numpy()
    features = model.features(x).double().numpy()
    plain = {index: [part.double().numpy() for part in pair] for index, pair in found.items()}
    assert maps.shape == (2, 3, 4, 6)
    for image in range(2):
        np.testing.assert_allclose(maps[image], maps_by_loops(features[image], plain, 3), atol=1e-5)
    assert maps[:, [0, 2]].max() > 0


def test_the_direction_by_hand():
    own, context = torch.tensor([[2.0, 0.0], [0.0, 3.0]]), torch.tensor([[-4.0, 0.0]])
    assert direction(own, context).tolist() == [1.5, 0.5]
    assert direction(own, context[:0]).tolist() == [0.5, 0.5]


def test_a_mirrored_image_gives_mirrored_maps(model):
    batch = list(rng().integers(0, 256, (2, 64, 96, 3), np.uint8))
    mirrored = [np.ascontiguousarray(image[:, ::-1]) for image in batch]
    view = LpCam(model, found_for(model))
    straight = multiscale_cam(view, batch, (1.0, 0.5), True, torch.device("cpu"))
    turned = multiscale_cam(view, mirrored, (1.0, 0.5), True, torch.device("cpu"))
    assert straight.max() > 0
    torch.testing.assert_close(turned.flip(3), straight, atol=1e-6, rtol=1e-4)


@pytest.mark.gpu
def test_cpu_and_gpu_agree(model):
    points = blobs()
    torch.testing.assert_close(kmeans(points.cuda(), 3, rng()).cpu(), kmeans(points, 3, rng()), atol=1e-4, rtol=1e-4)
    x = torch.rand(2, 3, 32, 48)
    here = LpCam(model, found_for(model)).cam(x)
    there = LpCam(model.cuda(), found_for(model)).cam(x.cuda()).cpu()
    torch.testing.assert_close(there, here, atol=1e-3, rtol=1e-3)
