import numpy as np
import pytest
import torch
from torch import nn

from wsss_cli.config.base import SgdConfig, TrainingConfig
from wsss_cli.config.load import load_preset
from wsss_cli.data.dataset import Sample
from wsss_cli.engine.context import Context, Silent
from wsss_cli.engine.fit import Task
from wsss_cli.engine.records import Inputs
from wsss_cli.engine.rundir import open_run, read_metrics
from wsss_cli.errors import DataError
from wsss_cli.stages.training import train_network


class Mean(Task):
    def __init__(self):
        self.model = nn.Linear(1, 1, bias=False)
        self.steps = []

    def losses(self, batch):
        assert set(batch) == {"image", "step", "draw"}
        self.steps.append(batch["step"])
        return {"square": self.model(batch["image"]).square().mean()}


class Talk(Silent):
    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


def make(sample, rng):
    if sample.id == "b":
        raise DataError("b is torn")
    return {"image": rng.random(1).astype(np.float32)}


@pytest.fixture
def train(tmp_path):
    def run(iters):
        ui, task = Talk(), Mean()
        samples = [Sample(name, tmp_path / name, None, (1,)) for name in "abc"]
        config = TrainingConfig(
            iters=iters, batch=2, optim=SgdConfig(lr=0.1), precision="fp32", data_workers=0, log_interval=2
        )
        inputs = Inputs(dataset="d", classes=(), colors=())
        ctx = Context(torch.device("cpu"), tmp_path, ui)
        with open_run(tmp_path / "run", "train", load_preset("toy"), "x", inputs) as run:
            train_network(task, config, samples, make, run, ctx, seed=0, title="mean")
            return task, ui.lines, list(run.lost)

    return run


def test_what_cannot_be_read_is_named_once_and_known_after_a_resume(train, tmp_path):
    task, lines, lost = train(6)  # four epochs
    assert task.steps == [0, 1, 2, 3, 4, 5]
    assert [line for line in lines if "lost" in line] == ["lost b: b is torn"]
    assert [(entry["id"], entry["reason"]) for entry in lost] == [("b", "b is torn")]
    task, lines, lost = train(9)
    assert task.steps == [6, 7, 8]
    assert not [line for line in lines if "lost" in line] and len(lost) == 1
    assert [row["step"] for row in read_metrics(tmp_path / "run")] == [2, 4, 6, 8, 9]
