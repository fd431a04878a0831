"""Numbers of the prediction that lie on other numbers of the truth."""

import numpy as np
import pytest

from wsss_cli.scoring.counts import Counts
from wsss_cli.scoring.renumbered import renumbered

TRUTH = np.repeat(np.uint8([0, 1, 2, 3]), 30)[None]


def said(truth, table, names=None):
    counts = Counts(5)
    counts.add(np.uint8(table)[truth], truth)
    return renumbered(counts.scores(names))


@pytest.mark.parametrize("table", [[0, 1, 2, 3], [0, 0, 0, 0], [4, 4, 4, 4], [0, 1, 2, 4]])
def test_what_lies_on_its_own_number_or_on_one_other_alone_is_not_asked_about(table):
    assert said(TRUTH, table) == ""


def test_a_shift_by_one_is_told_from_another_order():
    assert said(TRUTH, [1, 2, 3, 4]).endswith("numbered from 1 in the prediction, the background too (it is 0)?")
    assert said(TRUTH + 1, [0, 0, 1, 2, 3]).endswith("numbered from 1 in the truth, the background too (it is 0)?")
    names = ["background", "cat", "dog", "bird", "bee"]
    assert said(TRUTH, [0, 1, 3, 2], names) == (
        "warning: the prediction has 3 where the truth has 2 (dog), 2 where the truth has 3 (bird): "
        "are classes numbered in another order?"
    )


def test_a_background_of_255_is_named():
    assert "--undecided background" in said(TRUTH, [255, 1, 2, 3])
