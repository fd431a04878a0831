import json
import signal
from pathlib import Path

import pytest
import torch
from command import python
from pydantic import ValidationError
from torch import nn

from wsss_cli.config.base import AdamWConfig, ScheduleConfig, SgdConfig, TrainingConfig
from wsss_cli.config.load import load_preset
from wsss_cli.engine.checkpoint import load_trainer, load_weights, save_checkpoint
from wsss_cli.engine.context import Context, Silent, planned
from wsss_cli.engine.fit import Task, build_optimiser, fit, lr_factor, param_groups
from wsss_cli.engine.meter import Meter
from wsss_cli.engine.pointers import find_checkpoint
from wsss_cli.engine.records import Inputs
from wsss_cli.engine.rundir import open_run, read_metrics
from wsss_cli.errors import DataError, DivergedError, Interrupted, Preempted, ResourceError, WeightsError

SGD = SgdConfig(lr=0.05, momentum=0.9, weight_decay=1e-3)


class Line(Task):
    """Least squares with dropout, so that order, noise, momentum and schedule all show in the weights."""

    def __init__(self, scores=()):
        torch.set_num_threads(1)
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Dropout(0.3), nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
        self.scores = list(scores)

    def losses(self, batch):
        error = self.model(batch["image"]) - batch["target"]
        return {"square": error.square().mean(), "absolute": 0.1 * error.abs().mean()}

    def in_head(self, name):
        return name.startswith("3.")

    def evaluate(self):
        return {"miou": self.scores.pop(0)}


def batches(start, at=None, act=None):
    """Endless batches, each a function of its step; before the batch of step `at`, `act` is called."""
    step = start
    while True:
        if step == at:
            act()
        draw = torch.Generator().manual_seed(step)
        x = torch.randn(8, 4, generator=draw)
        yield [{"image": x, "target": x.sum(1, keepdim=True), "id": "not a tensor"}]
        step += 1


def train(path, at=None, act=None, *, iters=12, task=None, optim=SGD, log_interval=1, val_interval=0, say=print):
    task = task or Line()
    task.val_interval = val_interval
    ui = Silent()
    ui.say = say
    ctx = Context(torch.device("cpu"), Path(path), ui)
    config = TrainingConfig(
        iters=iters, optim=optim, precision="fp32", log_interval=log_interval, checkpoint_interval=5
    )
    if act == "term":
        act = lambda: setattr(ctx.stop, "signal", signal.SIGTERM)  # noqa: E731
    elif act == "int":
        act = lambda: setattr(ctx.stop, "signal", signal.SIGINT)  # noqa: E731
    with open_run(Path(path), "train", load_preset("toy"), "x", Inputs(dataset="d", classes=(), colors=())) as run:
        shown = list(fit(task, lambda start: batches(start, at, act), config, run, ctx, seed=1))
        events = [event for event in shown if event["kind"] != "now"]
        run.finish()
    return task, events


def rows(path, *fields):
    return [tuple(row[field] for field in fields) for row in read_metrics(Path(path))]


# -- schedule ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "lr"), [(0, 0.01), (1, 0.0099995545), (10000, 0.0054050399), (19999, 0.0001), (25000, 0.0001)]
)
def test_poly_has_the_values_of_the_reference(step, lr):
    schedule = ScheduleConfig(power=0.9, eta_min_ratio=0.01)
    assert 0.01 * lr_factor(step, 20000, schedule) == pytest.approx(lr, abs=5e-11)


def test_warm_up_is_linear_and_poly_follows():
    schedule = ScheduleConfig(power=1.0, warmup_iters=5, warmup_ratio=0.2)
    factors = [lr_factor(step, 10, schedule) for step in range(10)]
    assert factors == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0])


def test_a_single_iteration_has_the_full_rate():
    assert lr_factor(0, 1, ScheduleConfig()) == 1.0


# -- training ----------------------------------------------------------------------------------------------------------


