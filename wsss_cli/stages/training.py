"""What all trainings share: batches of samples into `fit`, what cannot be read named, and progress shown."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from wsss_cli.config.base import TrainingConfig
from wsss_cli.data.dataset import Sample
from wsss_cli.data.loader import Batches, Make, data_workers, training_batches
from wsss_cli.engine.context import Context
from wsss_cli.engine.devices import check_share
from wsss_cli.engine.fit import Task, fit
from wsss_cli.engine.loggers import sending
from wsss_cli.engine.rundir import RunDir
from wsss_cli.errors import UsageError
from wsss_cli.labels import IGNORE
from wsss_cli.ranks.group import Word, agree, answering
from wsss_cli.ranks.layers import spread
from wsss_cli.ranks.sums import alone
from wsss_cli.ranks.who import here


def train_network(
    task: Task,
    config: TrainingConfig,
    samples: Sequence[Sample],
    make: Make,
    run: RunDir,
    ctx: Context,
    *,
    seed: int,
    title: str,
    target: str = "",
) -> None:
    """Train a task on random batches of samples, from the run's last checkpoint where there is one.

    Args:
        make: (sample, random generator of this sample and epoch) -> arrays of one shape for all samples.
        seed: of the order of the samples, of their augmentation and of dropout.
        title: of the progress bar.
        target: which of a sample's arrays holds labels, 255 where there is none. A training that sees no label at all
            is warned of, there and in the run's record.
    Raises:
        DataError: twenty samples in a row cannot be read.
        DivergedError: the loss is not finite. The last checkpoint from before is kept.
        Preempted, Interrupted: asked to stop; a checkpoint is written first.
        ResourceError: out of memory; a data worker died or is stuck; another rank has gone.
        UsageError: there are more ranks than images at a time, or an algorithm has no deterministic form.
    """
    size = config.batch // config.accumulate
    check_share(title, size, here().world)
    if not alone():
        task.model = spread(task.model, ctx.device, size, sync_bn=config.sync_bn)
    with (
        deterministic(config.deterministic),
        answering(),
        ctx.ui.training_progress(title, config.iters) as show,
        contextlib.ExitStack() as stack,
    ):

        def batches(start: int) -> Iterator[list[dict[str, Any]]]:
            source = training_batches(
                Batches(samples, make, size, seed, here().part(size)),
                workers=data_workers(config.data_workers),
                start=start * config.accumulate,
                pin=ctx.device.type == "cuda",
                check=ctx.stop.check,
                say=ctx.ui.say,
            )
            stack.enter_context(contextlib.closing(source))  # workers end however the training does
            for step in itertools.count(start):
                parts, word = _parts(source, config.accumulate, "" if run.record.labelled else target, ctx)
                word = agree(word, step)
                if word.signal:
                    ctx.stop.signal = word.signal
                note_lost(word.lost, run, ctx)
                if word.labelled and not run.record.labelled:
                    run.save(labelled=True)
                yield [part | {"stop": word.signal} for part in parts]

        if here().rank == 0:
            stack.enter_context(sending(run.path, ctx.loggers, ctx.ui.say))
        for event in stack.enter_context(contextlib.closing(fit(task, batches, config, run, ctx, seed=seed))):
            show(event)
    if target and not run.record.labelled:
        warning = "no pixel that the training saw has a label (all are 255 in the masks): it has learned nothing"
        run.save(labelled=False)
        run.log(f"warning: {warning}")
        ctx.ui.say(f"warning: {warning}")


@contextlib.contextmanager
def deterministic(asked: bool) -> Iterator[None]:
    """While the body runs torch takes algorithms alone that give the same bits each time, where that is asked for.

    Raises:
        UsageError: one that is needed has no such form on this device.
    """
    if not asked:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it is first used
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        first = str(error).split(".")[0]
        raise UsageError(f"deterministic = true: {first}", "leave it out, or train on a CPU (--device cpu)") from error
    finally:
        torch.use_deterministic_algorithms(before)


def _parts(
    source: Iterator[dict[str, Any]], count: int, target: str, ctx: Context
) -> tuple[list[dict[str, Any]], Word]:
    """A batch's parts, and what is to be told of them."""
    parts: list[dict[str, Any]] = []
    try:
        for _ in range(count):
            parts.append(next(source))
    except Exception as error:
        return [], Word(ctx.stop.signal, error=error)
    lost = tuple(entry for part in parts for entry in part.pop("lost"))
    labelled = bool(target) and any(bool((part[target] != IGNORE).any()) for part in parts)
    return parts, Word(ctx.stop.signal, labelled, lost)


def note_lost(lost: Sequence[tuple[str, str]], run: RunDir, ctx: Context) -> None:
    """Say, and write into the run's record, what has not been lost before: a training that is resumed may not meet it.

    Args:
        lost: (id, reason) of samples that cannot be read.
    """
    before = {entry["id"] for entry in run.lost}
    for name, reason in lost:
        if name not in before:
            before.add(name)
            ctx.ui.say(f"lost {name}: {reason}")
            run.lose(name, reason)
