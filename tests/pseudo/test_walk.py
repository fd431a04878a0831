"""The stencil walk against the power of a dense matrix."""

import numpy as np
import pytest
import torch
from references.affinity import dense_transition, psa_by_matrix

from wsss_cli.config.affinity import IrnWalk, PsaWalk, needs
from wsss_cli.pseudo.pairs import boundary_affinities, feature_affinities, half_disc
from wsss_cli.pseudo.walk import irn_walk, psa_walk, random_walk


def random_case(seed, h, w, radius, classes=3, beta=10):
    rng = np.random.default_rng(seed)
    edge = torch.from_numpy(rng.random((h, w)).astype(np.float32) ** 3)
    maps = torch.from_numpy(rng.random((classes, h, w)).astype(np.float32))
    offsets = half_disc(radius)
    return maps, boundary_affinities(edge, offsets) ** beta, offsets


@pytest.mark.parametrize(
    ("h", "w", "radius", "times"), [(12, 15, 5, 8), (9, 7, 4, 5), (3, 4, 5, 3), (1, 6, 3, 2), (5, 1, 5, 4)]
)
def test_it_is_the_power_of_the_dense_matrix(h, w, radius, times):
    maps, affinities, offsets = random_case(h, h, w, radius)
    transition = dense_transition(affinities, offsets)
    for _ in range(times):  # as the released code does: squared `times` times
        transition = transition @ transition
    expected = (maps.double().numpy().reshape(3, -1) @ transition).reshape(3, h, w)
    walked = random_walk(maps, affinities, offsets, 2**times).numpy()
    np.testing.assert_allclose(walked, expected, rtol=1e-4, atol=1e-6)
    assert (walked.argmax(0) == expected.argmax(0)).all()


def test_one_step_on_4x4_by_hand():
    maps = torch.zeros(1, 4, 4)
    maps[0, 1, 1] = 1.0
    affinities = torch.zeros(2, 4, 4)
    affinities[0, 1, 1] = 0.5  # (1, 1) - (1, 2)
    affinities[1, 1, 1] = 0.25  # (1, 1) - (2, 1)
    walked = random_walk(maps, affinities, [(0, 1), (1, 0)], 1)[0]
    expected = torch.zeros(4, 4)
    expected[1, 1] = 1 / 1.75
    expected[1, 2] = 0.5 / 1.5
    expected[2, 1] = 0.25 / 1.25
    torch.testing.assert_close(walked, expected)


def test_constants_stay_and_the_sum_weighted_by_degree_is_kept():
    maps, affinities, offsets = random_case(5, 10, 11, 5)
    constant = torch.full((1, 10, 11), 0.7)
    torch.testing.assert_close(random_walk(constant, affinities, offsets, 256), constant, rtol=1e-5, atol=0)
    degree = dense_transition(affinities, offsets).diagonal() ** -1  # a_ii = 1, so T_ii = 1 / d_i
    walked = random_walk(maps, affinities, offsets, 256).double().numpy().reshape(3, -1)
    np.testing.assert_allclose(walked @ degree, maps.double().numpy().reshape(3, -1) @ degree, rtol=1e-4)


def test_without_a_boundary_a_long_walk_is_flat_and_a_wall_keeps_what_is_behind_it():
    offsets = half_disc(5)
    maps = torch.zeros(1, 8, 9)
    maps[0, 3, 2] = 1.0
    flat = random_walk(maps, boundary_affinities(torch.zeros(8, 9), offsets), offsets, 256)
    assert flat.max() / flat.min() == pytest.approx(1.0, abs=1e-3)
    wall = torch.zeros(8, 9)
    wall[:, 4] = 1.0
    walked = random_walk(maps, boundary_affinities(wall, offsets) ** 10, offsets, 256)
    assert (walked[0, :, 4:] == 0).all()
    assert (walked[0, :, :4] > 0.01).all()


def test_a_constant_edge_is_a_uniform_walk():
    maps, _, offsets = random_case(6, 7, 8, 3)
    affinities = boundary_affinities(torch.full((7, 8), 0.2), offsets)
    transition = dense_transition(affinities, offsets)
    for plane, (dy, dx) in zip(affinities, offsets, strict=True):
        assert plane[3, 4] == pytest.approx(0.8)
        assert (plane[7 - dy :] == 0).all()
        assert dx >= 0 or (plane[:, :-dx] == 0).all()
    expected = maps.double().numpy().reshape(3, -1) @ transition @ transition
    np.testing.assert_allclose(random_walk(maps, affinities, offsets, 2).numpy().reshape(3, -1), expected, rtol=1e-5)