def test_a_batch_in_equal_parts_is_the_batch_where_nothing_looks_at_all_of_it(tmp_path, monkeypatch):
    def steady():
        task = Line()
        task.model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))
        for number, parameter in enumerate(task.model.parameters()):
            nn.init.normal_(parameter, generator=torch.Generator().manual_seed(number))
        task.in_head = lambda name: False
        return task

    whole_batches, parts = batches, (slice(4), slice(4, 8))

    def halves(start, *more):
        for (whole,) in whole_batches(start):
            yield [{key: value[rows] for key, value in whole.items() if key != "id"} for rows in parts]

    one, one_events = train(tmp_path / "one", task=steady())
    monkeypatch.setitem(train.__globals__, "batches", halves)
    two, two_events = train(tmp_path / "two", task=steady())
    for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    assert [event["loss"] for event in one_events] == pytest.approx([event["loss"] for event in two_events], rel=1e-5)
    assert [event["loss_square"] for event in two_events] == pytest.approx(
        [event["loss_square"] for event in one_events], rel=1e-5
    )


@pytest.mark.parametrize(("accumulate", "fits"), [(1, True), (4, True), (3, False)])
def test_a_batch_is_cut_into_equal_parts_or_refused(accumulate, fits):
    settings = {"iters": 1, "optim": SGD, "batch": 8, "accumulate": accumulate}
    if fits:
        assert TrainingConfig(**settings).accumulate == accumulate
    else:
        with pytest.raises(ValidationError, match="batch 8 cannot be cut into 3 equal parts"):
            TrainingConfig(**settings)


def test_the_first_step_of_sgd_is_the_one_computed_by_hand(tmp_path):
    task = Line()
    task.model = nn.Sequential(nn.Linear(1, 1, bias=False))
    nn.init.constant_(task.model[0].weight, 2.0)
    task.losses = lambda batch: {"square": task.model(torch.ones(1, 1)).square().sum()}
    task.in_head = lambda name: False
    _, events = train(tmp_path, iters=1, task=task, optim=SgdConfig(lr=0.1, momentum=0.9, weight_decay=0.5))
    # gradient 2 * 2 + 0.5 * 2 = 5; 2 - 0.1 * 5 = 1.5
    assert task.model[0].weight.item() == pytest.approx(1.5)
    assert (events[0]["loss"], events[0]["step"], events[0]["lr"]) == (4.0, 1, 0.1)


@pytest.mark.parametrize("optim", [SGD, AdamWConfig(lr=0.05, head_lr_mult=2.0)])
def test_training_learns_and_reports(tmp_path, optim):
    task, events = train(tmp_path, iters=60, optim=optim, log_interval=20)
    assert [event["step"] for event in events] == [20, 40, 60]
    assert events[-1]["loss"] < 0.9 * events[0]["loss"]
    assert events[-1]["lr"] == 0.0
    assert events[-1]["eta_s"] == 0.0
    state, meta = load_weights(find_checkpoint(tmp_path / "checkpoints"))
    assert meta["step"] == 60
    assert torch.equal(state["3.weight"], task.model[3].weight)


def test_every_named_loss_is_logged_beside_their_sum(tmp_path):
    train(tmp_path, iters=4, log_interval=2)
    for loss, square, absolute in rows(tmp_path, "loss", "loss_square", "loss_absolute"):
        assert loss == pytest.approx(square + absolute, abs=2e-6)
        assert 0 < absolute < square


def test_a_single_loss_is_logged_once(tmp_path):
    task = Line()
    losses = task.losses
    task.losses = lambda batch: {"square": losses(batch)["square"]}
    _, events = train(tmp_path, iters=2, task=task)
    assert not any(key.startswith("loss_") for event in events for key in event)


class Remembering(Line):
    """Remembers the sum of its weights after every iteration."""

    def __init__(self):
        super().__init__()
        self.past = torch.zeros(0)

    def after_step(self, step):
        assert step == len(self.past) + 1
        self.past = torch.cat([self.past, self.model[3].weight.detach().sum()[None]])

    def state(self):
        return {"past": self.past}

    def load_state(self, state):
        self.past = state["past"]


def test_what_a_task_remembers_is_resumed_with_the_weights(tmp_path):
    whole, _ = train(tmp_path / "whole", task=Remembering())
    with pytest.raises(CrashError):
        train(tmp_path / "broken", 8, crash, task=Remembering())
    resumed, _ = train(tmp_path / "broken", task=Remembering())
    assert len(whole.past) == 12 and torch.equal(whole.past, resumed.past)


def test_the_head_has_its_own_rate():
    task = Line()
    body, head = param_groups(task, SgdConfig(lr=0.1, head_lr_mult=5.0))
    assert (body["lr"], head["lr"]) == (0.1, 0.5)
    assert all(a is b for a, b in zip(body["params"], task.model[:3].parameters(), strict=True))
    assert all(a is b for a, b in zip(head["params"], task.model[3].parameters(), strict=True))


