"""The walk's kernel against the power of a dense matrix and against torch."""

import numpy as np
import pytest
import torch
from compiling import compile_kernels

from wsss_cli.kernels.backend import takes_triton
from wsss_cli.pseudo.pairs import boundary_affinities, half_disc
from wsss_cli.pseudo.walk import TRIAL, random_walk


def case(seed, classes, height, width, radius, beta=3):
    """Maps, affinities and offsets as IRN's walk makes them."""
    rng = np.random.default_rng(seed)
    edge = torch.from_numpy(rng.random((height, width)).astype(np.float32) ** 3)
    maps = torch.from_numpy(rng.random((classes, height, width)).astype(np.float32))
    offsets = half_disc(radius)
    return maps, boundary_affinities(edge, offsets) ** beta, offsets


def by_dense_matrix(maps, affinities, offsets, iterations):
    """x T^n in float64; T column by column from the definition."""
    classes, height, width = maps.shape
    matrix = np.eye(height * width)
    for plane, (dy, dx) in zip(affinities.double().numpy(), offsets, strict=True):
        for y in range(height - dy):
            for x in range(max(-dx, 0), width - max(dx, 0)):
                i, j = y * width + x, (y + dy) * width + x + dx
                matrix[i, j] = matrix[j, i] = plane[y, x]
    transition = np.linalg.matrix_power(matrix / matrix.sum(0), iterations)
    return (maps.double().numpy().reshape(classes, -1) @ transition).reshape(maps.shape)


def fused(device, maps, affinities, offsets, iterations):
    made = random_walk(maps.to(device), affinities.to(device), offsets, iterations, backend="triton")
    return made.cpu()


@pytest.fixture
def poisoned(device, monkeypatch):
    """Memory that nobody has written is NaN."""
    plain = torch.Tensor.new_empty

    def new_empty(self, *size, **options):
        made = plain(self, *size, **options)
        return made.fill_(float("nan")) if made.is_floating_point() else made

    monkeypatch.setattr(torch.Tensor, "new_empty", new_empty)
    monkeypatch.setattr(torch, "empty_like", lambda x: torch.full_like(x, float("nan")))


@pytest.mark.parametrize(
    ("classes", "height", "width", "radius", "iterations"),
    [(3, 5, 17, 3, 2), (1, 4, 3, 5, 3)],  # more than one tile; narrower than the radius
)
def test_it_is_the_power_of_the_dense_matrix(device, classes, height, width, radius, iterations):
    given = case(height, classes, height, width, radius)
    walked, expected = fused(device, *given, iterations).numpy(), by_dense_matrix(*given, iterations)
    np.testing.assert_allclose(walked, expected, rtol=1e-5, atol=1e-7)
    assert (walked.argmax(0) == expected.argmax(0)).all()
    assert np.abs(expected - given[0].numpy()).max() > 0.1


@pytest.mark.parametrize(
    ("classes", "height", "width", "radius"),
    [(1, 1, 1, 3), (2, 1, 6, 4), (5, 4, 1, 3), (21, 2, 2, 3)],  # up to 3 blocks of classes
)
def test_it_is_the_same_as_torch(device, classes, height, width, radius):
    maps, affinities, offsets = case(classes, classes, height, width, radius)
    made = fused(device, maps, affinities, offsets, 2)
    assert made.shape == maps.shape
    assert made.is_contiguous()
    torch.testing.assert_close(made, random_walk(maps, affinities, offsets, 2, backend="torch"), rtol=1e-5, atol=1e-7)


