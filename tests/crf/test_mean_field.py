"""The exact mean field in torch, against the definition in numpy; the order of pixels for the tiles."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from references.dense_crf import SETTINGS, all_pairs, log_softmax, scene

from wsss_cli.crf import dense_crf
from wsss_cli.crf.dense import backend_for
from wsss_cli.crf.mean_field import mean_field
from wsss_cli.crf.order import AXES, BLOCK, LEAF, SCALE, kd_order, pixel_features
from wsss_cli.errors import DataError, UsageError


def tensors(image, unary):
    return torch.from_numpy(image), torch.from_numpy(unary)[None]


@pytest.mark.parametrize("labels", [2, 5, 21])
def test_it_is_the_sum_over_all_pairs(labels):
    image, unary, _ = scene(labels)
    expected = all_pairs(image, unary, **SETTINGS)
    np.testing.assert_allclose(dense_crf(image, unary, **SETTINGS, backend="exact"), expected, atol=1e-5)


@pytest.mark.parametrize("off", ["gauss_compat", "bilateral_compat"])
def test_each_kernel_alone(off):
    image, unary, _ = scene()
    given_ = SETTINGS | {off: 0.0}
    np.testing.assert_allclose(
        dense_crf(image, unary, **given_, backend="exact"), all_pairs(image, unary, **given_), atol=1e-5
    )


def test_by_hand_two_pixels():
    # one row of two equal pixels, the bilateral kernel alone: k = exp(-1/2), both of norm 1 / (1 + k)
    image = np.full((1, 2, 3), 90, np.uint8)
    unary = -np.log(np.array([[[0.8, 0.4]], [[0.2, 0.6]]], np.float32))
    k = np.exp(-0.5)
    kernel = np.array([[1, k], [k, 1]]) / (1 + k)
    logits = np.log([[0.8, 0.4], [0.2, 0.6]]) + 2.0 * np.array([[0.8, 0.4], [0.2, 0.6]]) @ kernel
    expected = np.exp(logits) / np.exp(logits).sum(0)
    found = dense_crf(
        image,
        unary,
        gauss_sxy=1.0,
        gauss_compat=0.0,
        bilateral_sxy=1.0,
        bilateral_srgb=5.0,
        bilateral_compat=2.0,
        iterations=1,
        backend="exact",
    )
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-6)


def test_images_of_several_sizes_and_label_counts_are_each_as_alone():
    rng = np.random.default_rng(3)
    made = []
    for height, width, labels in ((5, 7, 3), (9, 4, 2), (1, 1, 4)):
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        made.append((image, -log_softmax(rng.normal(size=(labels, height, width))).astype(np.float32)))
    images, unaries = zip(*(tensors(*pair) for pair in made), strict=True)
    together = mean_field(images, [unary.double() for unary in unaries], **SETTINGS)
    for found, (image, unary) in zip(together, made, strict=True):
        np.testing.assert_allclose(found[0].numpy(), all_pairs(image, unary, **SETTINGS), atol=1e-5)


@pytest.mark.parametrize("backend", ["lattice", "exact"])
def test_labellings_that_share_an_image_are_each_as_alone(backend):
    image, one, _ = scene(3)
    other = scene(3, seed=5)[1]
    both = dense_crf(image, np.stack([one, other]), **SETTINGS, backend=backend)
    for found, unary in zip(both, (one, other), strict=True):
        np.testing.assert_allclose(found, dense_crf(image, unary, **SETTINGS, backend=backend), atol=1e-6)


def test_a_flipped_image_gives_the_flipped_posterior():
    image, unary, _ = scene()
    straight = dense_crf(image, unary, **SETTINGS, backend="exact")
    flipped = dense_crf(image[:, ::-1], unary[..., ::-1], **SETTINGS, backend="exact")
    np.testing.assert_allclose(flipped[..., ::-1], straight, atol=1e-5)


def test_a_wrong_unary_and_a_missing_gpu_are_refused():
    image, unary, _ = scene()
    with pytest.raises(DataError, match="does not fit"):
        dense_crf(image, unary[0], **SETTINGS, backend="exact")
    bad = unary.copy()
    bad[0, 0, 0] = np.nan
    with pytest.raises(DataError, match="NaN or infinity"):
        dense_crf(image, bad, **SETTINGS, backend="exact")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="needs a CUDA device"):
            dense_crf(image, unary, **SETTINGS, backend="triton")
        assert backend_for("cuda") == "lattice"
    assert backend_for("cpu") == "lattice"


def test_features_keep_distances():
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8))
    features = pixel_features(image, 7.0, 13.0)
    y, x = np.mgrid[:3, :4]
    plain = np.hstack([np.stack([x, y], -1).reshape(-1, 2) / 7.0, image.numpy().reshape(-1, 3) / 13.0])
    np.testing.assert_allclose(
        torch.cdist(features, features), np.linalg.norm(plain[:, None] - plain, axis=2), atol=1e-4
    )
    np.testing.assert_allclose(np.array(AXES) @ np.array(AXES).T, np.eye(3), atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 700), min_size=1, max_size=4), st.integers(0, 2**31), st.booleans())
def test_the_order_holds_every_pixel_once_and_its_boxes_and_images_are_right(sizes, seed, flat):
    generator = torch.Generator().manual_seed(seed)
    features = [torch.zeros(n, 5) if flat else torch.randn(n, 5, generator=generator) * 10 for n in sizes]
    order = kd_order(features)
    total, places = sum(sizes), len(order.source)
    assert places % BLOCK == 0
    assert places < total + BLOCK * len(sizes)
    assert torch.equal(order.source[order.place], torch.arange(total))
    assert order.real.sum() == total
    assert order.real[order.place].all()
    scaled = torch.cat(features)[order.source] * SCALE
    assert torch.equal(order.features[:, :5], scaled)
    assert torch.equal(order.features[:, 8:13], scaled)
    assert not order.features[:, [5, 6, 7, 13, 14, 15]].any()
    leaves = scaled.view(-1, LEAF, 5)
    assert torch.equal(order.boxes, torch.cat([leaves.amin(1), leaves.amax(1)], 1))
    owner = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))[order.source]
    for block, (first, last) in enumerate(order.images.tolist()):
        own = owner[block * BLOCK]
        assert (owner[first * LEAF : last * LEAF] == own).all()
        assert (owner == own).sum() == (last - first) * LEAF


def test_leaves_of_a_photographlike_image_are_small():
    # four flat quarters: no leaf mixes colours, and leaves are compact in space
    image = torch.zeros(64, 64, 3, dtype=torch.uint8)
    image[:32, 32:], image[32:, :32], image[32:, 32:] = 80, 160, 240
    order = kd_order([pixel_features(image, 5.0, 5.0)])
    sides = order.boxes[:, 5:] - order.boxes[:, :5]
    assert (sides[:, 2:] < 1e-4).all()
    assert sides[:, :2].max() < SCALE * 16 / 5