def test_all_but_the_backbone_is_head_and_what_does_not_learn_is_in_no_group():
    class Two(Task):
        def __init__(self):
            self.model = nn.ModuleDict({"backbone": nn.Linear(2, 2), "neck": nn.Linear(2, 1)})

    task = Two()
    (backbone, neck) = param_groups(task, AdamWConfig(lr=0.1, head_lr_mult=10.0))
    assert (backbone["lr"], neck["lr"]) == (0.1, 1.0)
    assert backbone["params"][0] is task.model["backbone"].weight and neck["params"][1] is task.model["neck"].bias
    task.model["backbone"].requires_grad_(False)
    (only,) = param_groups(task, AdamWConfig(lr=0.1, head_lr_mult=10.0))
    assert only["lr"] == 1.0 and only["params"][0] is task.model["neck"].weight


def test_norms_biases_and_positions_may_go_without_weight_decay(tmp_path):
    task = Line()
    task.model.register_parameter("pos_embed", nn.Parameter(torch.ones(1, 2)))
    optim = SgdConfig(lr=0.1, head_lr_mult=5.0, momentum=0.0, weight_decay=0.5, norm_decay=False)
    body, body_free, head, head_free = param_groups(task, optim)
    assert [p.shape for p in body["params"] + head["params"]] == [(3, 4), (1, 3)]
    assert [tuple(p.shape) for p in body_free["params"]] == [(1, 2), (3,), (3,), (3,)]
    assert [tuple(p.shape) for p in head_free["params"]] == [(1,)]
    assert (head["lr"], head_free["lr"]) == (0.5, 0.5) and body_free["weight_decay"] == 0.0
    optimiser = build_optimiser(task, optim, torch.device("cpu"))
    for parameter in task.model.parameters():
        torch.nn.init.ones_(parameter)
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()  # with no gradient, decay alone moves a weight: 1 - lr * 0.5
    assert torch.allclose(task.model[1].weight, torch.tensor(0.95))
    assert torch.allclose(task.model[3].weight, torch.tensor(0.75))
    assert torch.equal(task.model[1].bias, torch.ones(3)) and torch.equal(task.model[2].weight, torch.ones(3))
    assert torch.equal(task.model.pos_embed, torch.ones(1, 2)) and torch.equal(task.model[3].bias, torch.ones(1))


@pytest.mark.parametrize("name", ["dist_token", "reg_token", "rel_pos_h", "rel_pos_w"])
def test_all_that_timm_calls_position_or_token_goes_without_weight_decay(name):
    task = Line()
    task.model.register_parameter(name, nn.Parameter(torch.ones(4, 2)))
    groups = param_groups(task, SgdConfig(weight_decay=0.5, norm_decay=False))
    (group,) = [group for group in groups if any(p is getattr(task.model, name) for p in group["params"])]
    assert group["weight_decay"] == 0.0


def test_an_optimiser_of_other_parameters_is_refused_with_the_way_out(tmp_path, monkeypatch):
    """As where an earlier version grouped them otherwise."""
    with pytest.raises(Interrupted):
        train(tmp_path / "run", 7, "int")
    monkeypatch.setattr(
        "wsss_cli.engine.fit.param_groups", lambda task, optim: [{"params": [*task.model.parameters()]}]
    )
    with pytest.raises(WeightsError, match="an optimiser of another version") as caught:
        train(tmp_path / "run")
    assert "begins anew" in caught.value.hint


def same(left, right):
    return all(torch.equal(a, b) for a, b in zip(left.state_dict().values(), right.state_dict().values(), strict=True))


class CrashError(Exception):
    pass


def crash():
    raise CrashError


@pytest.mark.parametrize("optim", [SGD, AdamWConfig(lr=0.05)])
def test_a_run_that_crashed_ends_with_the_bits_of_an_unbroken_one(tmp_path, optim):
    whole, _ = train(tmp_path / "whole", optim=optim)
    with pytest.raises(CrashError):
        train(tmp_path / "broken", 8, crash, optim=optim)
    resumed, events = train(tmp_path / "broken", optim=optim)
    assert events[0]["step"] == 6  # the checkpoint was of step 5
    assert same(whole.model, resumed.model)
    columns = ("step", "loss", "lr")
    assert rows(tmp_path / "whole", *columns) == rows(tmp_path / "broken", *columns)
    assert not same(whole.model, Line().model)


