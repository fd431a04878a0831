import numpy as np
import pytest
from references.dense_crf import SETTINGS, all_pairs, log_softmax, scene

from wsss_cli.crf import dense_crf
from wsss_cli.crf.dense import label_unary
from wsss_cli.errors import DataError


@pytest.mark.parametrize("labels", [2, 3, 5])
def test_the_lattice_is_near_the_sum_over_all_pairs(labels):
    image, unary, truth = scene(labels)
    expected = all_pairs(image, unary, **SETTINGS)
    found = dense_crf(image, unary, **SETTINGS)
    assert found.dtype == np.float32
    assert (found.argmax(0) == expected.argmax(0)).mean() >= 0.97
    assert np.abs(found - expected).mean() < 0.05
    # and both have done something: the unary alone is far off
    assert (unary.argmin(0) == truth).mean() < 0.9 < (found.argmax(0) == truth).mean()


def test_each_kernel_alone_is_near_the_sum_over_all_pairs():
    image, unary, _ = scene()
    for off in ("gauss_compat", "bilateral_compat"):
        settings = SETTINGS | {off: 0.0}
        found = dense_crf(image, unary, **settings)
        assert np.abs(found - all_pairs(image, unary, **settings)).mean() < 0.05
        assert np.abs(found - dense_crf(image, unary, **SETTINGS)).max() > 0.05


def test_the_posterior_sums_to_one():
    image, unary, _ = scene(4)
    q = dense_crf(image, unary, **SETTINGS)
    assert q.shape == unary.shape
    assert q.min() >= 0
    np.testing.assert_allclose(q.sum(0), 1.0, atol=1e-5)


def test_without_kernels_it_is_the_softmax_of_the_unary():
    image, unary, _ = scene()
    q = dense_crf(image, unary, **SETTINGS | {"gauss_compat": 0.0, "bilateral_compat": 0.0})
    np.testing.assert_allclose(q, np.exp(log_softmax(-unary.astype(float))), atol=1e-6)


def test_one_label_is_certain():
    image, unary, _ = scene()
    assert (dense_crf(image, unary[:1], **SETTINGS) == 1).all()


def test_the_axes_are_not_mixed_up():
    image, unary, _ = scene()
    straight = dense_crf(image, unary, **SETTINGS)
    turned = dense_crf(
        np.ascontiguousarray(image.transpose(1, 0, 2)), np.ascontiguousarray(unary.transpose(0, 2, 1)), **SETTINGS
    )
    np.testing.assert_allclose(turned.transpose(0, 2, 1), straight, atol=0.06)


def test_an_input_that_is_not_contiguous_gives_the_same():
    image, unary, _ = scene()
    wide_image, wide_unary = np.repeat(image, 2, axis=1), np.repeat(unary, 2, axis=2)
    expected = dense_crf(image, unary, **SETTINGS)
    np.testing.assert_array_equal(dense_crf(wide_image[:, ::2], wide_unary[:, :, ::2], **SETTINGS), expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_unary_that_is_not_finite_is_refused(value):
    image, unary, _ = scene()
    unary[1, 2, 3] = value
    with pytest.raises(DataError, match="NaN or infinity"):
        dense_crf(image, unary, **SETTINGS)


def test_inputs_of_other_shapes_or_types_are_refused():
    image, unary, _ = scene()
    for bad in (image.astype(np.float32), image[..., 0], np.concatenate([image, image[..., :1]], 2)):
        with pytest.raises(DataError, match="image must be uint8"):
            dense_crf(bad, unary, **SETTINGS)
    for bad in (unary[:, :-1], unary[0], unary.transpose(0, 2, 1)):
        with pytest.raises(DataError, match="does not fit"):
            dense_crf(image, bad, **SETTINGS)


def test_label_unary_by_hand():
    energy = label_unary(np.array([[0, 2]]), 3, 0.7)
    sure, other = -np.log(0.7), -np.log(0.15)
    assert energy.dtype == np.float32
    np.testing.assert_allclose(energy[:, 0, 0], [sure, other, other], rtol=1e-6)
    np.testing.assert_allclose(energy[:, 0, 1], [other, other, sure], rtol=1e-6)
    np.testing.assert_allclose(np.exp(-energy).sum(0), 1.0, rtol=1e-6)
