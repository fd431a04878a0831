"""PAR's kernels against plain loops and against torch."""

import numpy as np
import pytest
import torch
from compiling import compile_kernels

from wsss_cli.pseudo.par import par

RING = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]
SETTINGS = {"dilations": (1, 2), "iterations": 1, "w1": 0.3, "w2": 0.01}


def scene(seed, batch, classes, height, width):
    """Image of whole values [B, 3, H, W] and planes that sum to one [B, C, H, W]."""
    rng = np.random.default_rng(seed)
    image = torch.from_numpy(rng.integers(0, 256, (batch, 3, height, width)).astype(np.float32))
    planes = torch.from_numpy(rng.random((batch, classes, height, width)).astype(np.float32))
    return image, planes / planes.sum(1, keepdim=True)


def by_loops(image, planes, dilations, iterations, w1, w2):
    """The definition in float64, a pixel at a time."""
    image, planes = image.double().numpy(), planes.double().numpy()
    batch, _, height, width = planes.shape
    offsets = [(d * dy, d * dx) for d in dilations for dy, dx in RING]
    distances = np.array([np.hypot(*offset) for offset in offsets])
    position = np.exp(-((distances / distances.std(ddof=1) / w1) ** 2))
    position /= position.sum()

    def place(y, x, offset):
        return np.clip(y + offset[0], 0, height - 1), np.clip(x + offset[1], 0, width - 1)

    for _ in range(iterations):
        spread = np.zeros_like(planes)
        for b, y, x in np.ndindex(batch, height, width):
            around = np.array([image[b, :, *place(y, x, offset)] for offset in offsets])  # [N, 3]
            deviation = around.std(0, ddof=1) + 1e-8
            energy = (((around - image[b, :, y, x]) / deviation / w1) ** 2).mean(1)
            colour = np.exp(energy.min() - energy)
            weights = (colour / colour.sum() + w2 * position) / (1 + w2)
            for weight, offset in zip(weights, offsets, strict=True):
                spread[b, :, y, x] += weight * planes[b, :, *place(y, x, offset)]
        planes = spread
    return planes


def fused(device, image, planes, **settings):
    return par(image.to(device), planes.to(device), **SETTINGS | settings, backend="triton").cpu()


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
    ("size", "settings"),
    [((2, 3, 3, 4), {"dilations": (1,), "iterations": 2}), ((1, 9, 5, 2), {"w1": 1.5, "w2": 0.7})],
)
def test_it_equals_plain_loops(poisoned, device, size, settings):
    image, planes = scene(1, *size)
    expected = by_loops(image, planes, **SETTINGS | settings)
    made = fused(device, image, planes, **settings).numpy()
    np.testing.assert_allclose(made, expected, atol=2e-5)
    assert (made.argmax(1) == expected.argmax(1)).all()
    assert np.abs(expected - planes.numpy()).max() > 0.01


@pytest.mark.parametrize("size", [(1, 1, 1, 1), (1, 4, 1, 17), (1, 21, 3, 1)])
def test_it_is_the_same_as_torch(poisoned, device, size):
    image, planes = scene(2, *size)
    made = fused(device, image, planes, dilations=(24,))
    assert made.shape == planes.shape
    assert made.is_contiguous()
    expected = par(image, planes, **SETTINGS | {"dilations": (24,)}, backend="torch")
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-5)


def test_the_same_bits_again_and_the_input_stays(poisoned, device):
    image, planes = scene(3, 1, 2, 3, 4)
    kept = image.clone(), planes.clone()
    assert torch.equal(*(fused(device, image, planes, dilations=(1,)) for _ in range(2)))
    assert torch.equal(image, kept[0])
    assert torch.equal(planes, kept[1])


def test_a_pixel_unlike_a_flat_neighbourhood_takes_their_mean(poisoned, device):
    image = torch.full((1, 3, 3, 3), 100.0)
    image[..., 1, 1] = 50.0  # the deviation of its neighbours is 0, and each energy about 10^20
    _, planes = scene(4, 1, 2, 3, 3)
    made = fused(device, image, planes, dilations=(1,), w2=0.0)
    around = (planes.sum((2, 3)) - planes[..., 1, 1]) / 8
    torch.testing.assert_close(made[..., 1, 1], around)


@pytest.mark.slow
def test_the_kernels_compile_and_keep_everything_in_registers():
    module, exactly = "wsss_cli.kernels.par", {"enable_fp_fusion": False}
    step = {
        **dict.fromkeys(("now", "new", "image", "scales"), "*fp32"),
        "steps": "*i32",
        "shares": "*fp32",
        **dict.fromkeys(("height", "width", "neighbours"), "i32"),
        **dict.fromkeys(("CLASSES", "BLOCK", "ROWS", "COLUMNS", "UNROLL"), "constexpr"),
    }
    jobs = []
    for classes, block in ((4, 4), (24, 8)):
        constants = {"CLASSES": classes, "BLOCK": block, "ROWS": 4, "COLUMNS": 16, "UNROLL": 4}
        jobs.append((module, "par_step", step, constants, (), {"num_warps": block // 2, **exactly}))
    scales = {"image": "*fp32", "steps": "*i32", "scales": "*fp32"}
    scales |= dict.fromkeys(("height", "width", "neighbours"), "i32")
    scales |= {"w1": "fp32", "share": "fp32", "BLOCK": "constexpr"}
    jobs.append((module, "par_scales", scales, {"BLOCK": 128}, (), exactly))
    assert [made["spilled"] for made in compile_kernels(jobs)] == [0] * 3


@pytest.mark.gpu
@pytest.mark.parametrize("size", [(1, 6, 188, 250), (2, 42, 188, 250)])
def test_a_whole_image_on_the_gpu(poisoned, device, size):
    seed = int(np.random.default_rng().integers(1 << 31))
    print(f"seed {seed}")
    image, planes = scene(seed, *size)
    settings = {"dilations": (1, 2, 4, 8, 12, 24), "iterations": 10}
    first, second = (fused(device, image, planes, **settings) for _ in range(2))
    assert torch.equal(first, second)
    exact = par(image.to(device).double(), planes.to(device).double(), **SETTINGS | settings, backend="torch").cpu()
    assert (first.double() - exact).abs().max() < 1e-4