def test_a_run_that_was_killed_ends_with_the_bits_of_an_unbroken_one(tmp_path):
    code = (
        f"import os, signal, sys; sys.path[:0] = {[str(Path(__file__).parents[n]) for n in (0, 1)]}; import test_fit\n"
        f"test_fit.train({str(tmp_path / 'killed')!r}, 8, lambda: os.kill(os.getpid(), signal.SIGKILL))"
    )
    done = python(tmp_path, "-c", code)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert json.loads((tmp_path / "killed" / "run.json").read_text())["state"] == "running"
    assert [step for (step,) in rows(tmp_path / "killed", "step")] == list(range(1, 9))
    resumed, _ = train(tmp_path / "killed")
    whole, _ = train(tmp_path / "whole")
    assert same(whole.model, resumed.model)
    assert [step for (step,) in rows(tmp_path / "killed", "step")] == list(range(1, 13))


@pytest.mark.parametrize(("how", "error"), [("term", Preempted), ("int", Interrupted)])
def test_a_stop_saves_the_step_and_the_rest_has_the_same_bits(tmp_path, how, error):
    with pytest.raises(error):
        train(tmp_path / "stopped", 6, how)  # asked for before step 6, so that 7 steps are done
    assert find_checkpoint(tmp_path / "stopped" / "checkpoints").name == "step-00000007"
    assert json.loads((tmp_path / "stopped" / "run.json").read_text())["state"] == "preempted"
    resumed, events = train(tmp_path / "stopped")
    assert events[0]["step"] == 8
    whole, _ = train(tmp_path / "whole")
    assert same(whole.model, resumed.model)


@pytest.mark.parametrize(
    "error",
    [Preempted("stopped"), Interrupted("stopped"), ResourceError("a worker died"), DataError("no image can be read")],
)
def test_what_is_trained_is_saved_where_the_wait_for_a_batch_ends(tmp_path, error):
    def fail():
        raise error

    with pytest.raises(type(error)):
        train(tmp_path / "stopped", 7, fail)
    assert find_checkpoint(tmp_path / "stopped" / "checkpoints").name == "step-00000007"
    resumed, events = train(tmp_path / "stopped")
    assert events[0]["step"] == 8
    whole, _ = train(tmp_path / "whole")
    assert same(whole.model, resumed.model)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")])
def test_a_step_without_memory_names_what_to_turn(tmp_path, error):
    task = Line()

    def fail(batch):
        raise error

    task.losses = fail
    with pytest.raises(ResourceError, match="out of memory in a training step of 8 images") as caught:
        train(tmp_path, task=task)
    assert "lower batch or crop" in caught.value.hint
    assert caught.value.exit_code == 3


def test_a_finished_training_is_not_repeated(tmp_path):
    first, _ = train(tmp_path)
    again, events = train(tmp_path)
    assert events == []
    assert same(first.model, again.model)
    assert len(rows(tmp_path, "step")) == 12


# -- divergence --------------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_checkpoint_before(tmp_path):
    task = Line()
    losses = task.losses
    seen = []

    def diverge(batch):
        seen.append(batch)
        return {key: value * (float("nan") if len(seen) > 7 else 1.0) for key, value in losses(batch).items()}

    task.losses = diverge
    with pytest.raises(DivergedError, match="iteration 8") as caught:
        train(tmp_path, task=task)
    assert caught.value.exit_code == 5
    state, meta = load_weights(find_checkpoint(tmp_path / "checkpoints"))
    assert meta["step"] == 5
    assert all(torch.isfinite(value).all() for value in state.values())


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    task = Line()
    losses = task.losses
    seen = []

    def overflow(batch):
        seen.append(batch)
        found = losses(batch)
        if len(seen) == 10:  # a finite loss, an infinite gradient, at the step of a checkpoint
            found["root"] = (task.model[3].bias - task.model[3].bias.detach()).sum().sqrt()
        return found

    task.losses = overflow
    with pytest.raises(DivergedError, match="network is not finite at iteration 10"):
        train(tmp_path, task=task)
    assert find_checkpoint(tmp_path / "checkpoints").name == "step-00000005"


# -- validation --------------------------------------------------------------------------------------------------------


def validations(path):
    return [(row["step"], row["miou"]) for row in read_metrics(path) if row["kind"] == "val"]


