from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsss_cli.cam.store import write_cam
from wsss_cli.config.base import CrfConfig
from wsss_cli.config.refine import CRF_SETS, CrfStep, ParStep
from wsss_cli.crf import dense_crf
from wsss_cli.crf.dense import label_unary
from wsss_cli.data.masks import read_mask
from wsss_cli.errors import DataError
from wsss_cli.labels import voc_palette
from wsss_cli.pseudo.refine import Cost, Costs, MaskJob, RefineSettings, make_pseudo_mask, pseudo_mask

CRF = CrfStep(parameters="own", crf=CrfConfig(bilateral_sxy=20.0, bilateral_srgb=10.0))
NO_KERNEL = CrfConfig(gauss_compat=0.0, bilateral_compat=0.0, iterations=1)  # the posterior is that of the unary
PAR = ParStep(iterations=3, dilations=(1, 2), scale=1.0)
SETTINGS = RefineSettings(0.4, 0.2, (CRF,))
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


def softmax(x):
    e = np.exp(x)
    return e / e.sum(0)


def test_the_mask_is_of_tags_background_and_255():
    image, cam, truth = photograph()
    labels, confidence = pseudo_mask(image, cam, (5, 9), SETTINGS)
    assert (labels.dtype, confidence.dtype) == (np.uint8, np.float32)
    assert labels.shape == confidence.shape == (H, W)
    assert set(np.unique(labels)) <= {0, 5, 9, 255}
    assert {0, 5, 9} <= set(np.unique(labels))
    assert ((confidence > 0) == (labels != 255)).all()
    assert confidence.max() <= 1.0
    decided = labels != 255
    assert (labels[decided] == truth[decided]).mean() > 0.9


@pytest.mark.parametrize(
    "step", [CRF, CrfStep(on="scores", crf=CRF.crf), ParStep(scale=1.0)], ids=["labels", "scores", "par"]
)
def test_a_step_fills_the_object_that_the_cam_covers_in_part(step):
    image, cam, truth = photograph()
    before, _ = pseudo_mask(image, cam, (5, 9), RefineSettings(0.3, 0.3, ()))
    assert (before == np.array([0, 5, 9])[np.concatenate([np.full((1, H, W), 0.3), cam]).argmax(0)]).all()
    labels, _ = pseudo_mask(image, cam, (5, 9), RefineSettings(0.3, 0.3, (step,)))
    assert (labels == truth).mean() > (before == truth).mean() + 0.03
    assert 255 not in labels  # one threshold: nothing to disagree on


def test_where_the_two_runs_disagree_it_is_undecided():
    image = np.full((H, W, 3), 128, np.uint8)
    cam = np.zeros((1, H, W), np.float32)
    third = W // 3
    cam[:, :, :third], cam[:, :, third : 2 * third] = 0.9, 0.3
    labels, confidence = pseudo_mask(image, cam, (4,), replace(SETTINGS, steps=(CrfStep(crf=NO_KERNEL),)))
    assert (labels[:, :third] == 4).all()
    assert (labels[:, third : 2 * third] == 255).all()
    assert (labels[:, 2 * third :] == 0).all()
    np.testing.assert_allclose(confidence[labels != 255], 0.7, atol=1e-6)
    assert (confidence[labels == 255] == 0).all()


def test_without_steps_it_is_the_thresholds_and_the_share_of_the_scores():
    image = np.zeros((1, 4, 3), np.uint8)
    cam = np.array([[[0.9, 0.3, 0.1, 0.5]], [[0.3, 0.1, 0.0, 0.5]]], np.float32)
    labels, confidence = pseudo_mask(image, cam, (2, 7), RefineSettings(0.4, 0.2, ()))
    assert labels.tolist() == [[2, 255, 0, 2]]
    share = (0.9 / 1.6 + 0.9 / 1.4) / 2, 0.0, (0.4 / 0.5 + 0.2 / 0.3) / 2, (0.5 / 1.4 + 0.5 / 1.2) / 2
    np.testing.assert_allclose(confidence[0], share, atol=1e-4)


def test_crf_on_scores_takes_them_as_probabilities():
    image, cam, _ = photograph()
    _, confidence = pseudo_mask(image, cam, (5, 9), RefineSettings(0.3, 0.3, (CrfStep(on="scores", crf=NO_KERNEL),)))
    stack = np.concatenate([np.full((1, H, W), 0.3), cam])
    np.testing.assert_allclose(confidence, (stack / stack.sum(0)).max(0), atol=1e-3)
    raw = -np.log(np.clip(stack, 1e-5, 1)).astype(np.float32)  # PSA's, which does not divide by the sum
    labels, _ = pseudo_mask(image, cam, (5, 9), RefineSettings(0.3, 0.3, (CrfStep(on="scores", crf=CRF.crf),)))
    expected = dense_crf(image, raw, **CRF.crf.model_dump()).argmax(0)
    assert (labels == np.array([0, 5, 9])[expected]).mean() > 0.999


