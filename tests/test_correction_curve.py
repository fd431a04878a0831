"""What corrected masks are worth (`benchmarks/correction_curve.py`), by hand on three photographs of 10 pixels."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks/correction_curve.py"
SPEC = importlib.util.spec_from_file_location("correction_curve", SCRIPT)
curves = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(curves)

TRUTH = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 255], np.uint8)
MASKS = [TRUTH.copy(), np.zeros(10, np.uint8), np.array([0, 0, 0, 0, 1, 1, 1, 255, 255, 0], np.uint8)]
COUNTS = np.stack([curves.counted(TRUTH, mask, 2) for mask in MASKS])


def test_pixels_are_counted_by_class_and_255_of_a_mask_is_background():
    assert COUNTS[0].tolist() == [[5, 0], [0, 4]]
    assert COUNTS[1].tolist() == [[5, 0], [4, 0]]
    assert COUNTS[2].tolist() == [[4, 1], [2, 2]]


def test_the_curve_has_the_miou_with_the_first_ones_corrected():
    # background 14 of 21, class 1 6 of 13; without the second's mistakes 14 of 17 and 10 of 13; then all are right
    expected = [100 * (14 / 21 + 6 / 13) / 2, 100 * (14 / 17 + 10 / 13) / 2, 100.0]
    assert curves.curve(COUNTS, [1, 2, 0], [0, 1, 3]) == pytest.approx(expected)


def test_needed_is_the_first_count_that_reaches_a_goal():
    assert curves.needed(COUNTS, [1, 2, 0], 79.0) == 1
    assert curves.needed(COUNTS, [0, 1, 2], 79.0) == 2
    assert curves.needed(COUNTS, [0, 1, 2], 0.0) == 0
