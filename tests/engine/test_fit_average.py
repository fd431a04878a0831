"""What a training may have besides: an average of its weights, an early end, a rate that follows the batch."""

import numpy as np
import pytest
import torch
from test_fit import SGD, Line, batches, rows

from wsss_cli.config.base import TrainingConfig
from wsss_cli.config.load import load_preset
from wsss_cli.engine.checkpoint import AVERAGE, load_weights
from wsss_cli.engine.context import Context, Silent
from wsss_cli.engine.fit import fit
from wsss_cli.engine.pointers import find_checkpoint
from wsss_cli.engine.records import Inputs, read_record
from wsss_cli.engine.rundir import open_run
from wsss_cli.errors import Preempted
from wsss_cli.models.average import Average


class Averaged(Line):
    """Each step's weights are noted, for the average to be computed from them."""

    def __init__(self):
        super().__init__()
        self.averaging, self.seen = Average(self.model, 0.8), [self.weights()]

    def weights(self):
        return self.model[1].weight.detach().clone()

    def after_step(self, step):
        self.averaging.follow(self.model, step)
        self.seen.append(self.weights())

    def average(self):
        return self.averaging.model


def train(path, task, *, stop_at=None, finish=True, say=print, **settings):
    ui = Silent()
    ui.say = say
    ctx = Context(torch.device("cpu"), path, ui)
    settings = {"iters": 12, "optim": SGD, "precision": "fp32", "log_interval": 1, "checkpoint_interval": 5, **settings}
    act = lambda: setattr(ctx.stop, "signal", 15)  # noqa: E731
    inputs = Inputs(dataset="d", classes=(), colors=())
    with open_run(path, "train", load_preset("toy"), "x", inputs) as run:
        list(fit(task, lambda start: batches(start, stop_at, act), TrainingConfig(**settings), run, ctx, seed=1))
        if finish:
            run.finish()
    return task


def averages(path):
    return load_weights(find_checkpoint(path / "checkpoints"), AVERAGE)[0]


def test_the_average_is_that_of_the_steps_and_is_the_same_after_a_stop(tmp_path):
    task = train(tmp_path / "whole", Averaged())
    expected = task.seen[0]
    for step, weight in enumerate(task.seen[1:], 1):
        share = min(1 - 1 / (step + 1), 0.8)
        expected = share * expected + (1 - share) * weight
    stored = averages(tmp_path / "whole")
    torch.testing.assert_close(stored["1.weight"], expected)
    assert not torch.equal(stored["1.weight"], task.seen[-1])
    with pytest.raises(Preempted):
        train(tmp_path / "broken", Averaged(), stop_at=7)
    train(tmp_path / "broken", Averaged())
    again = averages(tmp_path / "broken")
    assert stored.keys() == again.keys()
    assert all(torch.equal(again[key], tensor) for key, tensor in stored.items())


def test_a_damaged_average_is_a_damaged_checkpoint(tmp_path):
    train(tmp_path / "whole", Averaged())
    with pytest.raises(Preempted):
        train(tmp_path / "run", Averaged(), stop_at=7)
    newest = find_checkpoint(tmp_path / "run/checkpoints")
    data = bytearray((newest / AVERAGE).read_bytes())
    data[-1] ^= 1
    (newest / AVERAGE).write_bytes(data)
    said = []
    train(tmp_path / "run", Averaged(), say=said.append)
    assert any("ema.safetensors is damaged" in line and "step-00000005" in line for line in said)
    expected, stored = averages(tmp_path / "whole"), averages(tmp_path / "run")
    assert all(torch.equal(stored[key], tensor) for key, tensor in expected.items())


@pytest.mark.parametrize(
    ("scores", "ends"),
    [
        ([10.0, 20.0, 15.0, 20.0, 30.0, 0.0], 8),  # as good is not better
        ([10.0, 20.0, 15.0, 21.0, 15.0, 16.0], 12),  # the last one is at the end anyway
        ([10.0, None, None, None, 5.0, 6.0], 12),  # without a score: neither better nor worse
        ([None, None, None, None, None, None], 12),
    ],
)
def test_training_ends_where_validations_have_not_been_better_for_long_enough(tmp_path, scores, ends):
    said = []

    def patient(scores):
        task = Line(scores)
        task.val_interval, task.patience = 2, 2
        return task

    train(tmp_path, patient(scores), finish=False, say=said.append)
    assert rows(tmp_path, "step")[-1] == (ends,)
    early = ends < 12
    assert read_record(tmp_path).ended_early == (ends if early else None)
    assert [line for line in said if "ends early" in line] == (
        ["training ends early, at iteration 8: 2 validations in a row without a better mIoU than 20.00 at 4"] * early
    )
    before = (tmp_path / "metrics.jsonl").read_bytes()
    train(tmp_path, patient([]))  # killed before the run was marked done: it does not go on
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("learned", [0.0, 1.0])
def test_a_training_whose_loss_was_always_0_has_learned_nothing(tmp_path, learned):
    class Idle(Line):
        def losses(self, batch):
            return {name: loss * learned * (batch["step"] == 3) for name, loss in super().losses(batch).items()}

    said = []
    train(tmp_path, Idle(), iters=6, say=said.append)
    assert [line.startswith("the loss was 0 in every iteration: nothing was learned") for line in said] == (
        [] if learned else [True]
    )
    assert ("nothing was learned" in (tmp_path / "log.txt").read_text()) == (not learned)


def test_the_rate_follows_the_batch_only_where_that_is_asked_for(tmp_path):
    for name, settings in (("as given", {"batch": 32}), ("twice", {"batch": 32, "lr_per": 16})):
        train(tmp_path / name, Line(), iters=3, **settings)
    given, twice = (np.array(rows(tmp_path / name, "lr")) for name in ("as given", "twice"))
    np.testing.assert_allclose(twice, 2 * given)
    assert given[0] == pytest.approx(0.05)
