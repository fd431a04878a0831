"""The Triton kernels of the exact dense CRF: natively where there is a GPU, else small inputs in the interpreter."""

import numpy as np
import pytest
import torch
from compiling import compile_kernels
from hypothesis import given, settings
from hypothesis import strategies as st

from wsss_cli.crf.mean_field import mean_field
from wsss_cli.crf.order import BLOCK, LEAF, SCALE, STRIDE, kd_order, pixel_features

KERNELS = {
    "gauss_sxy": 2.0,
    "gauss_compat": 1.5,
    "bilateral_sxy": 6.0,
    "bilateral_srgb": 20.0,
    "bilateral_compat": 4.0,
}


@pytest.fixture(scope="module")
def crf(device):
    from wsss_cli.kernels import crf

    return crf


def picture(height, width, seed, kind="regions"):
    rng = np.random.default_rng(seed)
    if kind == "noise":
        image = rng.integers(0, 256, (height, width, 3))
    elif kind == "flat":
        image = np.full((height, width, 3), 77)
    else:
        y, x = np.mgrid[:height, :width]
        inside = (y - height / 2) ** 2 + (x - width / 3) ** 2 < (min(height, width) / 3) ** 2
        image = np.where(inside[..., None], (190, 80, 60), (60, 120, 180)) + rng.integers(-12, 13, (height, width, 3))
    return torch.from_numpy(image.clip(0, 255).astype(np.uint8))


def unary(labels, height, width, seed):
    logits = torch.randn(1, labels, height, width, generator=torch.Generator().manual_seed(seed)) * 2
    return -logits.log_softmax(1)


def all_pairs(features, values):
    """The sums in float64, and the kernel's."""
    f = features.double() * SCALE
    kernel = torch.exp2(-(f[:, None] - f[None]).square().sum(2))
    return kernel @ values.double()


