"""A teacher's regions against CAMs of the tags: one confirmed, one doubted, none at all."""

import numpy as np
import pytest

from wsss_cli.config.load import load_preset
from wsss_cli.config.refine import AgreeStep
from wsss_cli.errors import UsageError
from wsss_cli.pseudo.agree import agree

STEP = AgreeStep(cams="runs/cam")


def scene():
    """Two regions of class 3, of which the CAM knows the left one; class 5 is not found by the teacher."""
    scores = np.zeros((2, 40, 60), np.float32)
    scores[0, 10:20, 5:15] = 0.9
    scores[0, 10:20, 40:50] = 0.8
    scores[1, 30:35] = 0.4
    cam = np.zeros_like(scores)
    cam[0, 5:25, :20] = 1.0
    cam[0, 10:20, 40:50] = 0.2
    cam[1, :10, :10] = 1.0
    return scores, cam


def test_a_region_without_support_is_doubted_and_a_class_without_region_gets_its_cam():
    scores, cam = scene()
    judged, outcome = agree(scores, cam, (3, 5), STEP)
    assert (judged[0, 10:20, 5:15] == np.float32(0.9)).all()
    assert np.allclose(judged[0, 10:20, 40:50], 0.4)
    assert np.allclose(judged[1], 0.6 * cam[1])
    assert (outcome.classes, outcome.regions, outcome.doubted, outcome.cams) == ((3,), 2, 1, (5,))
    assert scores[0, 15, 45] == np.float32(0.8)  # the source stays


def test_support_counts_beside_the_best_region_alone():
    scores, cam = scene()
    cam[0, 10:20, 40:50] = 0.26
    judged, outcome = agree(scores, cam, (3, 5), STEP)
    assert outcome.doubted == 0 and (judged[0] == scores[0]).all()
    judged, outcome = agree(scores, np.zeros_like(cam), (3, 5), STEP)  # a CAM that knows nothing doubts nothing
    assert outcome.doubted == 0 and (judged[0] == scores[0]).all()


def test_an_image_without_tags_has_nothing_to_judge():
    empty = np.zeros((0, 4, 4), np.float32)
    judged, outcome = agree(empty, empty, (), STEP)
    assert judged.shape == (0, 4, 4) and outcome.regions == 0


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ('[{kind="crf"}, {kind="agree", cams="a"}]', "put it before crf"),
        ('[{kind="agree", cams="a"}, {kind="agree", cams="b"}]', "agree"),
        ('[{kind="agree"}]', "cams"),
    ],
)
def test_steps_that_make_no_sense_are_refused(steps, words):
    with pytest.raises(UsageError, match=words):
        load_preset("toy", [f"pseudo.steps={steps}"])
