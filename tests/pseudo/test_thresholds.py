"""Thresholds from scores alone: by hand, against the definition, and on stored CAMs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from references.thresholds import histogram_by_pixel, otsu_by_fractions

from wsss_cli.cam.store import write_cam
from wsss_cli.errors import DataError
from wsss_cli.pseudo.thresholds import LOWEST, class_factors, otsu, score_histogram


def histogram(**counts):
    """Counts by level, e.g. `at51=3`."""
    made = np.zeros(256, np.int64)
    for name, count in counts.items():
        made[int(name.removeprefix("at"))] = count
    return made


def test_two_spikes_are_parted_in_the_middle():
    # every level from 51 to 203 parts them equally well
    assert otsu(histogram(at51=3, at204=1)) == pytest.approx((51 + 203) / 2 / 255)
    assert otsu(histogram(at0=1, at255=1)) == pytest.approx(127 / 255)


def test_three_spikes_by_hand():
    # 0 | 100, 200: between-class variance 1/2 * 1/2 * 150^2 = 5625; 0, 100 | 200: 3/4 * 1/4 * (200 - 100/3)^2 = 5208
    assert otsu(histogram(at0=2, at100=1, at200=1)) == pytest.approx(49.5 / 255)
    # 0 | 100, 250: 1/9 * 8/9 * 175^2 = 3025; 0, 100 | 250: 5/9 * 4/9 * 170^2 = 7136
    assert otsu(histogram(at0=1, at100=4, at250=4)) == pytest.approx(174.5 / 255)


def test_without_two_scores_there_is_no_threshold():
    assert otsu(histogram()) is None
    assert otsu(histogram(at77=1000)) is None


@pytest.mark.parametrize("spread", [1, 12, 60])
def test_it_is_that_of_whole_numbers(spread):
    rng = np.random.default_rng(spread)
    levels = np.concatenate([rng.normal(60, spread, 300), rng.normal(170, spread, 200)]).clip(0, 255).astype(int)
    counts = np.bincount(levels, minlength=256)
    assert otsu(counts) == pytest.approx(otsu_by_fractions(counts), abs=1e-12)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 255), st.integers(1, 10**6)), min_size=2, max_size=12))
def test_it_has_the_least_variance_within(pairs):
    made = np.zeros(256, np.int64)
    for level, count in pairs:
        made[level] += count
    score = np.arange(256) / 255

    def within(cut):
        total = 0.0
        for part in (slice(0, cut + 1), slice(cut + 1, 256)):
            count = made[part].astype(float)
            if count.sum():
                mean = (count * score[part]).sum() / count.sum()
                total += (count * (score[part] - mean) ** 2).sum()
        return total / made.sum()

    found = otsu(made)
    if (made > 0).sum() < 2:
        assert found is None
        return
    assert within(int(found * 255)) == pytest.approx(min(within(cut) for cut in range(255)), rel=1e-6, abs=1e-12)


def test_the_histogram_counts_the_best_class_and_its_score(tmp_path):
    write_cam(tmp_path / "a.npz", np.array([[[0.2, 1.0]], [[0.4, 0.6]]]), (1, 3), (1, 2))
    write_cam(tmp_path / "b.npz", np.array([[[0.4]]]), (3,), (1, 1))
    write_cam(tmp_path / "c.npz", np.zeros((0, 2, 2)), (), (2, 2))
    counts = score_histogram([tmp_path / f"{name}.npz" for name in "abc"], 4)
    assert counts.shape == (4, 256)
    assert {(int(c), int(v)): int(counts[c, v]) for c, v in np.argwhere(counts)} == {(1, 255): 1, (3, 102): 2}
    images = [
        (np.array([[[51, 255]], [[102, 153]]]), (1, 3)),
        (np.array([[[102]]]), (3,)),
        (np.zeros((0, 2, 2), int), ()),
    ]
    np.testing.assert_array_equal(counts, histogram_by_pixel(images, 4))
    with pytest.raises(DataError, match=r"a\.npz has a CAM of a class that is not in 1\.\.2"):
        score_histogram([tmp_path / "a.npz"], 3)


@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.floats(0, 1))
def test_a_scaled_score_passes_the_common_threshold_where_it_passed_its_own(best, own, score):
    (factor,) = class_factors(best, (own,))
    if abs(score - own) > 1e-9:
        assert (score * factor > best) == (score > own)


def test_factors_by_hand():
    assert class_factors(0.4, (0.2, None, 0.8)) == pytest.approx((2.0, 1.0, 0.5))
    assert class_factors(0.0, (0.0, None)) == (1.0, 1.0)
    assert class_factors(0.5, (0.0,)) == pytest.approx((0.5 / LOWEST,))
