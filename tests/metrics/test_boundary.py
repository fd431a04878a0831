import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsss_cli.metrics.boundary import Boundary


def square(left):
    mask = np.zeros((10, 10), np.uint8)
    mask[3:7, left : left + 4] = 1
    return mask


def test_a_shifted_square_shares_half_of_two_sides():
    counts = Boundary(2)  # 2 % of a diagonal of 14 px: one pixel
    counts.add(square(4), square(3))
    # rings of 12 pixels; in the top and bottom rows 3 of 4 columns are shared, elsewhere none
    assert (counts.intersect[1], counts.union[1]) == (6, 18)
    assert counts.iou()[1] == pytest.approx(1 / 3)


def test_the_same_mask_is_1_and_a_class_that_is_nowhere_is_undefined():
    counts = Boundary(3)
    counts.add(square(3), square(3))
    assert counts.iou()[:2].tolist() == [1.0, 1.0]
    assert np.isnan(counts.iou()[2])


def test_what_void_hides_is_not_scored():
    truth = square(3)
    truth[:, 7:] = 255
    counts, hidden = Boundary(2), square(3)
    hidden[:, 7:] = 1
    counts.add(hidden, truth)
    assert counts.iou()[1] == 1.0


def test_images_add_up():
    both, one, other = Boundary(2), Boundary(2), Boundary(2)
    for counts, left in ((one, 4), (other, 5)):
        counts.add(square(left), square(3))
        both.add(square(left), square(3))
    one.merge(other)
    assert np.array_equal(one.intersect, both.intersect)
    assert np.array_equal(one.union, both.union)


def slow(labels, index, width):
    """Pixels of a class with another class or the outside of the image at most `width` steps away."""
    height, side = labels.shape
    found = set()
    for y in range(height):
        for x in range(side):
            near = [(y + dy, x + dx) for dy in range(-width, width + 1) for dx in range(-width, width + 1)]
            inside = all(0 <= v < height and 0 <= u < side and labels[v, u] == index for v, u in near)
            if labels[y, x] == index and not inside:
                found.add((y, x))
    return found


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.02, 0.2]))
def test_agrees_with_a_slow_count(seed, ratio):
    draw = np.random.default_rng(seed)
    blocks = [draw.integers(0, 3, (3, 4)) for _ in range(2)]
    pred, truth = (np.kron(block, np.ones((4, 3))).astype(np.uint8) for block in blocks)
    truth[draw.random(truth.shape) < 0.05] = 255
    counts = Boundary(3, ratio)
    counts.add(pred, truth)
    width = max(1, round(ratio * np.hypot(12, 12)))
    pred[truth == 255] = 255
    for index in range(3):
        near = slow(pred, index, width), slow(truth, index, width)
        assert counts.intersect[index] == len(near[0] & near[1])
        assert counts.union[index] == len(near[0] | near[1])
