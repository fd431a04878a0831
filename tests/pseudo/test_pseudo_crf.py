from dataclasses import replace

import cv2
import numpy as np
import pytest

from wsss_cli.cam.store import write_cam
from wsss_cli.config.base import CrfConfig
from wsss_cli.data.masks import read_mask, voc_palette
from wsss_cli.errors import DataError
from wsss_cli.pseudo.crf import Job, make_pseudo_mask, pseudo_mask

CRF = CrfConfig(bilateral_sxy=20.0, bilateral_srgb=10.0)
SETTINGS = {"fg_threshold": 0.4, "bg_threshold": 0.2, "gt_prob": 0.7, "crf": CRF}
H, W = 40, 56


def photograph(seed=0):
    """Two objects on a background; CAMs that cover two thirds of each and leak a little."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((H, W), np.uint8)
    truth[8:32, 6:22], truth[12:36, 32:50] = 5, 9
    colours = np.zeros((10, 3), int)
    colours[[0, 5, 9]] = (90, 160, 90), (200, 70, 60), (70, 70, 200)
    image = (colours[truth] + rng.integers(-6, 7, (H, W, 3))).astype(np.uint8)
    y, x = np.mgrid[:H, :W]
    cam = np.stack(
        [np.exp(-(((x - cx) / 8.5) ** 2) - ((y - cy) / 10.0) ** 2) for cx, cy in ((12, 17), (43, 26))]
    ).astype(np.float32)
    return image, cam, truth


def test_the_mask_is_of_tags_background_and_255():
    image, cam, truth = photograph()
    labels, confidence = pseudo_mask(image, cam, (5, 9), **SETTINGS)
    assert (labels.dtype, confidence.dtype) == (np.uint8, np.float32)
    assert labels.shape == confidence.shape == (H, W)
    assert set(np.unique(labels)) <= {0, 5, 9, 255}
    assert {0, 5, 9} <= set(np.unique(labels))
    assert ((confidence > 0) == (labels != 255)).all()
    assert confidence.max() <= 1.0
    decided = labels != 255
    assert (labels[decided] == truth[decided]).mean() > 0.9


def test_the_crf_fills_the_object_that_the_cam_covers_in_part():
    image, cam, truth = photograph()
    before = np.concatenate([np.full((1, H, W), 0.3, np.float32), cam]).argmax(0)
    before = np.array([0, 5, 9])[before]
    labels, _ = pseudo_mask(image, cam, (5, 9), **SETTINGS | {"fg_threshold": 0.3, "bg_threshold": 0.3})
    assert (labels == truth).mean() > (before == truth).mean() + 0.03
    assert 255 not in labels  # one threshold: nothing to disagree on


def test_where_the_two_runs_disagree_it_is_undecided():
    image = np.full((H, W, 3), 128, np.uint8)
    cam = np.zeros((1, H, W), np.float32)
    cam[:, :, : W // 3], cam[:, :, W // 3 : 2 * W // 3] = 0.9, 0.3
    weak = CrfConfig(gauss_compat=0.0, bilateral_compat=0.0, iterations=1)  # no kernel: labels stay where they are
    labels, confidence = pseudo_mask(image, cam, (4,), **SETTINGS | {"crf": weak})
    third = W // 3
    assert (labels[:, :third] == 4).all()
    assert (labels[:, third : 2 * third] == 255).all()
    assert (labels[:, 2 * third :] == 0).sum() == H * (W - 2 * third) - (labels[:, 2 * third :] == 255).sum()
    assert (labels[:, -third:] == 0).all()
    np.testing.assert_allclose(confidence[labels != 255], 0.7, atol=1e-6)
    assert (confidence[labels == 255] == 0).all()


def test_mirrored_input_gives_the_mirrored_mask():
    image, cam, _ = photograph()
    straight, _ = pseudo_mask(image, cam, (5, 9), **SETTINGS)
    mirrored, _ = pseudo_mask(
        np.ascontiguousarray(image[:, ::-1]), np.ascontiguousarray(cam[:, :, ::-1]), (5, 9), **SETTINGS
    )
    assert (mirrored[:, ::-1] == straight).mean() > 0.97
    assert (mirrored == straight).mean() < 0.9


def test_without_tags_all_is_background():
    image, _, _ = photograph()
    labels, confidence = pseudo_mask(image, np.zeros((0, H, W), np.float32), (), **SETTINGS)
    assert not labels.any()
    assert (confidence == 1).all()


@pytest.fixture
def job(tmp_path):
    image, cam, _ = photograph()
    cv2.imwrite(str(tmp_path / "a.png"), image[..., ::-1])
    write_cam(tmp_path / "a.npz", cam[:, ::2, ::2], (5, 9), (H, W))
    paths = [tmp_path / name for name in ("a.png", "a.npz", "masks/a.png", "confidence/a.png")]
    return Job("a", *paths, fg_threshold=0.4, bg_threshold=0.2, gt_prob=0.7, crf=CRF, colors=voc_palette(10))


def test_a_job_writes_mask_and_confidence(job):
    make_pseudo_mask(job)
    labels = read_mask(job.mask)
    confidence = cv2.imread(str(job.confidence), cv2.IMREAD_UNCHANGED)
    assert labels.shape == confidence.shape == (H, W)
    assert {0, 5, 9} <= set(np.unique(labels)) <= {0, 5, 9, 255}
    assert ((confidence > 0) == (labels != 255)).all()


def test_a_cam_of_another_image_is_refused(job, tmp_path):
    cv2.imwrite(str(tmp_path / "other.png"), np.zeros((H, W + 1, 3), np.uint8))
    with pytest.raises(DataError, match=r"40x56.*other\.png is another size"):
        make_pseudo_mask(replace(job, image=tmp_path / "other.png"))
    assert not job.mask.exists()


def test_an_image_that_is_missing_is_refused(job, tmp_path):
    with pytest.raises(DataError, match=r"nothing\.png"):
        make_pseudo_mask(replace(job, image=tmp_path / "nothing.png"))