def test_validation_marks_the_best_checkpoint(tmp_path):
    train(tmp_path, task=Line([40.0, 60.0, 50.0, 60.0]), val_interval=3)
    assert validations(tmp_path) == [(3, 40.0), (6, 60.0), (9, 50.0), (12, 60.0)]
    assert find_checkpoint(tmp_path / "checkpoints", "best").name == "step-00000006"
    assert find_checkpoint(tmp_path / "checkpoints").name == "step-00000012"


def test_the_best_before_a_crash_stays_the_best(tmp_path):
    with pytest.raises(CrashError):
        train(tmp_path, 5, crash, task=Line([60.0]), val_interval=4)
    train(tmp_path, task=Line([50.0, 55.0]), val_interval=4)
    assert validations(tmp_path) == [(4, 60.0), (8, 50.0), (12, 55.0)]
    assert find_checkpoint(tmp_path / "checkpoints", "best").name == "step-00000004"


def stop_in_validation(path, interval):
    task = Line()

    def stopped():
        raise Preempted("stopped by SIGTERM")

    task.evaluate = stopped
    with pytest.raises(Preempted):
        train(path, task=task, val_interval=interval)


def test_a_validation_that_was_stopped_is_made_up_for(tmp_path):
    stop_in_validation(tmp_path, 4)
    resumed, _ = train(tmp_path, task=Line([30.0, 20.0, 10.0]), val_interval=4)
    assert validations(tmp_path) == [(4, 30.0), (8, 20.0), (12, 10.0)]
    whole, _ = train(tmp_path / "whole", task=Line([1.0, 2.0, 3.0]), val_interval=4)
    assert same(whole.model, resumed.model)


@pytest.mark.parametrize(("interval", "steps"), [(5, [5, 10, 12]), (6, [6, 12]), (100, [12]), (0, [])])
def test_the_last_iteration_is_validated_where_there_are_validations(tmp_path, interval, steps):
    train(tmp_path, task=Line([50.0, 60.0, 70.0]), val_interval=interval)
    assert [step for step, _ in validations(tmp_path)] == steps
    best = find_checkpoint(tmp_path / "checkpoints", "best")
    assert best == (tmp_path / "checkpoints" / "step-00000012" if steps else None)


def test_a_last_validation_that_was_stopped_is_made_up_for(tmp_path):
    stop_in_validation(tmp_path, 100)
    _, events = train(tmp_path, task=Line([30.0]), val_interval=100)
    assert [(event["kind"], event["step"]) for event in events] == [("val", 12)]
    assert find_checkpoint(tmp_path / "checkpoints", "best").name == "step-00000012"


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([None, None, None], None),
        ([None, 0.0, None], "step-00000008"),
        ([10.0, None, 20.0], "step-00000012"),
        ([10.0, None, 5.0], "step-00000004"),
    ],
)
def test_a_score_that_is_undefined_beats_none_and_is_beaten_by_any(tmp_path, scores, best):
    with pytest.raises(CrashError):  # after the first validation: the others meet it in the records
        train(tmp_path, 6, crash, task=Line(scores[:1]), val_interval=4)
    train(tmp_path, task=Line(scores[1:]), val_interval=4)
    assert [score for _, score in validations(tmp_path)] == scores
    found = find_checkpoint(tmp_path / "checkpoints", "best")
    assert (found and found.name) == best


# -- a damaged checkpoint ----------------------------------------------------------------------------------------------


def damage(checkpoint, how):
    file = checkpoint / "model.safetensors"
    if how == "cut":
        file.write_bytes(file.read_bytes()[:-5])
    elif how == "gone":
        file.unlink()
    elif how == "empty optimiser":
        (checkpoint / "trainer.pt").write_bytes(b"")
    elif how == "meta":
        (checkpoint / "meta.json").write_text("{")
    else:  # written so, with the hashes of it
        model = Line().model
        model[3].weight.data[0, 0] = float("nan")
        save_checkpoint(checkpoint.parent, int(checkpoint.name[5:]), model, load_trainer(checkpoint), {})


