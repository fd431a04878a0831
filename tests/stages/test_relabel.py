import numpy as np
import pytest
import torch
from torch import nn

from wsss_cli.config.base import CrfConfig
from wsss_cli.config.evaluation import EvalConfig
from wsss_cli.config.refine import CrfStep, RelabelConfig
from wsss_cli.data.dataset import Sample
from wsss_cli.engine.context import Context
from wsss_cli.errors import UsageError
from wsss_cli.files import write_json
from wsss_cli.inference.predict import predict
from wsss_cli.stages.paths import cam_files
from wsss_cli.stages.relabel import FirstScores, allowed_classes, first_scores, mixed, refined

OFF = CrfConfig(gauss_compat=0.0, bilateral_compat=0.0)


class Fixed(nn.Module):
    """A network of three classes with the same logits everywhere."""

    @property
    def backbone(self):
        return self

    def normalise(self, x):
        return x.float()

    def forward(self, x):
        logits = torch.tensor([0.0, 1.0, 2.0]).view(1, 3, 1, 1)
        return logits.expand(len(x), 3, x.shape[2] // 4, x.shape[3] // 4)


def sample(tmp_path, *labels):
    return Sample("a", tmp_path / "a.png", None, labels)


def test_background_and_tags_are_allowed(tmp_path):
    allowed = allowed_classes([sample(tmp_path, 2), sample(tmp_path), sample(tmp_path, 1, 3)], 4)
    assert allowed.int().tolist() == [[1, 0, 1, 0], [1, 0, 0, 0], [1, 1, 0, 1]]


@pytest.mark.parametrize("ms_flip", [False, True])
def test_probabilities_are_those_among_the_allowed_classes(tmp_path, ms_flip):
    images = [np.zeros((8, 8, 3), np.uint8)] * 2
    allowed = torch.tensor([[True, True, False], [True, True, True]])
    found = predict(
        Fixed(),
        images,
        EvalConfig(scales=(1.0, 2.0)),
        Context(torch.device("cpu"), tmp_path),
        "fp32",
        single=not ms_flip,
        ms_flip=ms_flip,
        probabilities=True,
        allowed=allowed,
    )
    planes = found["ms_flip_probabilities" if ms_flip else "single_probabilities"]
    e = np.e
    assert planes[0, :, 3, 3] == pytest.approx([1 / (1 + e), e / (1 + e), 0.0])
    assert planes[1, :, 3, 3] == pytest.approx(np.array([1, e, e**2]) / (1 + e + e**2))
    labels = found["ms_flip" if ms_flip else "single"]
    assert (labels[0] == 1).all()
    assert (labels[1] == 2).all()


def test_without_pairs_the_posterior_is_the_probability_and_doubt_is_undecided():
    image = np.zeros((1, 3, 3), np.uint8)
    probabilities = np.array([[[0.9, 0.45, 0.2]], [[0.1, 0.55, 0.8]]], np.float32)
    labels, confidence = refined(
        image, probabilities, (4,), RelabelConfig(steps=(CrfStep(on="scores", crf=OFF),), min_confidence=0.6)
    )
    assert labels.tolist() == [[0, 255, 4]]
    assert confidence[0] == pytest.approx([0.9, 0.0, 0.8], abs=1e-5)


def test_the_crf_gives_a_stray_pixel_to_those_of_its_colour():
    image = np.zeros((9, 9, 3), np.uint8)
    image[:, 5:] = 200
    probabilities = np.empty((2, 9, 9), np.float32)
    probabilities[1] = np.where(np.arange(9) < 5, 0.1, 0.9)
    probabilities[1, 4, 2] = 0.6
    probabilities[0] = 1 - probabilities[1]
    labels, confidence = refined(image, probabilities, (2,), RelabelConfig())
    assert (labels == np.where(np.arange(9) < 5, 0, 2)).all()
    assert confidence.min() > 0.5


def test_an_image_without_tags_is_background():
    labels, confidence = refined(np.zeros((2, 2, 3), np.uint8), np.ones((1, 2, 2), np.float32), (), RelabelConfig())
    assert (labels == 0).all()
    assert (confidence == 1).all()


def test_scores_of_cams_are_averaged_in():
    probabilities = np.array([[[0.8]], [[0.2]]], np.float32)
    cam = np.array([[[1.0]]], np.float32)
    # 0.5 * (0.8, 0.2) + 0.5 * (0.4, 1.0) = (0.6, 0.6)
    np.testing.assert_allclose(mixed(probabilities, cam, 0.4, 0.5), [[[0.5]], [[0.5]]], atol=1e-6)
    np.testing.assert_allclose(mixed(probabilities, cam, 0.4, 0.0), probabilities, atol=1e-6)


def finished(path, stage, inputs, **record):
    path.mkdir(parents=True)
    write_json(path / "run.json", {"stage": stage, "state": "done", "identity": path.name, **record})
    write_json(path / "inputs.json", {"dataset": "d", "classes": [], "colors": [], **inputs})
    return path


def test_the_first_scores_are_those_behind_all_rounds(tmp_path):
    cam = tmp_path / "cam"
    (cam / "cams").mkdir(parents=True)
    thresholds = {"fg_threshold": 0.5, "bg_threshold": 0.3}
    first = finished(tmp_path / "first", "pseudo", {"cam_run": str(cam)}, **thresholds)
    one = finished(tmp_path / "one", "train", {"pseudo_run": str(first)})
    again = finished(tmp_path / "again", "pseudo", {"train_run": str(one)})
    two = finished(tmp_path / "two", "train", {"pseudo_run": str(again)})
    for trained in (one, two):
        found = first_scores(trained)
        assert found.files.folder == cam / "cams"
        assert found.background == pytest.approx(0.4)
    write_json(first / "eval.json", {"threshold": 0.45})
    assert first_scores(one) == FirstScores(cam_files(cam), 0.45)
    write_json(first / "eval.json", {"threshold": 0.45, "class_thresholds": {"cat": 0.9, "cow": None, "dog": 0.3}})
    found = first_scores(one)
    assert found.factors == pytest.approx((0.5, 1.0, 1.5))
    assert found.scaled(np.ones((2, 1, 1), np.float32), (3, 1)).ravel().tolist() == pytest.approx([1.5, 0.5])
    for name in ("2-psa-walk", "1-irn-walk", "10-irn-walk"):
        (first / "scores" / name).mkdir(parents=True)
    assert first_scores(two).files.folder == first / "scores" / "10-irn-walk"


def test_there_are_no_first_scores_behind_true_masks_or_where_they_are_gone(tmp_path):
    full = finished(tmp_path / "full", "train", {})
    with pytest.raises(UsageError, match="without pseudo masks"):
        first_scores(full)
    first = finished(tmp_path / "first", "pseudo", {"cam_run": "gone"}, fg_threshold=0.5, bg_threshold=0.3)
    with pytest.raises(UsageError, match="is gone"):
        first_scores(finished(tmp_path / "one", "train", {"pseudo_run": str(first)}))