def tiled(crf, features, values, tolerance, device):
    """As the mean field asks for them, with the bound on what was left out."""
    order = kd_order([features.to(device)])
    near = crf.near_tiles(order.boxes, order.images, tolerance)
    rows = torch.zeros(len(order.source), 16, dtype=torch.float16, device=device)
    rows[:, : values.shape[1]] = values.to(device).half()[order.source] * order.real[:, None]
    found = crf.gaussian_sums(order.features, order.centres, rows, near)
    dropped = near.dropped[order.place // crf.QUERIES]
    return found[order.place, : values.shape[1]].cpu(), dropped.cpu(), near


@pytest.mark.parametrize("kind", ["regions", "noise", "flat"])
def test_sums_are_those_over_all_pairs(crf, device, kind):
    features = pixel_features(picture(17, 16, 1, kind), 6.0, 20.0)
    values = torch.rand(len(features), 3, generator=torch.Generator().manual_seed(2))
    expected = all_pairs(features, values)
    found, dropped, _ = tiled(crf, features, values, 0.0, device)
    assert not dropped.any()
    assert ((found - expected).abs() <= 1e-3 * expected).all()


def test_what_is_left_out_is_within_the_bound(crf, device):
    features = pixel_features(picture(24, 24, 4), 2.0, 40.0)
    values = torch.rand(len(features), 2, generator=torch.Generator().manual_seed(3))
    expected = all_pairs(features, values)
    found, dropped, near = tiled(crf, features, values, 1e-2, device)
    assert len(near.tiles) < 9 * 18  # blocks, tiles
    assert dropped.max() > 0
    missing = expected - found
    assert (missing <= dropped[:, None] + 1e-3 * expected).all()
    assert (missing >= -1e-3 * expected).all()


def test_the_exponent_keeps_its_precision_far_from_the_middle(crf, device):
    # pixels of all colours in one block, a narrow kernel: |q|^2 of thousands must cancel
    features = pixel_features(picture(8, 16, 5, "noise"), 50.0, 3.0)
    values = torch.rand(len(features), 1, generator=torch.Generator().manual_seed(6))
    found, _, _ = tiled(crf, features, values, 0.0, device)
    expected = all_pairs(features, values)
    assert ((found - expected).abs() <= 4e-3 * expected).all()  # TF32 of a GPU cuts digits off, too


@settings(max_examples=6, deadline=None)
@given(
    st.integers(1, 13),
    st.integers(1, 11),
    st.integers(2, 20),
    st.integers(0, 2**31),
    st.sampled_from(["noise", "flat"]),
)
def test_the_posterior_is_that_of_the_reference(device, height, width, labels, seed, kind):
    image, energy = picture(height, width, seed, kind), unary(labels, height, width, seed)
    expected = mean_field([image], [energy.double()], **KERNELS, iterations=3)[0]
    found = mean_field([image.to(device)], [energy.to(device)], **KERNELS, iterations=3, tolerance=1e-4)[0].cpu()
    assert (found.sum(1) - 1).abs().max() < 1e-5
    assert (found - expected).abs().max() < 2e-3


def test_81_labels_take_several_programs_for_their_columns(device):
    image, energy = picture(6, 5, 7), unary(81, 6, 5, 8)
    expected = mean_field([image], [energy.double()], **KERNELS, iterations=2)[0]
    found = mean_field([image.to(device)], [energy.to(device)], **KERNELS, iterations=2, tolerance=1e-4)[0].cpu()
    assert (found - expected).abs().max() < 2e-3


def test_images_of_several_sizes_at_once_are_each_as_alone_to_the_bit(device):
    images = [picture(9, 17, 1).to(device), picture(14, 10, 2).to(device)]
    energies = [unary(3, 9, 17, 3).to(device), unary(2, 14, 10, 4).to(device)]
    together = mean_field(images, energies, **KERNELS, iterations=2, tolerance=1e-4)
    again = mean_field(images, energies, **KERNELS, iterations=2, tolerance=1e-4)
    for image, energy, found, same in zip(images, energies, together, again, strict=True):
        assert torch.equal(found, same)
        alone = mean_field([image], [energy], **KERNELS, iterations=2, tolerance=1e-4)[0]
        assert torch.equal(found, alone)


def test_near_tiles_are_in_order_and_those_of_the_own_image(crf, device):
    order = kd_order([pixel_features(picture(20, 30, n), 3.0, 5.0).to(device) for n in (1, 2)])
    near = crf.near_tiles(order.boxes, order.images, 1e-4)
    offsets, tiles = near.offsets.tolist(), near.tiles.tolist()
    assert offsets[0] == 0
    assert offsets[-1] == len(tiles)
    boxes, limit = order.boxes.cpu(), -np.log2(1e-4)
    for block, (first, last) in enumerate(order.images.tolist()):
        own = boxes[BLOCK // LEAF * block :][: BLOCK // LEAF]
        low, high = own[:, :5].amin(0), own[:, 5:].amax(0)
        gap = torch.maximum(boxes[first:last, :5] - high, low - boxes[first:last, 5:]).clamp(min=0)
        expected = (first + (gap.square().sum(1) <= limit).nonzero()[:, 0]).tolist()
        assert tiles[offsets[block] : offsets[block + 1]] == expected


def test_the_order_is_laid_out_as_the_kernel_reads_it(crf):
    assert (crf.QUERIES, crf.KEYS, crf.STRIDE) == (BLOCK, LEAF, STRIDE)


def test_shapes_that_do_not_fit_are_refused(crf, device):
    order = kd_order([torch.zeros(100, 5, device=device)])
    near = crf.near_tiles(order.boxes, order.images, 0.0)
    for shape in ((128, 17), (100, 16), (128, 96)):
        with pytest.raises(ValueError, match="do not fit"):
            crf.gaussian_sums(order.features, order.centres, torch.zeros(shape, dtype=torch.float16), near)


@pytest.mark.slow
def test_the_kernels_compile_for_a_gpu_without_much_shared_memory(crf):
    near = ["boxes", "images", "counts", "dropped", "offsets", "tiles", "limit"]
    near = dict(zip(near, ["*fp32", "*i32", "*i32", "*fp32", "*i32", "*i32", "fp32"], strict=True))
    spread = ["features", "centres", "values", "offsets", "near", "out", "columns"]
    spread = dict(zip(spread, ["*fp32", "*fp32", "*fp16", "*i32", "*i32", "*fp32", "i32"], strict=True))
    kernels = []
    for fill in (False, True):
        constants = {"FILL": fill, "QUERY_TILES": crf.QUERIES // crf.KEYS, "KEYS": crf.KEYS, "BLOCK": 256}
        kernels.append(("_near", near | dict.fromkeys(constants, "constexpr"), constants, (), {}))
    for width in (16, 32, 64):
        constants = {"WIDTH": width, "QUERIES": crf.QUERIES, "KEYS": crf.KEYS}
        signature = spread | dict.fromkeys(constants, "constexpr")
        kernels.append(("_spread", signature, constants, ("columns",), crf.LAUNCH))
    made = compile_kernels([("wsss_cli.kernels.crf", *kernel) for kernel in kernels])
    assert len(made) == 5
    assert max(kernel["shared"] for kernel in made) <= 48 * 1024  # what a block gets without asking
    assert not any(kernel["spilled"] for kernel in made)


@pytest.mark.gpu
@pytest.mark.parametrize("seed", [1, 2])
def test_a_whole_photograph_on_a_gpu(seed):
    """375 x 500, 21 labels: near the exact sums of the same GPU in float32, and on nearly all pixels as the lattice."""
    from wsss_cli.crf import dense_crf

    image, energy = picture(375, 500, seed), unary(21, 375, 500, seed)
    given_ = {"gauss_sxy": 3.0, "gauss_compat": 3.0, "bilateral_sxy": 50.0, "bilateral_srgb": 5.0}
    given_ |= {"bilateral_compat": 10.0, "iterations": 10}
    poison = torch.full((400_000_000,), torch.nan, device="cuda")
    del poison  # memory that is taken again is not zero
    found = dense_crf(image.numpy(), energy[0].numpy(), **given_, backend="triton")
    exact = mean_field([image.cuda()], [energy.cuda()], **given_)[0][0].cpu().numpy()
    assert np.abs(found - exact).max() < 1e-2
    assert (found.argmax(0) == exact.argmax(0)).mean() > 0.999
    np.testing.assert_array_equal(found, dense_crf(image.numpy(), energy[0].numpy(), **given_, backend="triton"))
    assert (
        found.argmax(0) == dense_crf(image.numpy(), energy[0].numpy(), **given_, backend="lattice").argmax(0)
    ).mean() > 0.95