def test_par_takes_the_softmax_of_the_scores():
    image = np.full((6, 8, 3), 90, np.uint8)
    cam = np.zeros((1, 6, 8), np.float32) + 0.8
    labels, confidence = pseudo_mask(image, cam, (3,), RefineSettings(0.7, 0.7, (PAR,)))
    assert (labels == 3).all()
    np.testing.assert_allclose(confidence, np.exp(0.8) / (np.exp(0.8) + np.exp(0.7)), rtol=1e-5)


def test_steps_follow_each_other_in_the_order_given():
    image, cam, _ = photograph()
    one_label = CrfStep(crf=NO_KERNEL)  # makes every posterior 0.7
    _, last_crf = pseudo_mask(image, cam, (5, 9), RefineSettings(0.3, 0.3, (PAR, one_label)))
    np.testing.assert_allclose(last_crf, 0.7, atol=1e-6)
    labels, last_par = pseudo_mask(image, cam, (5, 9), RefineSettings(0.3, 0.3, (one_label, PAR)))
    assert last_par.min() < 0.65  # averages of 0.7 and 0.15
    assert last_par.max() == pytest.approx(0.7, abs=1e-5)
    # PAR after a CRF works on its posterior, not on a softmax of it
    alone = last_par[labels == 5]
    assert alone.max() > softmax(np.array([0.7, 0.15, 0.15]))[0] + 0.1


def test_what_is_not_certain_enough_is_undecided():
    image, cam, _ = photograph()
    labels, confidence = pseudo_mask(image, cam, (5, 9), SETTINGS)
    limit = float(np.median(confidence[labels != 255]))
    strict, sure = pseudo_mask(image, cam, (5, 9), replace(SETTINGS, min_confidence=limit))
    assert ((strict == 255) == ((labels == 255) | (confidence < limit))).all()
    assert (strict[strict != 255] == labels[strict != 255]).all()
    assert ((sure == 0) == (strict == 255)).all()
    assert 0.2 < (strict == 255).mean() < 0.8


def test_the_factor_of_a_class_moves_its_threshold():
    image = np.zeros((1, 4, 3), np.uint8)
    cam = np.array([[[0.25, 0.35, 0.0, 0.0]], [[0.0, 0.0, 0.5, 0.7]]], np.float32)
    plain = RefineSettings(0.4, 0.4, ())
    assert pseudo_mask(image, cam, (1, 3), plain)[0].tolist() == [[0, 0, 3, 3]]
    moved = replace(plain, class_factors=(0.4 / 0.3, 9.0, 0.4 / 0.6))  # own thresholds 0.3 and 0.6
    assert pseudo_mask(image, cam, (1, 3), moved)[0].tolist() == [[0, 1, 0, 3]]


@pytest.mark.parametrize("steps", [(CRF,), (ParStep(),)], ids=["crf", "par"])
def test_mirrored_input_gives_the_mirrored_mask(steps):
    image, cam, _ = photograph()
    settings = replace(SETTINGS, steps=steps)
    straight, _ = pseudo_mask(image, cam, (5, 9), settings)
    mirrored, _ = pseudo_mask(
        np.ascontiguousarray(image[:, ::-1]), np.ascontiguousarray(cam[:, :, ::-1]), (5, 9), settings
    )
    assert (mirrored[:, ::-1] == straight).mean() > 0.97
    assert (mirrored == straight).mean() < 0.9


def test_without_tags_all_is_background():
    image, _, _ = photograph()
    labels, confidence = pseudo_mask(image, np.zeros((0, H, W), np.float32), (), SETTINGS)
    assert not labels.any()
    assert (confidence == 1).all()


STEPS = st.sampled_from([(), (CRF,), (CrfStep(on="scores"),), (PAR,), (PAR, CRF), (CRF, PAR), (ParStep(iterations=1),)])


