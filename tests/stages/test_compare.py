"""Runs beside each other: differences, curves, and the commands that show them."""

import json
import shutil

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from wsss_cli.cli.app import app
from wsss_cli.errors import UsageError
from wsss_cli.report.charts import Line
from wsss_cli.report.plots import LEFT, RIGHT, TOP, line_color, line_plot
from wsss_cli.stages.compare import gaps, tell_all


def invoke(home, *arguments):
    result = CliRunner().invoke(app, ["runs", *arguments, "--runs", str(home / "runs")])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_two_runs_are_compared_by_name(home):
    shown = invoke(home, "compare", "train-toy-3", "train-toy-4")
    assert "Scores, per cent" in shown and "less train-toy-3" in shown
    assert "settings, train-toy-3 -> train-toy-4:\n  seed: 3 -> 4" in shown
    told = json.loads(invoke(home, "compare", "train-toy-3", "train-toy-4", "--json"))
    (gap,) = told["differences"]
    scores = told["runs"]
    difference = scores["train-toy-4"]["single"] - scores["train-toy-3"]["single"]
    assert gap["value"] == pytest.approx(difference, abs=0.02) and gap["low"] < gap["value"] < gap["high"]
    assert gap["images"] == 4 and told["settings"] == {"train-toy-4": ["seed: 3 -> 4"]}


def test_a_run_without_scores_by_image_says_so(home, tmp_path):
    told = tell_all([home / "runs/pseudo-toy-2", home / "runs/pseudo-toy-2"])
    assert [gap.why for gap in gaps(told, lambda: None)] == ["not scored image by image yet: run wsss eval on both"]


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_damaged_scores_are_named_and_end_with_3(home, tmp_path, form):
    runs = tmp_path / "runs"
    shutil.copytree(home / "runs", runs)
    (runs / "train-toy-4/eval.json").write_text("{")
    arguments = ["runs", "compare", "train-toy-3", "train-toy-4", "--runs", str(runs), *form]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 3 and "scores are left out" in result.stderr
    assert (
        f"{runs}/train-toy-4/eval.json" in result.stderr and "the eval.json of train-toy-4 is damaged" in result.stdout
    )
    out = tmp_path / "x.html"
    result = CliRunner().invoke(
        app, ["report", str(runs / "train-toy-4"), "--photographs", "0", "--out", str(out), *form]
    )
    assert result.exit_code == 3 and "scores are left out" in result.stderr
    assert "eval.json is not valid JSON" in out.read_text() and "No scores" not in out.read_text()


@pytest.mark.parametrize("names", [["train-toy-3"], ["train-toy-3", "train-toy-3"]])
def test_one_run_is_compared_with_nothing(home, names):
    with pytest.raises(UsageError, match="two runs"):
        invoke(home, "compare", *names)


def test_curves_of_runs_are_one_picture(home, tmp_path):
    invoke(home, "plot", "train-toy-3", "train-toy-4", "--out", str(tmp_path / "c.png"))
    picture = cv2.imread(str(tmp_path / "c.png"))[..., ::-1]
    assert picture.shape[1] == 900 and picture.shape[0] > 2 * 360
    for number in (0, 1):
        assert (picture == line_color(number)).all(2).sum() > 100


def test_times_of_iterations_are_told(home, tmp_path):
    """Batches of 8 images: 4, 8 and 2 images a second are 2, 1 and 4 seconds."""
    shutil.copytree(home / "runs/train-toy-3", tmp_path / "runs/train-toy-9")
    lock = tmp_path / "runs/train-toy-9/preset.lock.toml"
    (batch,) = {line for line in lock.read_text().partition("[train]")[2].splitlines() if line.startswith("batch = ")}
    front, _, train = lock.read_text().partition("[train]")
    lock.write_text(f"{front}[train]{train.replace(batch, 'batch = 8', 1)}")
    rows = [
        {"kind": "train", "step": 10 * number, "loss": 1.0, "lr": 0.1, "img_s": pace, "data_wait": wait}
        for number, pace, wait in ((1, 4.0, 0.0), (2, 8.0, 0.3), (3, 2.0, 0.3))
    ]
    (tmp_path / "runs/train-toy-9/metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    words = ["plot", "train-toy-9", "--out", str(tmp_path / "c.png")]
    shown = invoke(tmp_path, *words)
    spread = np.std([2, 1, 4])
    line = f"train-toy-9: 2.333 s an iteration (s.d. {spread:.3f} of 3 log lines, the slowest at 30), 20% of it waiting"
    assert line in shown
    (pace,) = json.loads(invoke(tmp_path, *words, "--json"))["time"]
    assert pace["seconds"] == pytest.approx(7 / 3) and pace["deviation"] == pytest.approx(spread)
    assert cv2.imread(str(tmp_path / "c.png")).shape[0] > 2 * 360  # losses and learning rates


def test_what_logged_nothing_has_no_curve(home, tmp_path):
    with pytest.raises(UsageError, match="no finite number was logged by pseudo-toy-2"):
        invoke(home, "plot", "pseudo-toy-2", "--out", str(tmp_path / "c.png"))
    assert not (tmp_path / "c.png").exists()


def test_a_log_of_nan_alone_has_no_curve(home, tmp_path):
    shutil.copytree(home / "runs/train-toy-3", tmp_path / "runs/train-toy-9")
    row = {"kind": "train", "step": 1, "loss": float("nan"), "lr": float("nan"), "img_s": 1.0, "data_wait": 0.0}
    (tmp_path / "runs/train-toy-9/metrics.jsonl").write_text(f"{json.dumps(row)}\n")
    with pytest.raises(UsageError, match="no finite number was logged by train-toy-9"):
        invoke(tmp_path, "plot", "train-toy-9", "--out", str(tmp_path / "c.png"))


def test_a_line_goes_through_its_points():
    picture = line_plot([Line("a", [0, 5, 10], [0.0, 10.0, None])], "t", "x", 600, 300)
    blue = (picture == line_color(0)).all(2)
    rows, columns = np.nonzero(blue[:300])
    assert columns.min() <= LEFT + 2 and rows.min() <= TOP + 2
    middle = LEFT + (600 - LEFT - RIGHT) // 2
    assert columns.max() > middle - 3 or columns.max() == 600 - RIGHT  # 5 is the last x with a value
    with pytest.raises(ValueError, match="nothing"):
        line_plot([Line("a", [1.0], [float("nan")])], "t", "x")


def test_a_second_line_is_dashed_and_a_single_point_is_a_dot():
    flat = [Line("a", [0, 100], [1.0, 1.0]), Line("b", [0, 100], [0.5, 0.5]), Line("c", [50], [0.25])]
    picture = line_plot(flat, "t", "x", 600, 300)[:300]
    lengths = [(picture == line_color(number)).all(2).any(axis=0).sum() for number in range(3)]
    assert lengths[0] > 490 and 200 < lengths[1] < 420 and 4 < lengths[2] < 12
