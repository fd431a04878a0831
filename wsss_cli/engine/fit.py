"""The only training loop: a task, an optimiser, a schedule; events out; resumes to the bit."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from wsss_cli.config.base import AdamWConfig, Optim, ScheduleConfig, SgdConfig, TrainingConfig
from wsss_cli.engine.checkpoint import (
    AVERAGE,
    load_newest,
    load_trainer,
    load_weights,
    mark_best,
    pointed_step,
    save_checkpoint,
    step_name,
)
from wsss_cli.engine.context import Context, Event, planned
from wsss_cli.engine.meter import Meter
from wsss_cli.engine.rundir import RunDir, read_metrics
from wsss_cli.errors import ResourceError, WeightsError, WsssError, out_of_memory
from wsss_cli.ranks.gradients import Losses, spread_losses, summed_later
from wsss_cli.ranks.group import only_first
from wsss_cli.ranks.sums import alone
from wsss_cli.ranks.who import here
from wsss_cli.talk import counted

Batch = dict[str, Any]
Scores = dict[str, float | None]
POSITIONS = ("pos_embed", "relative_position_bias_table", "rel_pos_h", "rel_pos_w", "_token")  # what timm calls them


class Task(Protocol):
    """What is trainable. Derive from it: all but the model and its losses has a default.

    Attributes:
        model: what is trained.
        val_interval: iterations between calls of `evaluate`, which is also called after the last one; 0: never.
        patience: validations in a row that do not beat the best one after which training ends; 0: it does not.
    """

    model: nn.Module
    val_interval: int = 0
    patience: int = 0

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Named scalar losses of a batch, whose 'step' counts from 0; their sum is minimised. What is drawn for it is
        drawn by its 'draw': seed, step, and which part of the step's batch it is."""
        ...

    def in_head(self, name: str) -> bool:
        """Whether a parameter of the model learns at `head_lr_mult` times the base rate: all but the backbone's."""
        return not name.startswith("backbone.")

    def evaluate(self) -> Scores:
        """Scores of the model as it stands; 'miou' picks the best checkpoint. Empty: nothing to score; None: undefined,
        as no pixel of the truth has a label. Called on all ranks; the first one's scores count."""
        return {}

    def after_step(self, step: int) -> None:
        """Called after the optimiser's step; `step` iterations are done."""
        return

    def average(self) -> nn.Module | None:
        """The moving average of the model's weights, which goes into a checkpoint beside it; None: there is none."""
        return None

    def state(self) -> dict[str, Any]:
        """What goes into a checkpoint beside the model, such as an average of its weights; tensors and plain values,
        nested in dictionaries at most."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a `state` that is not empty."""
        return


def lr_factor(step: int, iters: int, schedule: ScheduleConfig) -> float:
    """Factor on the base learning rate at a step in 0 .. iters-1: linear warm-up, then poly decay to `eta_min_ratio`.

    The last step runs at exactly `eta_min_ratio`.

    Source: MMEngine 0.10 `PolyParamScheduler`, `LinearParamScheduler` (their total is end - begin - 1).
    """
    if step < schedule.warmup_iters:
        return schedule.warmup_ratio + (1 - schedule.warmup_ratio) * step / max(schedule.warmup_iters - 1, 1)
    total = max(iters - schedule.warmup_iters - 1, 1)
    left = max(1 - (step - schedule.warmup_iters) / total, 0.0)
    ratio: float = schedule.eta_min_ratio + (1 - schedule.eta_min_ratio) * left**schedule.power
    return ratio


def build_optimiser(task: Task, optim: Optim, device: torch.device) -> torch.optim.Optimizer:
    """The optimiser of a preset over a task's parameters; fused where the device has it."""
    groups, fused = param_groups(task, optim), device.type == "cuda"
    match optim:
        case SgdConfig():
            return torch.optim.SGD(
                groups, lr=optim.lr, momentum=optim.momentum, weight_decay=optim.weight_decay, fused=fused
            )
        case AdamWConfig():
            return torch.optim.AdamW(groups, lr=optim.lr, weight_decay=optim.weight_decay, fused=fused)


