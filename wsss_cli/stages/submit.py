"""Jobs handed to Slurm, by submitit. Nothing here loads torch."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsss_cli.errors import ResourceError, UsageError
from wsss_cli.stages.jobs import SIGNAL_S, Job, Resources, sbatch_options
from wsss_cli.stages.task_work import MOST_RESTARTS, Work

WRITTEN_BY_SUBMITIT = ("time", "signal", "open-mode")
HINT = "wsss submit --local runs the plan on this machine; docs/how-to/slurm.md has scripts that need neither"


@dataclass(frozen=True)
class Submitted:
    """A job that Slurm has taken.

    Attributes:
        id: Slurm's; of an array that of the whole.
        log: file of what the job says; of an array that of its first task.
    """

    name: str
    id: str
    log: str


def check_slurm() -> None:
    """See that jobs can be handed to Slurm from here.

    Raises:
        UsageError: submitit is not installed.
        ResourceError: Slurm is not.
    """
    try:
        import submitit  # noqa: F401
    except ImportError:
        raise UsageError(
            "wsss submit needs submitit, which is not installed", f"pip install 'wsss[slurm]'; {HINT}"
        ) from None
    for command in ("sbatch", "srun", "scontrol"):
        if shutil.which(command) is None:
            raise ResourceError(f"there is no Slurm here: {command} is not on the PATH", HINT)


def submit(
    jobs: Sequence[Job], resources: Resources, logs: Path, tell: Callable[[Submitted], object]
) -> list[Submitted]:
    """Hand jobs to Slurm, each to begin when those that it needs have ended well, and cancelled where one fails.

    Args:
        logs: folder for scripts and logs, which all machines see.
        tell: told of each job.
    Raises:
        ResourceError: Slurm refused one; those before stay.
    """
    submitted: dict[str, Submitted] = {}
    for job in jobs:
        after = [submitted[name].id for name in job.after]
        try:
            submitted[job.name] = _submit(job, resources, logs, after)
        except (RuntimeError, OSError, ValueError, subprocess.SubprocessError) as error:
            fault = next((line for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
            before = " ".join(each.id for each in submitted.values())
            hint = f"the jobs before it stay; to take them back: scancel {before}" if before else HINT
            raise ResourceError(f"Slurm did not take job {job.name}: {fault.strip()}", hint) from error
        tell(submitted[job.name])
    return list(submitted.values())


def _submit(job: Job, resources: Resources, logs: Path, after: Sequence[str]) -> Submitted:
    from submitit import SlurmExecutor

    executor: Any = SlurmExecutor(logs, max_num_timeout=MOST_RESTARTS)  # a method of which is replaced
    executor._get_job_id_from_submission_command = job_number  # submitit's own takes the first "job 7" of any line
    options: dict[str, Any] = sbatch_options(job, resources, after)
    more = {name.replace("-", "_"): value or True for name, value in options.items() if name not in WRITTEN_BY_SUBMITIT}
    executor.update_parameters(
        time=resources.minutes,
        signal_delay_s=SIGNAL_S,
        stderr_to_stdout=True,
        array_parallelism=len(job.tasks),
        additional_parameters=more,
    )
    parts = executor.submit_array([Work(task, Path.cwd()) for task in job.tasks])
    return Submitted(job.name, str(parts[0].job_id).partition("_")[0], str(parts[0].paths.stdout))


def job_number(said: str | bytes) -> str:
    """The number in sbatch's own line, whatever a site prints before and after it.

    Raises:
        ValueError: there is no such line.
    """
    text = said.decode(errors="replace") if isinstance(said, bytes) else said
    numbers = re.findall(r"^Submitted batch job (\d+)", text, re.MULTILINE)
    if not numbers:
        raise ValueError(f"sbatch named no job, it said {' '.join(text.split())!r}")
    return str(numbers[-1])
