"""Scores of folders as `wsss eval` shows them: by function calls, on masks of a few pixels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer

from wsss_cli.cli import eval as command
from wsss_cli.data.masks import write_mask
from wsss_cli.errors import DataError
from wsss_cli.labels import voc_palette

OBJECT = [[0, 1, 1, 0]]


def _save(folder: Path, **masks: list[list[int]]) -> Path:
    for name, mask in masks.items():
        write_mask(folder / f"{name}.png", np.array(mask, np.uint8), voc_palette(3))
    return folder


def _eval(pred: Path, truth: Path, gate: float | None = None, as_json: bool = False) -> None:
    command.evaluate(
        None,
        pred=pred,
        truth=truth,
        num_classes=2,
        metrics="iou",
        split="",
        data="",
        confusion=None,
        min_miou=gate,
        undecided="as-is",
        json_output=as_json,
    )


def test_predictions_without_a_true_mask_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = _save(tmp_path / "truth", a=OBJECT)
    _eval(_save(tmp_path / "pred", a=OBJECT, b=OBJECT, c=OBJECT), truth)
    assert "predictions without a true mask, not scored: 2\n" in capsys.readouterr().out
    _eval(_save(tmp_path / "same", a=OBJECT), truth)
    assert "without a true mask" not in capsys.readouterr().out


def test_one_class_of_two_passes_no_gate_and_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pred = _save(tmp_path / "pred", a=OBJECT)
    alone = _save(tmp_path / "alone", a=[[1, 255, 255, 1]])
    with pytest.raises(typer.Exit) as ended:
        _eval(_save(tmp_path / "ones", a=[[1, 1, 1, 1]]), alone, gate=10.0)
    shown = capsys.readouterr()
    assert ended.value.exit_code == 4
    assert "error: --min-miou: the truth holds 1 of 2 classes" in shown.err
    assert "unscored (255 in the truth): 50.00 %\nnever in the truth: 0\n" in shown.out
    _eval(pred, _save(tmp_path / "truth", a=OBJECT), gate=99.0, as_json=True)
    scores = json.loads(capsys.readouterr().out)
    assert (scores["passed"], scores["miou"], scores["unscored_share"]) == (True, 100.0, 0.0)


def test_predictions_of_0_and_255_are_asked_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth, asked = _save(tmp_path / "truth", a=OBJECT), "predicted are 0 and 255 alone: are objects 255?\n"
    _eval(_save(tmp_path / "wrong", a=[[255 if value else 0 for value in row] for row in OBJECT]), truth)
    assert asked in capsys.readouterr().out
    _eval(_save(tmp_path / "right", a=[[1, 255, 0, 0], *OBJECT[1:]]), truth)
    assert asked not in capsys.readouterr().out


def test_a_value_that_is_no_class_is_an_error_with_the_file(tmp_path: Path) -> None:
    pred, truth = _save(tmp_path / "pred", a=[[7, 7]]), _save(tmp_path / "truth", a=[[7, 7]])
    with pytest.raises(DataError, match=r"pred/a\.png holds the value 7; 2 classes are 0\.\.1"):
        _eval(pred, truth)


def test_truths_without_a_cam_are_counted_and_floats_are_scores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = _save(tmp_path / "truth", a=OBJECT, b=OBJECT)
    (tmp_path / "cams").mkdir()
    cam = 0.9 * np.array([OBJECT], np.float32)
    np.savez(tmp_path / "cams" / "a.npz", cam=cam, classes=np.array([1]), size=np.array([1, 4]))
    for copy in (truth / "._a.png", tmp_path / "cams" / "._a.npz"):  # as macOS leaves them
        copy.write_bytes(b"\0\5\x16\7")
    _eval(tmp_path / "cams", truth)
    shown = capsys.readouterr().out
    assert "1 of 2 true masks have no CAM" in shown
    assert [line.split()[:2] for line in shown.splitlines() if line.strip().startswith(("0.85", "0.90"))] == [
        ["0.85", "100.00"],
        ["0.90", "25.00"],
    ]


def test_a_folder_of_masks_and_cams_of_the_same_photographs_is_refused(tmp_path: Path) -> None:
    truth, both = _save(tmp_path / "truth", a=OBJECT), _save(tmp_path / "both", a=OBJECT)
    cam = np.array([OBJECT], np.float32)
    np.savez(both / "a.npz", cam=cam, classes=np.array([1]), size=np.array([1, 4]))
    with pytest.raises(DataError, match=r"both masks \(\.png\) and CAMs \(\.npz\), the first a\.npz"):
        _eval(both, truth)
