import json
from pathlib import Path

import numpy as np

from wsss_cli.cli import console


def test_json_takes_paths_and_numpy_and_makes_null_of_what_is_not_finite(capsys):
    console.result_json({"path": Path("a/b"), 3: (np.int64(2), np.float32("nan"), float("inf")), "name": "\udcff"})
    assert json.loads(capsys.readouterr().out) == {"path": "a/b", "3": [2, None, None], "name": "\udcff"}


def test_progress_off_a_terminal_is_a_first_and_a_last_line(capsys):
    with console.progress(3, "cams [b]of[/b] cats") as bar:
        for _ in range(3):
            bar.advance(1, miou=5)
    assert capsys.readouterr().err.splitlines() == [
        "cams [b]of[/b] cats  0/3",
        "cams [b]of[/b] cats  3/3  0 s, 0 s left  miou 5",
    ]


def test_training_off_a_terminal_shows_a_line_every_ten_seconds_and_every_validation(capsys, monkeypatch):
    clock = iter(range(0, 1000, 4))  # four seconds between two events
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock))
    train = {"kind": "train", "loss": 0.5, "lr": 0.01, "img_s": 20.0, "data_wait": 0.25, "eta_s": 9.0}
    with console.training_progress("train", 70) as show:
        for step in range(10, 80, 10):
            show({**train, "step": step})
        show({"kind": "val", "step": 70, "miou": 61.234})
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in lines] == ["10/70", "40/70", "70/70", "val"]
    assert lines[0] == "train  10/70  loss 0.5000, lr 1.00e-02, 20.0 img/s, data wait 25 %, 9 s left"
    assert lines[-1] == "train  val at 70: mIoU 61.23"
