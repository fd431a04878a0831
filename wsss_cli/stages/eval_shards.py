"""An evaluation of a network that several jobs make together, a shard of the images each; the last one adds up.

What shards know of themselves, and what they have counted, lies in eval/ID/shards of the run, ID being that of the
evaluation: other weights, lists or settings have another one. It goes when the scores are written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from wsss_cli.engine.context import Context
from wsss_cli.engine.folders import make_folder
from wsss_cli.engine.records import Attempt
from wsss_cli.engine.rundir import begin_attempt, end_attempt, ending_of
from wsss_cli.engine.shards import (
    FOLDER,
    Shard,
    ShardRecord,
    hold_to_division,
    missing_shards,
    read_shard,
    read_shards,
    shards_at_work,
    write_shard,
)
from wsss_cli.engine.sweep import Lost
from wsss_cli.errors import DataError, WriteError
from wsss_cli.files import read_json, remove_temporaries
from wsss_cli.locks import locked
from wsss_cli.rows import Rows
from wsss_cli.scoring.counts import Counts
from wsss_cli.scoring.partial import SHARD_COUNTS, PartialCounts
from wsss_cli.scoring.stored import masks_changed
from wsss_cli.stages.evaluate import Evaluation, count_evaluation, forget_shards
from wsss_cli.stages.network_scores import in_order_of
from wsss_cli.stages.waiting import awaited


def run_eval_shard(evaluation: Evaluation, shard: Shard, ctx: Context) -> dict[str, Any] | None:
    """Count the images of a shard, and where no other is missing, write the scores of all, as `score` writes them.

    What is counted is not counted again, but that a shard which lost images tries all of its images once more.

    Returns:
        The scores, where they are there now; None: other shards are missing.
    Raises:
        BusyError: another process works at this shard.
        UsageError: the evaluation is divided by another number.
        WriteError: the disk is full, or the folder was removed.
    """
    with _open_shard(evaluation, shard, ctx) as attempts:
        if attempts is not None:
            _count(evaluation, shard, attempts, ctx)
    with _written(evaluation, ctx):
        scores = stored_scores(evaluation) or _add_up(evaluation, ctx)
        if scores is not None:
            forget_shards(evaluation)
        return scores


def stored_scores(evaluation: Evaluation) -> dict[str, Any] | None:
    """What eval.json holds where that is of this evaluation."""
    try:
        stored = read_json(evaluation.file) if evaluation.file.is_file() else {}
    except DataError:
        return None
    same = isinstance(stored, dict) and stored.get("evaluation") == evaluation.id
    if not same or masks_changed(evaluation.file, stored, evaluation.samples):
        return None
    return dict(stored)


@contextlib.contextmanager
def _written(evaluation: Evaluation, ctx: Context) -> Iterator[None]:
    """Hold what shards of the run hold while they begin, or add up."""
    with awaited(evaluation.lock, f"an evaluation of {evaluation.run} begins or ends", ctx):
        yield


@contextlib.contextmanager
def _open_shard(evaluation: Evaluation, shard: Shard, ctx: Context) -> Iterator[tuple[Attempt, ...] | None]:
    """Hold a shard while the body runs: its attempts, this one the last; None where there is nothing to do."""
    place = evaluation.place
    with contextlib.ExitStack() as stack:
        with _written(evaluation, ctx):
            if stored_scores(evaluation) is not None:
                yield None
                return
            hold_to_division(place, shard)
            make_folder(place / FOLDER)
            alone = not shards_at_work(place)
            stack.enter_context(locked(shard.file(place, "lock"), f"shard {shard} of {place} is in use"))
            if alone:
                remove_temporaries(place)
            earlier = read_shard(place, shard)
            if earlier and earlier.state == "done":
                if not earlier.lost and _counts_of(evaluation, shard).fill(_fresh(evaluation)):
                    yield None
                    return
                shard.file(place, SHARD_COUNTS).unlink(missing_ok=True)
            attempts = (*(earlier.attempts if earlier else ()), begin_attempt())
            write_shard(place, ShardRecord(number=shard.number, of=shard.of, state="working", attempts=attempts))
        yield attempts


def _count(evaluation: Evaluation, shard: Shard, attempts: tuple[Attempt, ...], ctx: Context) -> None:
    place, every = evaluation.place, evaluation.samples
    samples = Rows(every, [number for number, sample in enumerate(every) if shard.has(sample.id)])
    record = ShardRecord(number=shard.number, of=shard.of, state="working", items=len(samples), attempts=attempts)

    def ended(code: int, **changes: Any) -> ShardRecord:
        last = end_attempt(attempts[-1], code)
        return record.model_copy(update={"attempts": (*attempts[:-1], last), **changes})

    write_shard(place, record)
    counts, lost = _counts_of(evaluation, shard), Lost()
    try:
        if samples:
            _, lost = count_evaluation(evaluation, samples, counts, ctx)
        else:
            counts.write(_fresh(evaluation), [], [], set())
    except BaseException as error:
        state, code = ending_of(error)
        with contextlib.suppress(WriteError):
            write_shard(place, ended(code, state=state))
        raise
    write_shard(place, ended(0, state="done", lost=tuple(lost)))


def _counts_of(evaluation: Evaluation, shard: Shard) -> PartialCounts:
    return PartialCounts(shard.file(evaluation.place, SHARD_COUNTS), evaluation.counted_key, whole=True)


def _fresh(evaluation: Evaluation) -> dict[str, Counts]:
    return evaluation.options.fresh(evaluation.dataset.num_classes)


def _add_up(evaluation: Evaluation, ctx: Context) -> dict[str, Any] | None:
    """Write the scores where the shards of one division are all done; None where none is."""
    place = evaluation.place
    records = read_shards(place)
    whole = [of for of in sorted({record.of for record in records}) if not missing_shards(records, of)]
    if not whole:
        return None
    total, lost = _fresh(evaluation), Lost()
    for record in (record for record in records if record.of == whole[0]):
        counts, file = _fresh(evaluation), record.shard.file(place, SHARD_COUNTS)
        if not _counts_of(evaluation, record.shard).fill(counts):
            ctx.ui.say(f"{file} is gone or damaged: shard {record.shard} is to be counted again")
            record.shard.file(place, "json").unlink(missing_ok=True)
            return None
        for mode, count in counts.items():
            total[mode].merge(count)
        lost += [{"id": entry["id"], "reason": entry["reason"]} for entry in record.lost]
    if evaluation.all_lost(lost):
        for record in records:  # they are to be tried again
            for name in ("json", SHARD_COUNTS):
                record.shard.file(place, name).unlink(missing_ok=True)
    return evaluation.write(total, in_order_of(evaluation.samples, lost), ctx)
