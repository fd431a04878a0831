"""The steps of a plan as jobs of a scheduler: what each runs, on what, after which others. Nothing here loads torch."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wsss_cli.engine.outputs import is_whole
from wsss_cli.engine.shards import Shard, read_shard
from wsss_cli.errors import DataError, UsageError
from wsss_cli.scoring.results import finished_eval
from wsss_cli.stages.plan import TRAININGS, Step, in_order

DIVIDED = ("cam", "pseudo")
SIGNAL_S = 120  # before the end of its time a job is told to save


@dataclass(frozen=True)
class Task:
    """One command of a job.

    Attributes:
        arguments: of `wsss`.
        kind, run: of the step that it makes.
        shard: the part of that step; None: all of it.
    """

    arguments: tuple[str, ...]
    kind: str
    run: Path
    shard: Shard | None = None

    @property
    def done(self) -> bool:
        """Whether what it makes is there, lost items or not."""
        try:
            if self.kind == "eval":
                return finished_eval(self.run, ms_flip=True) is not None
            record = None if self.shard is None else read_shard(self.run, self.shard)
            return is_whole(self.run) or (record is not None and record.state == "done")
        except (DataError, UsageError):
            return False


@dataclass(frozen=True)
class Job:
    """A step of a plan: one task, or as many as there are shards, which are an array.

    Attributes:
        name: of the step, see `names`.
        after: names of the jobs that are to end well before it begins.
    """

    name: str
    tasks: tuple[Task, ...]
    gpus: int
    after: tuple[str, ...]


@dataclass(frozen=True)
class Resources:
    """What jobs ask a scheduler for.

    Attributes:
        gpus: of a training; other jobs have one. 0: none at all.
        shards: tasks of the array that a step with many images is divided among.
        minutes: that a job may take, until it is stopped and queued again.
        cpus: for each GPU of a job, or of a job without one.
        memory: of a job, in Slurm's words.
        extra: further options of sbatch, by name.
    """

    gpus: int = 1
    shards: int = 1
    minutes: int = 1440
    cpus: int = 0
    memory: str = ""
    partition: str = ""
    account: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)


def names(steps: Sequence[Step]) -> dict[str, Step]:
    """All steps of a plan and before it, done or not, each after those that it reads.

    By stage; the second one of a stage is `train-2`.
    """
    by_name: dict[str, Step] = {}
    counts: Counter[str] = Counter()

    def add(step: Step) -> None:
        if step in by_name.values():
            return
        for read in step.reads:
            add(read)
        counts[step.stage] += 1
        number = counts[step.stage]
        by_name[step.stage if number == 1 else f"{step.stage}-{number}"] = step

    for step in steps:
        add(step)
    return by_name


def until(steps: Sequence[Step], name: str) -> list[Step]:
    """What is to be made of a plan for one of its steps, that one last.

    Raises:
        UsageError: the plan has no such step.
    """
    by_name = names(steps)
    if name not in by_name:
        raise UsageError(f"--until {name}: this preset has no such step", f"choose of {', '.join(by_name)}")
    return in_order([by_name[name]])


def jobs_of(steps: Sequence[Step], arguments: Sequence[str], resources: Resources) -> list[Job]:
    """A job for each step that is not done, in an order in which they can run.

    Args:
        arguments: of `wsss run`, and of `wsss cam` and `wsss pseudo`, which take the same.
    """
    by_name = names(steps)
    todo = [step for step in steps if not step.done]
    jobs = []
    for name, step in by_name.items():
        if step not in todo:
            continue
        after = tuple(other for other, read in by_name.items() if read in step.reads and read in todo)
        gpus = resources.gpus if step.stage in TRAININGS else min(resources.gpus, 1)
        if step.stage in DIVIDED and resources.shards > 1:
            shards = [Shard(number, resources.shards) for number in range(1, resources.shards + 1)]
            tasks = [
                Task((step.stage, *arguments, "--shard", str(shard)), step.kind, step.path, shard) for shard in shards
            ]
        else:
            ranks = ("--gpus", str(gpus)) if gpus > 1 else ()
            tasks = [Task(("run", *arguments, "--until", name, *ranks), step.kind, step.path)]
        jobs.append(Job(name, tuple(tasks), gpus, after))
    return jobs


def sbatch_options(job: Job, resources: Resources, after: Sequence[str]) -> dict[str, str]:
    """What sbatch is told of a job, by option, but for logs and the array.

    Args:
        after: ids of the jobs that are to end well before it.
    """
    options = {
        "job-name": f"wsss-{job.name}",
        "time": str(resources.minutes),
        "nodes": "1",
        "ntasks-per-node": "1",
        "signal": f"USR2@{SIGNAL_S}",
        "requeue": "",
        "open-mode": "append",
    }
    if job.gpus:
        options["gpus-per-node"] = str(job.gpus)
    if resources.cpus:
        options["cpus-per-task"] = str(resources.cpus * max(job.gpus, 1))
    for name, value in (("mem", resources.memory), ("partition", resources.partition), ("account", resources.account)):
        if value:
            options[name] = value
    if after:
        options |= {"dependency": f"afterok:{':'.join(after)}", "kill-on-invalid-dep": "yes"}
    return options | dict(resources.extra)


def script(job: Job, resources: Resources) -> str:
    """The batch script of a job, to be read: submitit's own has the same options, and starts the same command by way of
    Python, so that it can be queued again."""
    options = sbatch_options(job, resources, [f"<{name}>" for name in job.after])
    words = [shlex.quote(word) for word in job.tasks[0].arguments]
    if len(job.tasks) > 1:
        options["array"] = f"0-{len(job.tasks) - 1}"
        words[-1] = f"$((SLURM_ARRAY_TASK_ID + 1))/{len(job.tasks)}"
    lines = [f"#SBATCH --{name}" + (f"={value}" if value else "") for name, value in options.items()]
    return "\n".join(["#!/bin/bash", *lines, f"srun wsss {' '.join(words)}"])
