"""Pixel-adaptive refinement: by hand, against plain loops, and what must hold whatever the image."""

import numpy as np
import pytest
import torch
from references.par import RING, by_loops, scene

from wsss_cli.pseudo.par import par


def run(image, planes, **settings):
    """`par` of one image [3, H, W] and its planes [C, H, W]."""
    given = {"dilations": (1, 2), "iterations": 3, "w1": 0.3, "w2": 0.01} | settings
    return par(torch.as_tensor(image)[None].float(), torch.as_tensor(planes)[None].float(), **given)[0].numpy()


def test_four_by_four_by_hand():
    # Two colours, left and right half. A pixel of column 1 has 5 neighbours of its own colour (columns 0 and 1; at the
    # top and bottom the edge repeats itself) and 3 of the other: mean 3/8, unbiased variance 15/56 (in units of the
    # colours' difference), so a neighbour of the other colour has the energy (1 / sqrt(15/56) / w1)^2 = 56/15/w1^2.
    image = np.zeros((3, 4, 4))
    image[:, :, 2:] = 255
    planes = np.zeros((1, 4, 4))
    planes[0, :, 2:] = 1.0  # the plane is the right half
    found = run(image, planes, dilations=(1,), iterations=1, w1=2.0, w2=0.0)[0]
    other = np.exp(-56 / 15 / 4)
    expected = 3 * other / (5 + 3 * other)  # share of the other colour around a pixel of column 1
    np.testing.assert_allclose(found[:, 1], expected, rtol=1e-5)
    np.testing.assert_allclose(found[:, 2], 1 - expected, rtol=1e-5)
    np.testing.assert_allclose(found[:, 0], 0, atol=1e-6)  # no neighbour of another colour
    np.testing.assert_allclose(found[:, 3], 1, rtol=1e-6)
    # The position kernel: distances 1 and sqrt 2, 4 times each, unbiased variance (sqrt 2 - 1)^2 * 2/7.
    flat = run(np.zeros((3, 4, 4)), planes, dilations=(1,), iterations=1, w1=2.0, w2=0.5)[0]
    scale = 1 / ((np.sqrt(2) - 1) ** 2 * 2 / 7) / 4
    near, far = np.exp(-scale), np.exp(-2 * scale)
    position = (near + 2 * far) / (4 * near + 4 * far)  # right neighbours of column 1: one beside, two across
    np.testing.assert_allclose(flat[:, 1], (3 / 8 + 0.5 * position) / 1.5, rtol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"dilations": (1, 3, 12), "w1": 1.5}, {"w2": 0.7, "iterations": 1}])
def test_it_equals_plain_loops(settings):
    image, planes = scene()
    given = {"dilations": (1, 2), "iterations": 3, "w1": 0.3, "w2": 0.01} | settings
    expected = by_loops(image, planes, **given)
    np.testing.assert_allclose(run(image, planes, **settings), expected, atol=2e-5)
    assert np.abs(expected - planes).max() > 0.1


@pytest.mark.parametrize("axis", [1, 2])
def test_a_mirrored_image_gives_the_mirrored_planes(axis):
    image, planes = scene(1)
    straight = run(image, planes)
    mirrored = run(np.flip(image, axis).copy(), np.flip(planes, axis).copy())
    np.testing.assert_allclose(np.flip(mirrored, axis), straight, atol=1e-5)
    assert np.abs(mirrored - straight).max() > 0.1


def test_on_a_flat_image_it_is_the_average_of_the_neighbours():
    _, planes = scene(2)
    found = run(np.full((3, 7, 9), 77.0), planes, iterations=1, w2=0.0)
    padded = np.pad(planes, ((0, 0), (2, 2), (2, 2)), mode="edge")
    moved = [padded[:, 2 + d * dy :, 2 + d * dx :][:, :7, :9] for d in (1, 2) for dy, dx in RING]
    np.testing.assert_allclose(found, np.mean(moved, axis=0), atol=1e-6)
    same = run(np.full((3, 7, 9), 77.0), np.full((1, 7, 9), 0.4), iterations=20)
    np.testing.assert_allclose(same, 0.4, rtol=1e-5)


def test_probabilities_stay_probabilities():
    image, planes = scene(3)
    found = run(image, planes, iterations=20)
    np.testing.assert_allclose(found.sum(0), 1.0, atol=1e-5)
    assert found.min() >= 0


def test_images_of_a_batch_and_planes_do_not_mix():
    images, planes = zip(*(scene(seed) for seed in (4, 5)), strict=True)
    together = par(
        torch.as_tensor(np.stack(images)).float(),
        torch.as_tensor(np.stack(planes)).float(),
        dilations=(1, 2),
        iterations=3,
        w1=0.3,
        w2=0.01,
    )
    for index in (0, 1):
        np.testing.assert_allclose(together[index].numpy(), run(images[index], planes[index]), atol=1e-6)
        alone = run(images[index], planes[index][1:2])
        np.testing.assert_allclose(together[index, 1:2].numpy(), alone, atol=1e-6)


def test_an_image_smaller_than_the_farthest_ring():
    image, planes = scene(6, (3, 2))
    found = run(image, planes, dilations=(1, 24))
    np.testing.assert_allclose(found, by_loops(image, planes, (1, 24), 3, 0.3, 0.01), atol=2e-5)


@pytest.mark.gpu
def test_cpu_and_gpu_agree():
    image, planes = (torch.as_tensor(part)[None].float() for part in scene(7, (60, 80)))
    given = {"dilations": (1, 2, 4, 8, 12, 24), "iterations": 10, "w1": 0.3, "w2": 0.01}
    torch.testing.assert_close(
        par(image.cuda(), planes.cuda(), **given).cpu(), par(image, planes, **given), atol=1e-4, rtol=1e-4
    )
