"""The run directory of a step, opened by the first rank for all of them, and what all of them are to work on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from wsss_cli.data.dataset import Sample
from wsss_cli.engine.records import Inputs, is_run, read_inputs
from wsss_cli.engine.rundir import Follower, RunDir, open_run
from wsss_cli.ranks.group import only_first
from wsss_cli.ranks.who import here, works_alone
from wsss_cli.rows import Rows
from wsss_cli.stages.paths import Files, spread_for
from wsss_cli.stages.plan import Experiment, Step
from wsss_cli.stages.trusted import in_words, own_labels, trusted_by

Held = TypeVar("Held")
Item = TypeVar("Item")
Value = TypeVar("Value")


@contextlib.contextmanager
def open_step(step: Step, exp: Experiment) -> Iterator[RunDir]:
    """The run directory of a step, locked; see `open_run`. The first rank opens it, the others wait and follow."""
    inputs, spread = step_inputs(step, exp), spread_of(exp)
    opening = open_run(step.path, step.kind, exp.preset, step.identity, inputs, spread)
    with held_by_first(opening, lambda run: run.record) as (run, record):
        yield Follower(step.path, record) if run is None else run


@contextlib.contextmanager
def held_by_first(
    opening: AbstractContextManager[Held], told: Callable[[Held], Value]
) -> Iterator[tuple[Held | None, Value]]:
    """What only one process may hold, entered and left by the first rank; the others wait for both.

    Args:
        told: what the others are told of it.
    Returns:
        (what was entered, None on other ranks; what was told).
    """
    if here().rank == 0 or works_alone():
        with opening as held:
            value = only_first(lambda: told(held))
            yield held, value
    else:
        yield None, only_first(_nothing)
    only_first(lambda: None)  # what it holds is written


def agreed(items: Sequence[Item], numbers: Callable[[], Any]) -> Rows[Item]:
    """Some of the items, as the first rank numbers them: others look later, when some of what is to do is done."""
    return Rows(items, only_first(numbers))


def not_there(samples: Sequence[Sample], files: Files) -> Rows[Sample]:
    """Samples that do not have their file yet, the same on all ranks."""
    return agreed(samples, lambda: files.without_file(samples).numbers)


def spread_of(exp: Experiment) -> int:
    """How the files of images are spread in new runs."""
    return spread_for(len(exp.dataset.split(exp.preset.dataset.train)))


def step_inputs(step: Step, exp: Experiment) -> Inputs:
    """What a step reads, for its inputs.json."""
    dataset = exp.dataset
    runs: dict[str, Any] = {f"{read.kind}_run": str(read.path) for read in step.reads}
    runs |= {f"{read.kind}_identity": read.identity for read in step.reads}
    teachers = [read_inputs(read.path).teacher for read in step.reads if is_run(read.path)]
    trusted, words = _labels_of(step, exp)
    return Inputs(
        dataset=str(dataset.root),
        dataset_name=dataset.name,
        dataset_fingerprint=dataset.fingerprint,
        split_sha256=dataset.split_sha256,
        classes=dataset.classes,
        colors=dataset.colors,
        protocol=dataset.protocol,
        trusted=trusted,
        trusted_words=words,
        teacher=", ".join(dict.fromkeys(filter(None, teachers))),
        limit=dataset.limit,
        **runs,
    )


def _labels_of(step: Step, exp: Experiment) -> tuple[str, str]:
    """Fingerprint and words of the data set's own labels that the masks of a step, or those it reads, have in them."""
    if fingerprint := trusted_by(exp.preset, exp.dataset, step.stage):
        return fingerprint, in_words(own_labels(exp.dataset), exp.dataset, exp.preset.dataset.train)
    for read in step.reads:
        if is_run(read.path) and (inputs := read_inputs(read.path)).trusted:
            return inputs.trusted, inputs.trusted_words
    return "", ""


def _nothing() -> Any:
    """What another rank than the first is never asked for."""
    raise AssertionError
