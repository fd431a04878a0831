"""Scores: hand-computed, against the reference implementation, and as properties."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wsss_cli.metrics import scores
from wsss_cli.metrics.confusion import Confusion

REFERENCE = json.loads((Path(__file__).parents[1] / "golden" / "iou_metric.json").read_text())
by_case = pytest.mark.parametrize("case", REFERENCE["cases"], ids=lambda case: str(case["spec"]["seed"]))
PER_CLASS = {
    "IoU": scores.iou,
    "Acc": scores.acc,
    "Dice": scores.dice,
    "Fscore": scores.fscore,
    "Precision": scores.precision,
    "Recall": scores.recall,
}


def areas_of(matrix: list[list[int]]) -> dict[str, np.ndarray]:
    """Areas of a matrix without the out-of-range row and column."""
    confusion = Confusion(len(matrix))
    confusion.matrix[:-1, :-1] = matrix
    return confusion.areas()


def golden_areas(case: dict) -> dict[str, np.ndarray]:
    return {name: np.array(case[f"area_{name}"], np.int64) for name in ("intersect", "union", "pred", "label")}


# Background: 6 right of 8. Class 1: 3 right, 1 missed, 1 too many. Class 2: predicted twice, never true. 3: nowhere.
HAND = [[6, 1, 1, 0], [0, 3, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_each_class_by_hand() -> None:
    areas = areas_of(HAND)
    nan = np.nan
    np.testing.assert_allclose(scores.iou(areas), [6 / 8, 3 / 5, 0, nan])
    np.testing.assert_allclose(scores.acc(areas), [6 / 8, 3 / 4, nan, nan])
    np.testing.assert_allclose(scores.precision(areas), [1, 3 / 4, 0, nan])
    np.testing.assert_allclose(scores.dice(areas), [12 / 14, 6 / 8, 0, nan])
    np.testing.assert_allclose(scores.false_positive(areas), [0, 1 / 5, 1, nan])
    np.testing.assert_allclose(scores.false_negative(areas), [2 / 8, 1 / 5, 0, nan])
    np.testing.assert_allclose(scores.fscore(areas, beta=2)[:2], [5 * 0.75 / (4 + 0.75), 0.75])


def test_means_by_hand() -> None:
    areas = areas_of(HAND)
    assert scores.miou(areas) == pytest.approx(100 * (0.75 + 0.6 + 0) / 3)
    assert scores.macc(areas) == pytest.approx(75)
    assert scores.aacc(areas) == pytest.approx(100 * 9 / 12)
    assert scores.mean_fp(areas) == pytest.approx(100 * (0.2 + 1) / 2)
    assert scores.mean_fn(areas) == pytest.approx(100 * (0.2 + 0) / 2)


def test_summary_is_json_with_null_where_undefined() -> None:
    result = json.loads(
        json.dumps(scores.summary(areas_of(HAND), ["background", "cat", "dog", "cow"]), allow_nan=False)
    )
    assert result["classes"] == ["background", "cat", "dog", "cow"]
    assert result["iou"] == pytest.approx([75, 60, 0, None])
    assert result["acc"] == pytest.approx([75, 75, None, None])
    assert result["fp"] == pytest.approx([0, 20, 100, None])
    assert result["fn"] == pytest.approx([25, 20, 0, None])
    assert (result["mfp"], result["mfn"]) == pytest.approx((60, 10))
    assert result["label"] == [8, 4, 0, 0]
    assert result["union"] == [8, 5, 2, 0]
    assert result["miou"] == pytest.approx(45)


def test_summary_of_nothing_is_null_throughout() -> None:
    result = scores.summary(Confusion(2).areas())
    assert [result[key] for key in ("miou", "macc", "aacc", "mfp", "mfn")] == [None] * 5
    assert result["iou"] == [None, None]
    assert result["classes"] == ["0", "1"]


def test_summary_refuses_a_wrong_number_of_names() -> None:
    with pytest.raises(ValueError, match="1 class names for 4 classes"):
        scores.summary(areas_of(HAND), ["background"])


@by_case
@pytest.mark.parametrize("name", PER_CLASS)
def test_classes_equal_the_reference(case: dict, name: str) -> None:
    np.testing.assert_allclose(PER_CLASS[name](golden_areas(case)), case["per_class"][name], rtol=1e-6)


@by_case
def test_means_equal_the_reference(case: dict) -> None:
    areas, expected = golden_areas(case), case["summary"]
    found = {"aAcc": scores.aacc(areas), "mIoU": scores.miou(areas), "mAcc": scores.macc(areas)}
    for name in found:
        assert round(found[name], 2) == pytest.approx(expected[name], abs=1e-4, nan_ok=True), name
    for name in ("Dice", "Fscore", "Precision", "Recall"):
        values = PER_CLASS[name](areas)
        mean = 100 * np.nanmean(values) if not np.isnan(values).all() else np.nan
        assert round(mean, 2) == pytest.approx(expected[f"m{name}"], abs=1e-4, nan_ok=True), name


@by_case
def test_means_with_undefined_as_zero_equal_the_reference(case: dict) -> None:
    areas, expected = golden_areas(case), case["summary_nan_to_num0"]
    for name, values in (("mIoU", scores.iou(areas)), ("mAcc", scores.acc(areas))):
        assert round(100 * np.nan_to_num(values, nan=0.0).mean(), 2) == pytest.approx(expected[name], abs=1e-4), name


@settings(deadline=None)
@given(arrays(np.int64, (4, 4), elements=st.integers(0, 10**12)))
def test_iou_and_both_errors_add_up_to_one(matrix: np.ndarray) -> None:
    areas = areas_of(matrix.tolist())
    parts = scores.iou(areas) + scores.false_positive(areas) + scores.false_negative(areas)
    defined = areas["union"] > 0
    np.testing.assert_allclose(parts[defined], 1)
    assert np.isnan(parts[~defined]).all()


@settings(deadline=None)
@given(arrays(np.int64, (4, 4), elements=st.integers(0, 1000)), st.permutations(range(4)))
def test_the_order_of_classes_does_not_change_means(matrix: np.ndarray, order: list[int]) -> None:
    areas, moved = areas_of(matrix.tolist()), areas_of(matrix[np.ix_(order, order)].tolist())
    for mean in (scores.miou, scores.macc, scores.aacc):
        assert mean(moved) == pytest.approx(mean(areas), nan_ok=True)
