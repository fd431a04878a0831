"""Whether scores look as though prediction and truth number their classes in different ways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

ONE = 0.5  # IoU above which no number of one side lies so well on two of the other (Kirillov et al., CVPR 2019)


def renumbered(scores: Mapping[str, Any]) -> str:
    """A warning where numbers of the prediction lie on other numbers of the truth; empty where none do.

    Args:
        scores: with `confusion`, [K+1][K+1], rows truth, the last column what is outside the classes; `classes`.
    """
    matrix, names = np.array(scores["confusion"], np.float64), scores["classes"]
    count = len(names)
    union = matrix.sum(1)[:, None] + matrix.sum(0) - matrix
    lies = np.divide(matrix, union, out=np.zeros_like(matrix), where=union > 0) > ONE
    pairs = [(int(truth), int(pred)) for truth, pred in np.argwhere(lies[:count]) if truth != pred]
    if pairs and pairs[0] == (0, count):
        return (
            "warning: predicted 255 lies where the truth is 0 (background) and counts as no class: "
            "--undecided background takes it for background"
        )
    pairs = [pair for pair in pairs if pair[1] < count]
    if len(pairs) < 2:
        return ""
    listed = ", ".join(f"{pred} where the truth has {_named(truth, names)}" for truth, pred in pairs[:5])
    more = f", and {len(pairs) - 5} more" if len(pairs) > 5 else ""
    shifts = {truth - pred for truth, pred in pairs}
    why = "numbered in another order"
    if shifts in ({1}, {-1}):
        why = f"numbered from 1 in the {'truth' if shifts == {1} else 'prediction'}, the background too (it is 0)"
    return f"warning: the prediction has {listed}{more}: are classes {why}?"


def _named(number: int, names: list[str]) -> str:
    return f"{number}" if names[number] == f"{number}" else f"{number} ({names[number]})"
