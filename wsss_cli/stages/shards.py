"""A shard of a run: some of its items, made beside processes that make the others; the last one finishes the run.

A shard holds a lock of its own while it works. Whoever needs the whole run (to open it, to finish it) holds the run's
lock for that time, and a shard takes its own lock within it. So no command without --shard works beside a shard.
"""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsss_cli.data.columns import names_of
from wsss_cli.data.dataset import Sample
from wsss_cli.engine.context import Context
from wsss_cli.engine.folders import make_folder
from wsss_cli.engine.outputs import is_whole
from wsss_cli.engine.records import is_run, read_record
from wsss_cli.engine.rundir import RunDir, begin_attempt, end_attempt, ending_of, log_error, read_or_create
from wsss_cli.engine.shards import (
    Shard,
    ShardRecord,
    all_done,
    hold_to_division,
    read_shard,
    read_shards,
    shards_at_work,
    write_shard,
)
from wsss_cli.engine.sweep import Lost
from wsss_cli.errors import BusyError, ResourceError, UsageError, WriteError
from wsss_cli.files import remove_temporaries
from wsss_cli.locks import is_locked, locked
from wsss_cli.rows import Rows
from wsss_cli.stages.cam import cams_of, prepare_cams
from wsss_cli.stages.changes import say_changes
from wsss_cli.stages.opening import spread_of, step_inputs
from wsss_cli.stages.pipeline import check_networks, run_step
from wsss_cli.stages.plan import TRAININGS, Experiment, Step
from wsss_cli.stages.pseudo import masks_of
from wsss_cli.stages.relabel import labels_of
from wsss_cli.stages.waiting import awaited, pause, say_waiting


@dataclass
class ShardDir:
    """The directory of a run for one of its shards; None in place of `run`: the run is done.

    Attributes:
        record: the shard's own, as it was written last.
    """

    run: RunDir | None
    record: ShardRecord

    def save(self, record: ShardRecord) -> None:
        """Write the shard's record.

        Raises:
            WriteError: the disk is full, or somebody has removed the directory of the run.
        """
        assert self.run is not None
        if not is_run(self.run.path):
            raise WriteError(f"{self.run.path} was removed while it was worked in", "run the same command again")
        self.record = record
        write_shard(self.run.path, record)


def run_shard(steps: Sequence[Step], exp: Experiment, shard: Shard, ctx: Context) -> None:
    """Make a shard of the last step of a plan, and finish that step where it is the last shard.

    Networks that the step needs are trained by whoever comes first; the others wait.

    Raises:
        BusyError: another process works at this shard.
        ResourceError: the training that was waited for failed.
        UsageError: earlier CAMs are not done, or the run is divided by another number.
    """
    *before, step = steps
    todo = [earlier for earlier in before if not earlier.done]
    for earlier in todo:
        if earlier.stage not in TRAININGS:
            raise UsageError(
                f"--shard {shard}: {earlier.stage} ({earlier.path}) is to be done first",
                f"wsss {earlier.stage}, with --shard or without, with the same preset and settings",
            )
    hold_to_division(step.path, shard)  # and again when its lock is held; here before a training is waited for
    check_networks([*todo, step], exp)
    say_changes(steps, exp, ctx.ui.say)
    for earlier in todo:
        ctx.ui.say(f"== {earlier.stage}")
        _by_one(earlier, exp, ctx)
    ctx.ui.say(f"== {step.stage}, shard {shard}")
    if _make(step, exp, shard, ctx):
        _complete(step, exp, ctx)


def _make(step: Step, exp: Experiment, shard: Shard, ctx: Context) -> bool:
    """Make the items of a shard; whether there was something to do, the run not being done."""
    split = exp.dataset.split(exp.preset.dataset.train)
    samples = Rows(split, array("Q", (number for number, name in enumerate(names_of(split)) if shard.has(name))))
    with _open_shard(step, exp, shard, len(samples), ctx) as opened:
        if opened.run is None:
            return False
        lost = _items(samples, step, exp, opened.run, ctx)
        opened.save(opened.record.model_copy(update={"state": "done", "lost": tuple(lost)}))
    return True


def _items(samples: Sequence[Sample], step: Step, exp: Experiment, run: RunDir, ctx: Context) -> Lost:
    if not samples:
        return []
    if step.stage == "cam":
        return cams_of(samples, step, exp, run, ctx)
    if step.stage == "relabel":
        return labels_of(samples, step, exp, run, ctx)
    return masks_of(samples, step, exp, run, ctx)


@contextlib.contextmanager
def _open_shard(step: Step, exp: Experiment, shard: Shard, items: int, ctx: Context) -> Iterator[ShardDir]:
    """Open a run directory, new or not, and hold a shard's lock while the body runs; its record says how it ends."""
    path = step.path
    make_folder(path)
    attempt = begin_attempt()
    with contextlib.ExitStack() as stack:
        with awaited(path / "LOCK", f"{path} is in use", ctx):
            run = read_or_create(path, step.kind, exp.preset, step.identity, step_inputs(step, exp), spread_of(exp))
            if run.done:
                yield ShardDir(None, ShardRecord(number=shard.number, of=shard.of, state="done"))
                return
            hold_to_division(path, shard)
            alone = not [other for other in shards_at_work(path) if other != shard]
            make_folder(shard.file(path, "lock").parent)
            stack.enter_context(locked(shard.file(path, "lock"), f"shard {shard} of {path} is in use"))
            if alone:
                remove_temporaries(path)
            if step.stage == "cam":
                prepare_cams(step, exp, run, ctx)
            earlier = read_shard(path, shard)
            attempts = earlier.attempts if earlier else ()
            record = ShardRecord(
                number=shard.number, of=shard.of, state="working", items=items, attempts=(*attempts, attempt)
            )
            opened = ShardDir(RunDir(path, run.record, str(shard.file(Path(), "log"))), record)
            opened.save(record)
        code = 0
        try:
            yield opened
        except BaseException as error:
            log_error(opened.run or run, error)
            state, code = ending_of(error)
            opened.record = opened.record.model_copy(update={"state": state})
            raise
        finally:
            ended = end_attempt(attempt, code)
            with contextlib.suppress(WriteError):
                opened.save(opened.record.model_copy(update={"attempts": (*attempts, ended)}))


def _complete(step: Step, exp: Experiment, ctx: Context) -> None:
    """Finish a run whose shards are all done, as the command without --shard does it.

    A shard that is made again meanwhile is not done, and looks here when it is.
    """
    told = False
    while all_done(read_shards(step.path)) and not is_whole(step.path):
        try:
            run_step(step, exp, ctx)
        except BusyError as error:
            told = told or say_waiting(error, ctx)
            pause(ctx)
        else:
            return


def _by_one(step: Step, exp: Experiment, ctx: Context) -> None:
    """Run a step that cannot be divided, or wait for the process that does.

    Raises:
        ResourceError: it failed there.
    """
    told = False
    while not is_whole(step.path):
        try:
            run_step(step, exp, ctx)
        except BusyError as error:
            told = told or say_waiting(error, ctx)
            while is_locked(step.path / "LOCK"):
                pause(ctx)
            if read_record(step.path).state == "failed":
                raise ResourceError(
                    f"{step.stage} failed in the process that this shard waited for",
                    f"its error is in {step.path / 'log.txt'}; run the same command again to try it",
                ) from error
        else:
            return