@settings(deadline=None, max_examples=25)
@given(STEPS, st.integers(0, 2**32 - 1), st.floats(0, 1), st.floats(0, 1))
def test_any_scores_give_tags_background_and_255_only(steps, seed, one, other):
    rng = np.random.default_rng(seed)
    height, width, count = (int(value) for value in rng.integers([1, 1, 0], [9, 9, 4]))
    classes = tuple(sorted(int(c) for c in rng.choice(np.arange(1, 255), count, replace=False)))
    cam = rng.choice([0.0, 0.2, 0.5, 1.0], (count, height, width)).astype(np.float32)
    image = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    labels, confidence = pseudo_mask(image, cam, classes, RefineSettings(max(one, other), min(one, other), steps))
    assert labels.shape == confidence.shape == (height, width)
    assert set(np.unique(labels)) <= {0, 255, *classes}
    assert ((confidence > 0) == (labels != 255)).all()
    assert confidence.max() <= 1 + 1e-5
    if one == other:
        assert 255 not in labels


@pytest.mark.parametrize(
    ("name", "kernels"),
    [
        ("irn", (3, 3, 50, 5, 10)),
        ("psa", (3, 3, 80, 13, 10)),
        ("deeplab", (1, 3, 67, 3, 4)),
        ("toco", (1, 1, 121, 5, 4)),
    ],
)
def test_the_published_sets_by_name(name, kernels):
    values = CrfStep(parameters=name).values
    assert values == CRF_SETS[name]
    assert values.iterations == 10
    keys = ("gauss_sxy", "gauss_compat", "bilateral_sxy", "bilateral_srgb", "bilateral_compat")
    assert tuple(getattr(values, key) for key in keys) == kernels
    image, cam, _ = photograph()
    stack = np.concatenate([np.full((1, H, W), 0.3, np.float32), cam])
    posterior = dense_crf(image, label_unary(stack.argmax(0), 3, 0.7), **dict(zip(keys, kernels, strict=True)))
    _, confidence = pseudo_mask(image, cam, (5, 9), RefineSettings(0.3, 0.3, (CrfStep(parameters=name),)))
    np.testing.assert_array_equal(confidence, posterior.max(0))


@pytest.fixture
def job(tmp_path):
    image, cam, _ = photograph()
    cv2.imwrite(str(tmp_path / "a.png"), image[..., ::-1])
    write_cam(tmp_path / "a.npz", cam[:, ::2, ::2], (5, 9), (H, W))
    paths = [tmp_path / name for name in ("a.png", "a.npz", "masks/a.png", "confidence/a.png")]
    return MaskJob("a", *paths, settings=replace(SETTINGS, steps=(ParStep(), CRF)), colors=voc_palette(10))


def test_a_job_writes_mask_and_confidence_and_says_what_it_took(job):
    cost = make_pseudo_mask(job)
    labels = read_mask(job.mask)
    confidence = cv2.imread(str(job.confidence), cv2.IMREAD_UNCHANGED)
    assert labels.shape == confidence.shape == (H, W)
    assert {0, 5, 9} <= set(np.unique(labels)) <= {0, 5, 9, 255}
    assert ((confidence > 0) == (labels != 255)).all()
    assert list(cost.seconds) == ["read", "1 par", "2 crf", "write"]
    assert all(0 < seconds < 60 for seconds in cost.seconds.values())
    assert 20 < cost.peak_mib < 100_000


def test_the_mean_cost_counts_an_image_without_a_step_as_no_time():
    costs = Costs()
    costs.add(Cost({"read": 1.0, "write": 3.0}, 70.0))
    costs.add(Cost({"read": 3.0, "1 crf": 4.0, "2 par": 1.0, "write": 5.0}, 50))
    assert list(costs.mean().items()) == [("read", 2.0), ("1 crf", 2.0), ("2 par", 0.5), ("write", 4.0)]
    assert (costs.images, costs.peak_mib) == (2, 70.0)


def test_a_cam_of_another_image_is_refused(job, tmp_path):
    cv2.imwrite(str(tmp_path / "other.png"), np.zeros((H, W + 1, 3), np.uint8))
    with pytest.raises(DataError, match=r"56x40.*other\.png is 57x40"):
        make_pseudo_mask(replace(job, image=tmp_path / "other.png"))
    assert not job.mask.exists()


def test_scores_of_no_class_make_no_mask(job):
    with pytest.raises(DataError, match=r"a\.npz has a map of class 9, which is not in 1\.\.8"):
        make_pseudo_mask(replace(job, colors=voc_palette(9)))
    assert not job.mask.exists()


def test_an_image_that_is_missing_is_refused(job, tmp_path):
    with pytest.raises(DataError, match=r"nothing\.png"):
        make_pseudo_mask(replace(job, image=tmp_path / "nothing.png"))