def test_what_nobody_has_written_is_not_used_and_the_input_stays(poisoned, device):
    maps, affinities, offsets = case(3, 5, 3, 5, 2)
    kept = maps.clone(), affinities.clone()
    first, second = (fused(device, maps, affinities, offsets, 3) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.isfinite(first).all()
    assert torch.equal(maps, kept[0])
    assert torch.equal(affinities, kept[1])


def test_a_constant_stays_to_the_bit(device):
    _, affinities, offsets = case(4, 1, 3, 5, 2)
    maps = torch.tensor([0.7, 1 / 3]).view(2, 1, 1).expand(2, 3, 5)
    assert torch.equal(fused(device, maps, affinities, offsets, 3), maps)


def test_no_step_and_no_class(device):
    maps, affinities, offsets = case(5, 2, 3, 4, 2)
    assert torch.equal(fused(device, maps, affinities, offsets, 0), maps)
    assert fused(device, maps[:0], affinities, offsets, 2).shape == (0, 3, 4)


def test_the_cpu_is_left_to_torch():
    x = torch.zeros(1)
    assert not takes_triton("auto", x, TRIAL)
    assert not takes_triton("torch", x, TRIAL)
    assert takes_triton("triton", x, TRIAL)


@pytest.mark.slow
def test_the_kernels_compile_and_keep_everything_in_registers():
    module = "wsss_cli.kernels.walk"
    step = {
        **dict.fromkeys(("now", "new", "affinities", "degrees"), "*fp32"),
        "distances": "*i32",
        **dict.fromkeys(("pairs", "height", "width", "margin", "size"), "i32"),
        **dict.fromkeys(("CLASSES", "BLOCK", "ROWS", "COLUMNS", "UNROLL"), "constexpr"),
    }
    jobs = []
    for classes, block in ((4, 4), (24, 8)):
        constants = {"CLASSES": classes, "BLOCK": block, "ROWS": 4, "COLUMNS": 16, "UNROLL": 8}
        jobs.append((module, "walk_step", step, constants, (), {"num_warps": block // 2, "num_stages": 1}))
    degrees = {"affinities": "*fp32", "distances": "*i32", "degrees": "*fp32"}
    degrees |= dict.fromkeys(("pairs", "count", "margin", "size"), "i32") | {"BLOCK": "constexpr"}
    jobs.append((module, "walk_degrees", degrees, {"BLOCK": 256}, (), {}))
    assert [(made["spilled"], made["shared"]) for made in compile_kernels(jobs)] == [(0, 0)] * 3


@pytest.mark.gpu
@pytest.mark.parametrize(("classes", "iterations"), [(21, 256), (2, 256), (5, 47), (1, 1), (3, 32)])
def test_a_whole_image_on_the_gpu(poisoned, device, classes, iterations):
    """The graph and what is left beside it; float64 is torch's own stencil."""
    seed = int(np.random.default_rng().integers(1 << 31))
    print(f"seed {seed}")
    maps, affinities, offsets = case(seed, classes, 94, 125, 5, beta=10)
    first, second = (fused(device, maps, affinities, offsets, iterations) for _ in range(2))
    assert torch.equal(first, second)
    expected = by_stencil(maps.to(device), affinities.to(device), offsets, iterations).cpu()
    assert (first.double() - expected).abs().max() < 1e-4
    two = expected.topk(min(classes, 2), 0).values
    assert ((first.argmax(0) == expected.argmax(0)) | (two[0] - two[-1] < 2e-4)).all()


def by_stencil(maps, affinities, offsets, iterations):
    """The definition in float64, an offset at a time."""
    _, height, width = maps.shape
    taps = []
    for plane, (dy, dx) in zip(affinities.double(), offsets, strict=True):
        rows, columns = slice(0, height - dy), slice(max(-dx, 0), width - max(dx, 0))
        there = slice(dy, height), slice(max(dx, 0), width - max(-dx, 0))
        taps += [((rows, columns), there, plane[rows, columns]), (there, (rows, columns), plane[rows, columns])]
    degree = maps.new_ones(height, width, dtype=torch.float64)
    for place, _, weight in taps:
        degree[place] += weight
    now = maps.double()
    for _ in range(iterations):
        new = now.clone()
        for place, there, weight in taps:
            new[(slice(None), *place)] += weight * now[(slice(None), *there)]
        now = new / degree
    return now
