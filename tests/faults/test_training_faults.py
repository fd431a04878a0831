"""However a training with data workers ends, they end with it, and the run says how."""

import json
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from wsss_cli.config.base import SgdConfig, TrainingConfig
from wsss_cli.config.load import load_preset
from wsss_cli.data.dataset import Sample
from wsss_cli.engine.context import Context
from wsss_cli.engine.fit import Task
from wsss_cli.engine.pointers import find_checkpoint
from wsss_cli.engine.records import Inputs
from wsss_cli.engine.rundir import open_run
from wsss_cli.errors import DataError, DivergedError, Preempted, ResourceError
from wsss_cli.stages.training import train_network

SAMPLES = [Sample(f"s{index}", Path(f"s{index}.jpg"), None, ()) for index in range(5)]
INPUTS = Inputs(dataset="d", classes=(), colors=())


def make(sample, rng):
    return {"image": rng.random(4, np.float32)}


class Mean(Task):
    def __init__(self):
        torch.set_num_threads(1)
        self.model = nn.Linear(4, 1)

    def losses(self, batch):
        return {"square": self.model(batch["image"]).square().mean()}


@pytest.fixture
def train(tmp_path):
    def train(task, make=make, act=lambda ctx, step: None, iters=20):
        ctx = Context(torch.device("cpu"), tmp_path)
        after = task.after_step
        task.after_step = lambda step: (act(ctx, step), after(step))
        config = TrainingConfig(
            iters=iters, batch=2, data_workers=2, optim=SgdConfig(lr=0.1), precision="fp32", log_interval=1
        )
        try:
            with open_run(tmp_path / "run", "train", load_preset("toy"), "x", INPUTS) as run, ctx.stop.listening():
                train_network(task, config, SAMPLES, make, run, ctx, seed=1, title="title")
                run.finish()
        finally:
            assert multiprocessing.active_children() == []
            assert ctx.stop.signal == 0 or find_checkpoint(tmp_path / "run" / "checkpoints")

    return train


def state(tmp_path):
    return json.loads((tmp_path / "run" / "run.json").read_text())["state"]


def test_a_whole_training(train, tmp_path):
    train(Mean())
    assert state(tmp_path) == "done"


def test_an_error_in_a_validation(train, tmp_path):
    task = Mean()
    task.val_interval = 3

    def fail():
        raise DataError("masks/a.png is gone")

    task.evaluate = fail
    with pytest.raises(DataError, match=r"a\.png is gone"):
        train(task)
    assert state(tmp_path) == "failed"


def test_a_loss_that_diverges(train, tmp_path):
    task = Mean()
    task.losses = lambda batch: {"nan": task.model(batch["image"]).sum() * float("nan")}
    with pytest.raises(DivergedError):
        train(task)
    assert state(tmp_path) == "failed"


def test_photographs_that_are_gone_half_way(train, tmp_path):
    def until_moved(sample, rng):
        if (tmp_path / "moved").exists():
            raise DataError(f"cannot read {sample.image}: No such file or directory")
        return make(sample, rng)

    with pytest.raises(DataError, match=r"5 training images in a row cannot be read, first: s\d: cannot read s\d\.jpg"):
        train(Mean(), until_moved, lambda ctx, step: step == 2 and (tmp_path / "moved").touch(), iters=1000)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_while_workers_are_slow(train, tmp_path, number):
    """The wait for a batch hears it, and saves the step that is trained."""
    parent = os.getpid()

    def slow_then_stuck(sample, rng):
        if os.getpid() != parent and (tmp_path / "stuck").exists():
            time.sleep(300)
        return make(sample, rng)

    def act(ctx, step):
        if step == 3:
            (tmp_path / "stuck").touch()
            threading.Timer(1.0, os.kill, (parent, number)).start()  # when all that was made ahead is used up

    begin = time.monotonic()
    with pytest.raises(Preempted, match=f"stopped by {number.name}"):
        train(Mean(), slow_then_stuck, act, iters=1000)
    assert time.monotonic() - begin < 20
    assert state(tmp_path) == "preempted"
    assert 3 <= int(find_checkpoint(tmp_path / "run" / "checkpoints").name[5:]) < 1000


def test_a_worker_that_is_killed_keeps_what_is_trained(train, tmp_path):
    def act(ctx, step):
        if step == 3:
            for process in multiprocessing.active_children():
                process.kill()

    with pytest.raises(ResourceError, match="a data worker ended by SIGKILL, probably for lack of memory"):
        train(Mean(), act=act, iters=1000)
    assert find_checkpoint(tmp_path / "run" / "checkpoints").name >= "step-00000003"
    assert state(tmp_path) == "failed"