@pytest.mark.parametrize("axis", [0, 1])
def test_irn_walk_mirrors_with_its_input(axis):
    maps, _, _ = random_case(7, 9, 12, 5)
    edge = torch.rand(9, 12, generator=torch.Generator().manual_seed(0)) ** 2
    walked = irn_walk(maps, edge, IrnWalk(iterations=32))
    mirrored = irn_walk(maps.flip(axis + 1), edge.flip(axis), IrnWalk(iterations=32))
    torch.testing.assert_close(mirrored, walked.flip(axis + 1), rtol=1e-4, atol=1e-6)


def test_psa_walk_mirrors_with_its_input():
    cam, features = torch.rand(2, 8, 12), torch.randn(6, 4, 6)
    walked = psa_walk(cam, features, PsaWalk(iterations=16))
    mirrored = psa_walk(cam.flip(2), features.flip(2), PsaWalk(iterations=16))
    torch.testing.assert_close(mirrored, walked.flip(2), rtol=1e-4, atol=1e-6)


def test_irn_walk_is_as_released():
    maps, _, offsets = random_case(8, 10, 9, 5)
    edge = torch.rand(10, 9, generator=torch.Generator().manual_seed(1)) ** 3
    transition = np.linalg.matrix_power(dense_transition(boundary_affinities(edge, offsets) ** 10, offsets), 256)
    walked = (maps * (1 - edge)).double().numpy().reshape(3, -1) @ transition
    made = irn_walk(maps, edge, IrnWalk())
    np.testing.assert_allclose(made.numpy().reshape(3, -1), walked / walked.max(), rtol=1e-4)
    assert made.max() == 1.0


def test_psa_scores_are_above_one_half_exactly_where_a_class_beats_the_background():
    generator = torch.Generator().manual_seed(3)
    cam, features = torch.rand(3, 12, 16, generator=generator) ** 2, 3 * torch.randn(5, 6, 8, generator=generator)
    step = PsaWalk(iterations=16, alpha=3.0)
    made = psa_walk(cam, features, step).numpy()
    offsets = half_disc(5)
    transition = np.linalg.matrix_power(dense_transition(feature_affinities(features, offsets) ** 8, offsets), 16)
    planes = torch.cat([(1 - cam.amax(0, keepdim=True)) ** 3, cam]).double()
    pooled = planes.view(4, 6, 2, 8, 2).mean((2, 4)).reshape(4, -1).numpy()
    walked = (pooled @ transition).reshape(4, 6, 8)
    winner = np.where(made.max(0) > 0.5, made.argmax(0) + 1, 0)
    assert 0.1 < (winner == 0).mean() < 0.9
    assert (winner == walked.argmax(0)).all()


@pytest.mark.parametrize(("height", "width"), [(12, 16), (9, 11)])
def test_psa_walk_is_the_power_of_the_dense_matrix(height, width):
    generator = torch.Generator().manual_seed(4)
    cam = torch.rand(3, height, width, generator=generator) ** 2
    features = 3 * torch.randn(5, -(-height // 2), -(-width // 2), generator=generator)
    made = psa_walk(cam, features, PsaWalk(radius=4, beta=2.0, iterations=16, alpha=3.0)).numpy()
    expected = psa_by_matrix(cam.double().numpy(), features.double().numpy(), 4, 2.0, 16, 3.0)
    np.testing.assert_allclose(made, expected, rtol=1e-4)


def test_images_without_tags_have_no_scores():
    assert irn_walk(torch.zeros(0, 4, 6), torch.zeros(4, 6), IrnWalk()).shape == (0, 4, 6)
    assert psa_walk(torch.zeros(0, 4, 6), torch.zeros(3, 2, 3), PsaWalk()).shape == (0, 2, 3)


def test_what_a_step_needs():
    assert (needs(IrnWalk()), needs(PsaWalk())) == ("irn", "psa")


@pytest.mark.gpu
def test_the_gpu_agrees():
    maps, affinities, offsets = random_case(9, 40, 50, 5)
    on_cpu = random_walk(maps, affinities, offsets, 256)
    on_gpu = random_walk(maps.cuda(), affinities.cuda(), offsets, 256).cpu()
    torch.testing.assert_close(on_gpu, on_cpu, rtol=1e-4, atol=1e-6)
