"""PSA's confident labels, against their definition a pixel at a time."""

import numpy as np
import pytest
from references.affinity import label_by_pixel

from wsss_cli.config.affinity import PsaConfig
from wsss_cli.config.base import CrfConfig
from wsss_cli.pseudo.affinity_labels import psa_label

NO_KERNEL = CrfConfig(gauss_compat=0.0, bilateral_compat=0.0, iterations=1)  # the posterior is that of the unary


def test_by_hand():
    # background 0.5^2 = 0.25 and 0.5^4 = 0.06; 0.8^2 = 0.64 and 0.8^4 = 0.41; 0.6^2 = 0.36 and 0.6^4 = 0.13
    cam = np.array([[[0.5, 0.2, 0.3]], [[0.1, 0.1, 0.4]]], np.float32)
    config = PsaConfig(alpha_low=2.0, alpha_high=4.0, crf=NO_KERNEL)
    assert psa_label(np.zeros((1, 3, 3), np.uint8), cam, (7, 9), config).tolist() == [[7, 0, 9]]
    low = PsaConfig(alpha_low=1.0, alpha_high=4.0, crf=NO_KERNEL)  # background 0.5, 0.8, 0.6 against 0.5, 0.2, 0.4
    assert psa_label(np.zeros((1, 3, 3), np.uint8), cam, (7, 9), low)[0, 1:].tolist() == [0, 255]


@pytest.mark.parametrize(("alpha_low", "alpha_high"), [(1.0, 3.0), (2.0, 16.0)])
def test_without_kernels_it_is_the_definition(alpha_low, alpha_high):
    cam = np.random.default_rng(0).random((2, 9, 11)).astype(np.float32) ** 2
    config = PsaConfig(alpha_low=alpha_low, alpha_high=alpha_high, crf=NO_KERNEL)
    found = psa_label(np.zeros((9, 11, 3), np.uint8), cam, (4, 6), config)
    expected = label_by_pixel(cam.astype(float), (4, 6), alpha_low, alpha_high, lambda energy: -energy)
    assert set(np.unique(expected)) == {0, 4, 6, 255}
    np.testing.assert_array_equal(found, expected)


def test_an_image_without_tags_is_background():
    image = np.zeros((2, 3, 3), np.uint8)
    assert not psa_label(image, np.zeros((0, 2, 3), np.float32), (), PsaConfig()).any()
