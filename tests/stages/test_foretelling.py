"""How long all steps take, said once after a few iterations."""

from pathlib import Path

import pytest

from wsss_cli.config.load import load_preset
from wsss_cli.data.dataset import Dataset, open_dataset, write_dataset
from wsss_cli.data.splits import Sample
from wsss_cli.engine.context import Silent
from wsss_cli.stages.estimate import Took
from wsss_cli.stages.foretelling import FORWARD, SEGMENTOR, Foretelling, guess
from wsss_cli.stages.plan import Experiment, Step


class Said(Silent):
    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


@pytest.fixture
def exp(tmp_path):
    samples = [Sample(f"{n}", tmp_path / f"{n}.jpg", tmp_path / f"{n}.png", (1,), (100, 200)) for n in range(8)]
    settings = ["classifier.iters=100", "train.iters=400", "train.batch=8", "train.crop=64", "classifier.crop=64"]
    settings += ["cam.scales=[1.0, 2.0]", "cam.flip=true", "eval.scales=[1.0]"]
    write_dataset(
        tmp_path / "data",
        name="d",
        classes=("background", "cat"),
        colors=((0, 0, 0), (1, 1, 1)),
        splits={"train": samples, "val": samples[:4]},
        source="test",
        protocol=(),
        findings=(),
    )
    return Experiment(load_preset("toy", settings), open_dataset(tmp_path / "data"), tmp_path / "runs")


def steps(*stages):
    return [Step(stage, Path(stage), "") for stage in stages]


def test_a_guess_follows_from_the_pixels_that_are_seen(exp):
    pace = 10_000.0
    assert guess(exp, *steps("train"), pace, "cpu") == 400 * 8 * 64**2 * SEGMENTOR / pace
    assert guess(exp, *steps("cam"), pace, "cpu") == pytest.approx(8 * 20_000 * FORWARD / pace * 5 * 2)
    assert guess(exp, *steps("eval"), pace, "cpu") == pytest.approx(4 * 20_000 * FORWARD / pace * SEGMENTOR * 3)
    assert 0 < guess(exp, *steps("pseudo"), pace, "cpu") < 1
    nowhere = Experiment(exp.preset, Dataset(exp.runs, "", (), (), (), {}, ""), exp.runs)
    assert guess(nowhere, *steps("cam"), pace, "cpu") == 0


def test_it_is_said_once_after_a_few_iterations_of_the_first_training(exp):
    ui = Said()
    foretelling = Foretelling(ui, exp, steps("classifier", "train"), "cpu")
    with foretelling.training_progress("classifier", 100) as show:
        for step in range(41, 60):  # resumed
            show({"kind": "now", "step": step, "img_s": 2.0, "eta_s": 600.0})
            show({"kind": "val", "step": step})
            assert len(ui.lines) == (step >= 46)
    seconds = 600 + 400 * 8 * SEGMENTOR / 2.0
    assert ui.lines == [
        f"about {seconds // 3600:.0f} h {round(seconds / 60) % 60:02d} min left for all 2 steps"
        "; a rough guess, as no earlier run of train tells"
    ]


def test_the_pace_of_earlier_runs_goes_before_a_guess(exp, monkeypatch):
    ui = Said()
    foretelling = Foretelling(ui, exp, steps("classifier", "cam", "eval"), "cpu")
    foretelling.known[1] = Took(120.0, Path("runs/cam-x"), "CPU")
    foretelling.known[2] = Took(60.0, Path("runs/eval-x"), "CPU")
    assert foretelling.foretell(2.0, 60.0) == "about 4 min left for all 3 steps"


def test_of_one_step_its_own_progress_says_enough(exp):
    ui = Said()
    foretelling = Foretelling(ui, exp, steps("train"), "cpu")
    with foretelling.training_progress("train", 100) as show:
        for step in range(1, 60):
            show({"kind": "train", "step": step, "img_s": 2.0, "eta_s": 600.0})
    assert ui.lines == []
