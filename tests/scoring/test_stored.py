"""Scores of a run that were edited or are damaged are refused with what is wrong, by all that show or use them."""

import json

import pytest

from wsss_cli.errors import DataError
from wsss_cli.scoring.stored import read_measured, read_scores, read_scores_in

PART = {"classes": ["background", "cat"], "iou": [0.5, None], "miou": 50.0, "aacc": 90.0}
CURVE = {"thresholds": [0.1, 0.2], "miou": [1.0, None], "fp": [1, 2], "fn": [1, 2], "best_threshold": 0.1, "best": PART}
WRONG = [
    ([], "no JSON object"),
    (None, "no JSON object"),
    ({"protocol": 5}, "protocol"),
    ({"lost": 3}, "lost"),
    ({"lost": [{"id": "a"}]}, "lost"),
    ({"single": None}, "single: it is no JSON object"),
    ({"single": {**PART, "miou": "high"}}, "single: miou is no number"),
    ({"single": {**PART, "iou": [0.5]}}, "single: iou is no list of a number for each class"),
    ({"single": {"miou": 50.0}}, "single: classes is missing"),
    ({"background": {}}, "background: classes is missing"),
    ({**CURVE, "best_threshold": None}, "best_threshold is no number"),
    ({**CURVE, "best_threshold": "0.1"}, "best_threshold is no number"),
    ({**CURVE, "miou": []}, "as many numbers"),
    ({"best_threshold": 0.1}, "no scores"),
    ({}, "no scores"),
    ({key: value for key, value in CURVE.items() if key != "best"}, "best is missing"),
    ({"background": PART, "protocol": []}, "drop or protocol is missing"),
]


@pytest.mark.parametrize(("stored", "said"), WRONG)
def test_scores_that_were_edited_are_refused(tmp_path, stored, said):
    (tmp_path / "eval.json").write_text(json.dumps(stored))
    with pytest.raises(DataError, match=f"eval.json was edited, or is damaged: .*{said}") as refused:
        read_scores(tmp_path, whole=True)
    assert refused.value.hint.startswith("remove it and the run.json beside it")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "eval.json").rename(tmp_path / "eval-val 2.json")
    with pytest.raises(DataError) as refused:
        read_scores_in(tmp_path / "eval-val 2.json", whole=True)
    assert refused.value.hint == f"remove it, and score again: wsss eval {tmp_path} --ms-flip --split 'val 2'"


def test_scores_as_they_are_written_are_taken(tmp_path):
    assert read_scores(tmp_path) == {}
    stored = {"single": PART, "drop": PART, "protocol": ["a"], "lost": [{"id": "a", "reason": "b"}], **CURVE}
    (tmp_path / "eval.json").write_text(json.dumps(stored))
    assert read_scores(tmp_path) == stored


@pytest.mark.parametrize("text", ["[]", '{"fps": "x"}', "{"])
def test_measurements_that_were_edited_are_refused(tmp_path, text):
    assert read_measured(tmp_path / "bench.json", "fps") == {}
    (tmp_path / "bench.json").write_text(text)
    with pytest.raises(DataError, match=r"bench\.json"):
        read_measured(tmp_path / "bench.json", "fps")
