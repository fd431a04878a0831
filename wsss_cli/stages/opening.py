"""The run directory of a step, opened: by the first rank, for all of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from wsss_cli.engine.records import Inputs
from wsss_cli.engine.rundir import Follower, RunDir, open_run
from wsss_cli.ranks.group import only_first
from wsss_cli.ranks.who import here, works_alone
from wsss_cli.stages.paths import spread_for
from wsss_cli.stages.plan import Experiment, Step


@contextlib.contextmanager
def open_step(step: Step, exp: Experiment) -> Iterator[RunDir]:
    """The run directory of a step, locked; see `open_run`. The first rank opens it, the others wait and follow."""
    inputs, spread = step_inputs(step, exp), spread_of(exp)
    if works_alone():
        with open_run(step.path, step.kind, exp.preset, step.identity, inputs, spread) as run:
            yield run
        return
    if here().rank == 0:
        with open_run(step.path, step.kind, exp.preset, step.identity, inputs, spread) as run:
            only_first(lambda: run.record)
            yield run
    else:
        yield Follower(step.path, only_first(_nothing))
    only_first(lambda: None)  # what the run holds is written


def spread_of(exp: Experiment) -> int:
    """How the files of images are spread in new runs."""
    return spread_for(len(exp.dataset.split(exp.preset.dataset.train)))


def step_inputs(step: Step, exp: Experiment) -> Inputs:
    """What a step reads, for its inputs.json."""
    dataset = exp.dataset
    runs: dict[str, Any] = {f"{read.kind}_run": str(read.path) for read in step.reads}
    runs |= {f"{read.kind}_identity": read.identity for read in step.reads}
    return Inputs(
        dataset=str(dataset.root),
        dataset_name=dataset.name,
        dataset_fingerprint=dataset.fingerprint,
        split_sha256=dataset.split_sha256,
        classes=dataset.classes,
        colors=dataset.colors,
        protocol=dataset.protocol,
        **runs,
    )


def _nothing() -> Any:
    """What another rank than the first is never asked for."""
    raise AssertionError
