"""Pairs, paths and affinities, against loops over single pixels."""

import math

import numpy as np
import pytest
import torch
from references.affinity import loop_affinity, loop_path

from wsss_cli.pseudo.pairs import boundary_affinities, feature_affinities, half_disc, path, shifted, windows


def test_half_discs_by_hand():
    assert half_disc(2) == [(0, 1), (1, -1), (1, 0), (1, 1)]
    assert (len(half_disc(5)), len(half_disc(10))) == (34, 152)


@pytest.mark.parametrize("radius", [2, 3, 5, 10])
def test_every_neighbour_is_in_a_half_disc_once(radius):
    both = half_disc(radius) + [(-dy, -dx) for dy, dx in half_disc(radius)]
    around = [
        (y, x)
        for y in range(-radius, radius + 1)
        for x in range(-radius, radius + 1)
        if 0 < y * y + x * x < radius * radius
    ]
    # IRN's disc leaves nothing out: |dx| and |dy| below the radius follow from the distance
    assert sorted(both) == sorted(around)


def test_paths_by_hand():
    assert path((0, 3)) == [(0, 0), (0, 1), (0, 2), (0, 3)]
    assert path((1, 1)) == [(0, 0), (0, 1), (1, 0), (1, 1)]  # the corners are 1 / sqrt(2) away
    assert path((1, -2)) == [(0, -2), (0, -1), (0, 0), (1, -2), (1, -1), (1, 0)]  # 2 / sqrt(5) at most
    assert set(path((2, 2))) == {(y, x) for y in range(3) for x in range(3)} - {(0, 2), (2, 0)}


@pytest.mark.parametrize("offset", half_disc(6))
def test_a_path_begins_with_its_pixel_and_mirrors_with_its_offset(offset):
    dy, dx = offset
    assert set(path(offset)) == set(loop_path(0, 0, dy, dx))
    assert {(0, 0), offset} <= set(path(offset))
    if dy:
        assert {(y, -x) for y, x in path(offset)} == set(path((dy, -dx)))


@pytest.mark.parametrize(("height", "width", "radius"), [(6, 7, 4), (3, 2, 5), (1, 9, 5), (4, 1, 3)])
def test_affinities_are_those_of_the_loops(height, width, radius):
    rng = np.random.default_rng(height)
    edge, features = rng.random((height, width)), rng.standard_normal((5, height, width))
    offsets = half_disc(radius)
    made = boundary_affinities(torch.from_numpy(edge), offsets).numpy()
    np.testing.assert_allclose(made, loop_affinity(edge, offsets), atol=1e-12)
    made = feature_affinities(torch.from_numpy(features), offsets).numpy()
    for k, (dy, dx) in enumerate(offsets):
        for y in range(height):
            for x in range(width):
                there = y + dy < height and 0 <= x + dx < width
                expected = math.exp(-np.abs(features[:, y, x] - features[:, y + dy, x + dx]).mean()) if there else 0.0
                assert made[k, y, x] == pytest.approx(expected)


def test_a_wall_cuts_every_pair_across_it():
    edge = torch.zeros(5, 9)
    edge[:, 4] = 1.0
    offsets = half_disc(5)
    for plane, (_, dx) in zip(boundary_affinities(edge, offsets), offsets, strict=True):
        for x in range(9):
            crosses = x == 4 or x + dx == 4 or (x < 4) != (x + dx < 4)
            if crosses:
                assert (plane[:, x] == 0).all()
    assert boundary_affinities(edge, offsets)[0, 0, 0] == 1.0


def test_windows_and_their_neighbours_lie_on_the_grid():
    x = torch.arange(12).view(3, 4)
    window = windows((1, -2), 3, 4)
    assert x[window].tolist() == [[2, 3], [6, 7]]
    assert shifted(x, window, (1, -2)).tolist() == [[4, 5], [8, 9]]
