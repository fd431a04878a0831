"""What single images add to a score: against the confusion of all, and the bootstrap against one written out."""

import numpy as np
import pytest

from wsss_cli.errors import DataError
from wsss_cli.metrics.confusion import Confusion
from wsss_cli.metrics.scores import miou
from wsss_cli.scoring.by_image import class_areas, image_areas, paired_difference, read_areas, write_areas

K = 4


def confusions(seed, count=12, right=0.7):
    generator = np.random.default_rng(seed)
    for number in range(count):
        truth = generator.choice([0, number % 3 + 1, 255], (8, 9)).astype(np.uint8)
        noise = generator.integers(0, K, truth.shape).astype(np.uint8)
        pred = np.where(generator.random(truth.shape) < right, np.where(truth == 255, 0, truth), noise).astype(np.uint8)
        confusion = Confusion(K)
        confusion.add(pred, truth)
        yield f"a/{number}", confusion


def areas_of(seed, **kwargs):
    return image_areas((name, class_areas(one.matrix)) for name, one in confusions(seed, **kwargs))


def test_areas_of_all_images_are_those_of_the_confusion_of_all():
    total = Confusion(K)
    for _, one in confusions(0):
        total.merge(one)
    dense = areas_of(0).dense(K).sum(axis=0)
    expected = total.areas()
    for place, key in enumerate(("intersect", "pred", "label")):
        assert np.array_equal(dense[:, place], expected[key])


def test_the_miou_of_an_image_is_over_the_classes_that_it_has():
    for (_, one), score in zip(confusions(1), areas_of(1).mious(), strict=True):
        assert score == pytest.approx(miou(one.areas()))


def test_an_image_without_a_scored_pixel_has_no_score():
    empty = np.zeros((K + 1, K + 1), np.int64)
    some = np.zeros_like(empty)
    some[1, 1] = 5
    scores = image_areas([("nothing", class_areas(empty)), ("some", class_areas(some))]).mious()
    assert np.isnan(scores[0]) and scores[1] == 100.0


def test_what_is_written_is_read_and_damage_is_named(tmp_path):
    areas = areas_of(2)
    write_areas(tmp_path / "x.npz", areas)
    again = read_areas(tmp_path / "x.npz")
    assert again.names == areas.names
    assert np.array_equal(again.dense(K), areas.dense(K))
    (tmp_path / "x.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"x\.npz"):
        read_areas(tmp_path / "x.npz")


def test_some_images_in_another_order():
    areas = areas_of(3)
    names = [areas.names[place] for place in (7, 0, 3)]
    assert np.array_equal(areas.taken(names).dense(K), areas.dense(K)[[7, 0, 3]])


def test_the_difference_and_its_interval_are_those_written_out():
    a, b = areas_of(4, count=20, right=0.6), areas_of(5, count=20, right=0.8)

    def score(areas, order):
        intersect, pred, label = areas.dense(K)[order].sum(axis=0).T
        return miou({"intersect": intersect, "union": pred + label - intersect})

    result = paired_difference(a, b, K, lambda: None, resamples=2000)
    assert result.images == 20
    assert result.value == pytest.approx(score(b, range(20)) - score(a, range(20)))
    generator = np.random.default_rng(1)
    draws = [generator.integers(0, 20, 20) for _ in range(2000)]
    low, high = np.percentile([score(b, order) - score(a, order) for order in draws], [2.5, 97.5])
    assert (result.low, result.high) == pytest.approx((low, high), abs=0.6)  # two draws of 2,000
    assert result.low < result.value < result.high


def test_only_images_of_both_are_compared():
    a, b = areas_of(6), areas_of(7)
    few = b.taken(b.names[:5])
    result = paired_difference(a, few, K, lambda: None, resamples=50)
    assert result.images == 5
    assert result.value == pytest.approx(paired_difference(a.taken(few.names), few, K, lambda: None, 50).value)
    assert paired_difference(a, image_areas([]), K, lambda: None) is None