@pytest.mark.parametrize("how", ["cut", "gone", "empty optimiser", "meta", "not finite"])
def test_the_checkpoint_before_takes_the_place_of_a_damaged_one(tmp_path, how):
    with pytest.raises(CrashError):
        train(tmp_path / "broken", 11, crash, task=Line([50.0, 60.0]), val_interval=5)
    checkpoints = tmp_path / "broken" / "checkpoints"
    assert sorted(path.name for path in checkpoints.glob("step-*")) == ["step-00000005", "step-00000010"]
    damage(checkpoints / "step-00000010", how)
    said = []
    resumed, events = train(tmp_path / "broken", task=Line([60.0, 55.0]), val_interval=5, say=said.append)
    (line,) = said
    assert "step-00000010" in line and "goes on from the checkpoint before, step-00000005" in line
    assert events[0]["step"] == 6
    whole, _ = train(tmp_path / "whole", task=Line([50.0, 60.0, 55.0]), val_interval=5)
    assert same(whole.model, resumed.model)
    for place in ("whole", "broken"):
        assert validations(tmp_path / place) == [(5, 50.0), (10, 60.0), (12, 55.0)]
        assert find_checkpoint(tmp_path / place / "checkpoints", "best").name == "step-00000010"
    assert rows(tmp_path / "whole", "kind", "step") == rows(tmp_path / "broken", "kind", "step")


def test_where_all_checkpoints_are_damaged_that_is_an_error_and_nothing_is_trained_anew(tmp_path):
    with pytest.raises(CrashError):
        train(tmp_path, 11, crash)
    for checkpoint in (tmp_path / "checkpoints").glob("step-*"):
        damage(checkpoint, "cut")
    with pytest.raises(WeightsError, match="step-00000010") as caught:
        train(tmp_path)
    assert "remove this checkpoint folder" in caught.value.hint
    assert len(list((tmp_path / "checkpoints").glob("step-*"))) == 2


# -- log lines over a resume -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interval", [4, 6, 12])
def test_a_log_line_after_a_resume_is_of_its_whole_interval(tmp_path, interval):
    def scored():
        return Line([50.0, 60.0, 55.0])

    with pytest.raises(CrashError):
        train(tmp_path / "broken", 8, crash, task=scored(), log_interval=interval, val_interval=5)
    train(tmp_path / "broken", task=Line([60.0, 55.0]), log_interval=interval, val_interval=5)
    train(tmp_path / "whole", task=scored(), log_interval=interval, val_interval=5)
    lines = [
        [
            (row["step"], row["loss"], row["loss_square"], row["loss_absolute"])
            for row in read_metrics(tmp_path / place)
            if row["kind"] == "train"
        ]
        for place in ("whole", "broken")
    ]
    assert lines[0] == lines[1]
    assert [line[0] for line in lines[0]] == list(range(interval, 13, interval))


def test_a_log_line_is_of_all_iterations_since_the_one_before_whatever_is_validated_between(tmp_path):
    train(tmp_path / "each", log_interval=1)
    train(tmp_path / "one", task=Line([50.0, 60.0]), log_interval=12, val_interval=8)
    losses = [loss for (loss,) in rows(tmp_path / "each", "loss")]
    (one,) = [row["loss"] for row in read_metrics(tmp_path / "one") if row["kind"] == "train"]
    assert one == pytest.approx(sum(losses) / 12, abs=1e-5)


def test_images_and_seconds_are_counted_on_over_a_resume_and_not_while_something_else_is_done(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])

    def iteration(meter, wait, work):
        meter.wait()
        clock[0] += wait
        meter.go()
        clock[0] += work
        meter.add(["square"], torch.tensor([2.0, 2.0]), 8)

    first = Meter(10, torch.device("cpu"))
    iteration(first, 1.0, 3.0)
    state = first.state()
    clock[0] += 1000.0  # nothing runs
    second = Meter(10, torch.device("cpu"))
    second.load_state(state)
    second.without(lambda: clock.__setitem__(0, clock[0] + 50.0) or {})
    iteration(second, 1.0, 3.0)
    event = second.event(2, 0.1)
    assert (event["loss"], event["img_s"], event["data_wait"]) == (2.0, 2.0, 0.25)  # 16 images and 2 s of waiting in 8
    assert event["eta_s"] == 32.0


@pytest.mark.parametrize(
    ("device", "deterministic", "on"), [("cuda", False, True), ("cuda", True, False), ("cpu", False, False)]
)
def test_a_gpu_times_its_convolutions_in_the_steps_alone(device, deterministic, on):
    torch.use_deterministic_algorithms(deterministic)
    try:
        with pytest.raises(KeyError), planned(torch.device(device)):
            assert torch.backends.cudnn.benchmark is on
            raise KeyError
        assert torch.backends.cudnn.benchmark is False
    finally:
        torch.use_deterministic_algorithms(False)