def param_groups(task: Task, optim: Optim) -> list[dict[str, Any]]:
    """What learns, in groups: the backbone at `lr`, the head at `lr * head_lr_mult`.

    With `norm_decay = false` the parameters of one dimension (norms, biases), position embeddings and tokens, by timm's
    names, have groups of their own without weight decay. A group without parameters is left out.
    """
    learning = [(name, p) for name, p in task.model.named_parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = []
    for head, lr in ((False, optim.lr), (True, optim.lr * optim.head_lr_mult)):
        part = [(name, p) for name, p in learning if task.in_head(name) == head]
        free = {name for name, p in part if not optim.norm_decay and (p.ndim <= 1 or name.endswith(POSITIONS))}
        groups.append({"params": [p for name, p in part if name not in free], "lr": lr})
        groups.append({"params": [p for name, p in part if name in free], "lr": lr, "weight_decay": 0.0})
    return [group for group in groups if group["params"]]


def fit(
    task: Task,
    batches: Callable[[int], Iterable[list[Batch]]],
    config: TrainingConfig,
    run: RunDir,
    ctx: Context,
    *,
    seed: int,
) -> Generator[Event, None, None]:
    """Train to `config.iters`, from the run's last checkpoint where there is one; an event per log line and validation,
    and of kind 'now', which nobody keeps, once a second.

    Args:
        batches: from a step to the batches of that step and all later ones, each a list of its parts (one but with
            `accumulate`); a pure function of the step, so that a resumed run sees what an unbroken one would have seen.
            Of several ranks each gets its own rows.
        seed: of dropout and of all else that the task draws.
    Raises:
        DivergedError: the loss is not finite. The last checkpoint from before is kept.
        Preempted, Interrupted: asked to stop; a checkpoint of the current step is written first.
        ResourceError: memory has run out.
        WsssError: the batches cannot be made; then too a checkpoint is written first.
    """
    optimiser = build_optimiser(task, config.optim, ctx.device)
    base = [group["lr"] * (config.batch / config.lr_per if config.lr_per else 1) for group in optimiser.param_groups]
    folder, meter = run.path / "checkpoints", Meter(config.iters, ctx.device)

    losses = spread_losses(task.model, task.losses)

    def to_validate(step: int) -> bool:
        return step > 0 and task.val_interval > 0 and (step % task.val_interval == 0 or step == config.iters)

    step = _resume(task, optimiser, meter, folder, ctx.ui.say)
    run.cut_metrics(step)
    if to_validate(step) and step not in _validated(run):  # stopped before or in this validation
        yield meter.without(partial(_validate, task, run, step))
    ended = step < config.iters and _ends_early(task, run, step, ctx.ui.say)
    source = iter(batches(step)) if step < config.iters and not ended else iter(())
    while step < config.iters and not ended:
        meter.wait()
        try:
            parts = [part | {"step": step, "draw": (seed, step, number)} for number, part in enumerate(next(source))]
            asked = parts[0].pop("stop", 0)
        except WsssError:  # what is trained so far is not lost
            if step and not (folder / step_name(step)).is_dir():
                _save(task, optimiser, meter, folder, step)
            raise
        meter.go()
        factor = lr_factor(step, config.iters, config.schedule)
        for group, lr in zip(optimiser.param_groups, base, strict=True):
            group["lr"] = lr * factor
        draw = (seed * 1_000_003 + step) % 2**63
        meter.add(*_step(losses, task, parts, optimiser, config.precision, draw, ctx), config.batch)
        step += 1
        task.after_step(step)
        if step % config.log_interval == 0 or step == config.iters:
            yield _emit(run, meter.event(step, base[0] * factor))
        elif (event := meter.glance(step)) is not None:
            yield event
        if alone():
            asked = ctx.stop.signal  # ranks must agree on it, and did before the step
        if asked or to_validate(step) or step % config.checkpoint_interval == 0 or step == config.iters:
            _save(task, optimiser, meter, folder, step)
            if asked:
                ctx.stop.check()
        if to_validate(step):
            yield meter.without(partial(_validate, task, run, step))
            ended = step < config.iters and _ends_early(task, run, step, ctx.ui.say)
    only_first(lambda: _say_idle(run, ctx.ui.say))


def _say_idle(run: RunDir, say: Callable[[str], None]) -> None:
    """A line where the loss was 0 all the time, which is noted, too."""
    losses = [row["loss"] for row in read_metrics(run.path) if row["kind"] == "train"]
    if losses and not any(losses):
        line = "the loss was 0 in every iteration: nothing was learned; are all labels 255, or of classes of weight 0?"
        run.log(line)
        say(line)


def _step(
    losses_of: Losses,
    task: Task,
    parts: list[Batch],
    optimiser: torch.optim.Optimizer,
    precision: str,
    seed: int,
    ctx: Context,
) -> tuple[list[str], Tensor]:
    """One iteration: the names of its losses, and their sum followed by each (of several ranks this one's share)."""
    spread_over = 1 if alone() else here().world
    torch.manual_seed(seed)  # dropout of a step is the same after a resume
    task.model.train()
    optimiser.zero_grad(set_to_none=True)
    names: list[str] = []
    sums: Tensor | None = None
    try:
        with planned(ctx.device):
            for number, part in enumerate(parts, 1):
                part = {key: _move(value, ctx.device) for key, value in part.items()}
                with summed_later(losses_of, number < len(parts)):
                    with ctx.autocast(precision):
                        losses = losses_of(part)
                        each = torch.stack(list(losses.values())) / len(parts)
                        loss = each.sum()
                    (loss * spread_over).backward()  # gradients are averaged over ranks
                names, values = list(losses), torch.cat([loss[None], each]).detach()
                sums = values if sums is None else sums + values
            optimiser.step()
    except Exception as error:
        if not out_of_memory(error):
            raise
        images = len(parts[0]["image"])
        raise ResourceError(
            f"out of memory in a training step of {counted(images, 'image')}: {' '.join(str(error).split())[:120]}",
            "lower batch or crop of this stage's settings, raise its accumulate, or set its precision to bf16 on a GPU",
        ) from error
    assert sums is not None
    return names, sums


def _move(value: Any, device: torch.device) -> Any:
    return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value


def _emit(run: RunDir, event: Event) -> Event:
    run.metric(event)
    run.log(" ".join(f"{key} {f'{value:.5g}' if isinstance(value, float) else value}" for key, value in event.items()))
    return event


def _save(task: Task, optimiser: torch.optim.Optimizer, meter: Meter, folder: Path, step: int) -> None:
    """Write a checkpoint; every rank is asked for what it adds to it, and the first writes."""
    meter.check(step, task.model)
    trainer = {"optimiser": optimiser.state_dict(), "meter": meter.state()}
    state = task.state()
    if here().rank == 0:
        more = {"task": state} if state else {}
        save_checkpoint(folder, step, task.model, trainer | more, {}, task.average())


def _resume(
    task: Task,
    optimiser: torch.optim.Optimizer,
    meter: Meter,
    folder: Path,
    say: Callable[[str], None],
) -> int:
    """Go on from the newest checkpoint that is whole: the number of its step, 0 where there is none.

    Raises:
        WeightsError: there are checkpoints, and all of them are damaged.
    """
    loaded = None

    def load() -> str | None:
        nonlocal loaded
        loaded = load_newest(folder, say)
        return None if loaded is None else step_name(loaded[2]["step"])

    newest = only_first(load)
    if newest is None:
        return 0
    if loaded is None:  # another rank than the first
        state, meta = load_weights(folder / newest)
        trainer = load_trainer(folder / newest)
    else:
        state, trainer, meta = loaded
    task.model.load_state_dict(state)
    try:
        optimiser.load_state_dict(trainer["optimiser"])
    except ValueError as error:  # its parameters were grouped otherwise
        raise WeightsError(f"{folder}: an optimiser of another version", "remove it: training begins anew") from error
    if (average := task.average()) is not None:
        average.load_state_dict(load_weights(folder / newest, AVERAGE)[0])
    if "task" in trainer:
        task.load_state(trainer["task"])
    if "meter" in trainer:
        meter.load_state(trainer["meter"])
    else:
        say("the checkpoint is of an earlier version: the next log line is of the iterations from here on")
    step: int = meta["step"]
    return step


def _validate(task: Task, run: RunDir, step: int) -> Event:
    """Score the model, whose checkpoint has just been written, and mark that one if it beats the one that is marked."""
    folder = run.path / "checkpoints"
    scores = task.evaluate()

    def mark() -> Scores:
        score, before = scores.get("miou"), _validated(run).get(pointed_step(folder, "best"))
        if score is not None and (before is None or score > before):
            mark_best(folder, step)
        return scores

    return _emit(run, {"kind": "val", "step": step, **only_first(mark)})


def _validated(run: RunDir) -> dict[int, float | None]:
    """mIoU of the validations so far, by step; None where it is undefined."""
    return {row["step"]: row.get("miou") for row in read_metrics(run.path) if row["kind"] == "val"}


def _ends_early(task: Task, run: RunDir, step: int, say: Callable[[str], None]) -> bool:
    """Whether the last validations have not been better for as long as the task's patience; that is said and noted."""
    if not task.patience:
        return False

    def best() -> tuple[int, float] | None:
        scored = [(at, score) for at, score in sorted(_validated(run).items()) if score is not None]
        first = max(range(len(scored)), key=lambda number: (scored[number][1], -number), default=0)
        return scored[first] if len(scored) - 1 - first >= task.patience else None

    if (beaten := only_first(best)) is None:
        return False
    line = (
        f"training ends early, at iteration {step}: {task.patience} validations in a row without a better mIoU than "
        f"{beaten[1]:.2f} at {beaten[0]}"
    )
    run.log(line)
    run.save(ended_early=step)
    say(line)
    return True
