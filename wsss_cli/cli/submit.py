"""`wsss submit`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wsss_cli.cli import console, stage
from wsss_cli.cli.following import refuse_useless
from wsss_cli.cli.options import JsonOption
from wsss_cli.errors import UsageError
from wsss_cli.talk import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsss_cli.stages.jobs import Job

NAME = re.compile(r"[\w.,@:+-]*[\w.@:+]")  # of partitions, comma between several, and accounts
SIZE = re.compile(r"[0-9]{1,12}[KMGTkmgt]?")
OWN = {  # options of sbatch that follow from the plan, or have an option of this command
    **dict.fromkeys(("job-name", "nodes", "ntasks-per-node", "signal", "requeue", "open-mode", "output", "error"), ""),
    **dict.fromkeys(("dependency", "kill-on-invalid-dep", "array"), ""),
    **{name: f"--{name}" for name in ("time", "mem", "partition", "account")},
    "gpus-per-node": "--gpus",
    "cpus-per-task": "--cpus",
}

OF_SLURM = ("--partition", "--time", "--cpus", "--mem", "--account", "--extra", "--logs")


def submit(
    ctx: typer.Context,
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND", help="The command whose stages are submitted.")],
    partition: Annotated[str, typer.Option(metavar="NAME", help="Slurm partition.")] = "",
    gpus: Annotated[
        int, typer.Option(metavar="N", min=0, max=256, help="GPUs of a training; other jobs have one. 0: none.")
    ] = 1,
    shards: Annotated[
        int, typer.Option(metavar="N", min=1, max=10_000, help="Tasks of the arrays that make CAMs and pseudo masks.")
    ] = 1,
    time: Annotated[
        str, typer.Option(metavar="TIME", help="Of a job until it is queued again: minutes, H:MM:SS or D-HH:MM:SS.")
    ] = "24:00:00",
    cpus: Annotated[
        int, typer.Option(metavar="N", min=0, max=1024, help="CPUs for each GPU of a job; 0: as Slurm gives them.")
    ] = 0,
    mem: Annotated[str, typer.Option(metavar="SIZE", help="Memory of a job, as 64G.")] = "",
    account: Annotated[str, typer.Option(metavar="NAME", help="Slurm account.")] = "",
    extra: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="A further option of sbatch; repeatable.")
    ] = None,
    logs: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of scripts and logs; RUNS/submit if left out.")
    ] = None,
    local: Annotated[
        bool, typer.Option("--local", help="Run the jobs here, one after another, without Slurm.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the batch scripts and submit nothing.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Submit the stages of a preset to Slurm, a job each, which wait for those that they need.

    \b
    wsss submit --partition gpu --gpus 4 --shards 8 -- run --preset deeplabv3p-r101-coco-weak
    wsss submit --dry-run --gpus 2 -- run --preset toy
    wsss submit --local -- run --preset toy --set train.iters=20
    wsss submit --partition gpu --extra constraint=a100 --extra exclusive -- run --preset toy --until pseudo

    Trainings are one job each on --gpus GPUs; with --shards CAMs and pseudo masks are arrays. What is done is not
    submitted. A job that is preempted, or whose time ends, is queued again and goes on where it stood. Where one fails,
    those after it are cancelled; the same command again submits what is not done. Needs submitit
    (pip install 'wsss[slurm]'), but for --local and --dry-run.
    """
    if local:
        refuse_useless(OF_SLURM, "for jobs of Slurm only, and --local runs them here")
    from wsss_cli.engine.loggers import check_loggers
    from wsss_cli.stages import jobs as planning

    for option, name in (("--partition", partition), ("--account", account)):
        if name and not NAME.fullmatch(name):
            raise UsageError(
                f"{option} {name!r}: this is no name that Slurm takes", f"as in {option} gpu: no spaces, no quotes"
            )
    if mem and not SIZE.fullmatch(mem):
        raise UsageError(
            f"--mem {mem!r}: this is no amount of memory",
            "a whole number of megabytes, or one with K, M, G or T: --mem 64G",
        )
    resources = planning.Resources(gpus, shards, _minutes(time), cpus, mem, partition, account, _extras(extra or ()))
    arguments, settings = _run_command(ctx, command)
    from wsss_cli.cli.run import plan_of, preset_of

    runs: Path = settings["runs"]
    check_loggers(settings["loggers"] or ())
    preset = preset_of(settings)
    device = settings["device"] if local else "cpu"  # the machine that submits need not have what jobs ask for
    _, steps = stage.checked(preset, plan_of(settings["until"]), runs, device, gpus)
    jobs = planning.jobs_of(steps, arguments, resources)
    if not jobs:
        if json_output:
            console.result_json({"jobs": []})
        console.say(f"nothing to submit, all is done: {steps[-1].path}")
    elif dry_run:
        _print_scripts(jobs, resources, json_output)
    elif local:
        _run_here(jobs, json_output)
    else:
        _submit(jobs, resources, logs or runs / "submit", json_output)


def _run_command(ctx: typer.Context, command: list[str]) -> tuple[list[str], dict[str, Any]]:
    """The arguments of `wsss run`, and what they say."""
    if command[0] != "run":
        raise UsageError(
            f"wsss submit {command[0]}: only run is submitted",
            "wsss submit -- run --preset NAME, with --until cam or --until pseudo for less",
        )
    root = ctx.find_root()
    run: Any = root.command.get_command(root, "run")  # type: ignore[attr-defined]
    settings = run.make_context("run", command[1:], parent=root).params
    for option, key in (("--gpus", "gpus"), ("--dry-run", "dry_run"), ("--json", "json_output")):
        if settings[key] != (1 if key == "gpus" else False):
            raise UsageError(f"{option} is an option of submit", f"wsss submit {option} ... -- run ...")
    return _without_until(command[1:]), settings


def _without_until(words: Sequence[str]) -> list[str]:
    """Arguments without --until, of which each job has its own."""
    left, words = [], list(words)
    while words:
        word = words.pop(0)
        if word == "--until":
            words.pop(0)
        elif not word.startswith("--until="):
            left.append(word)
    return left


def _minutes(time: str) -> int:
    """The minutes, rounded up, that `time` says as Slurm's --time does: M, M:S, H:M:S, D-H, D-H:M or D-H:M:S."""
    days, dash, clock = time.rpartition("-")
    parts = clock.split(":")
    fields = [days, *parts] if dash else parts
    if len(parts) > 3 or not all(part.isascii() and part.isdigit() and len(part) < 8 for part in fields):
        raise UsageError(f"--time {time}: this is no time that Slurm takes", "minutes, H:MM:SS or D-HH:MM:SS")
    numbers = [int(part) for part in parts]
    if dash or len(numbers) == 3:
        hours, minutes, seconds = [*numbers, 0, 0][:3]
    else:
        hours, (minutes, seconds) = 0, [*numbers, 0][:2]
    total = ((int(days or 0) * 24 + hours) * 60 + minutes) + (seconds + 59) // 60
    if total < 1:
        raise UsageError(f"--time {time}: a job needs a minute at least", "give more")
    return total


def _extras(texts: Sequence[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    for name, value in map(_extra, texts):
        if name in options:
            raise UsageError(f"--extra {name}: given twice", "give it once; sbatch takes one value of an option")
        options[name] = value
    return options


def _extra(text: str) -> tuple[str, str]:
    """(name, value) of an option of sbatch; a flag's value is empty."""
    name, _, value = text.removeprefix("--").partition("=")
    if any(character.isspace() for character in value):
        raise UsageError(f"--extra {text}: its value has a blank, which batch scripts take apart", "write it without")
    if not name.replace("-", "").isalnum():
        raise UsageError(
            f"--extra {text}: sbatch has no option that looks like this",
            "--extra constraint=a100, or --extra exclusive",
        )
    if name in OWN:
        raise UsageError(f"--extra {name}: wsss submit sets it", f"give {OWN[name]}" if OWN[name] else "leave it out")
    return name, value


def _print_scripts(jobs: Sequence[Job], resources: Any, json_output: bool) -> None:
    from wsss_cli.stages.jobs import script

    if json_output:
        console.result_json(
            {
                "jobs": [
                    {
                        "name": job.name,
                        "after": list(job.after),
                        "tasks": len(job.tasks),
                        "script": script(job, resources),
                    }
                    for job in jobs
                ]
            }
        )
        return
    for job in jobs:
        console.result(f"# {job.name}\n{script(job, resources)}\n")
    console.say(f"{counted(len(jobs), 'job')}; nothing was submitted")


def _submit(jobs: Sequence[Job], resources: Any, logs: Path, json_output: bool) -> None:
    from wsss_cli.stages.submit import Submitted, check_slurm, submit

    def tell(job: Submitted) -> None:
        if not json_output:
            console.result(f"{job.id}  {job.name}  {job.log}")

    check_slurm()
    submitted = submit(jobs, resources, logs, tell)
    if json_output:
        console.result_json({"jobs": [{"name": job.name, "id": job.id, "log": job.log} for job in submitted]})
    console.say(
        f"{counted(len(submitted), 'job')} submitted; squeue -j {','.join(job.id for job in submitted)}; wsss runs list"
    )


def _run_here(jobs: Sequence[Job], json_output: bool) -> None:
    """Run jobs here, and end with the exit code of the first that did not end with 0."""
    from wsss_cli.engine.stop import Stop
    from wsss_cli.stages.task_work import run_here

    with Stop(console.say_at_once).listening() as stop:
        codes = run_here(jobs, stop, quiet=json_output)
    states = {}
    for job in jobs:
        code, there = codes.get(job.name), all(task.done for task in job.tasks)
        ending = "done" if code == 0 else "done without what was lost" if there else f"failed with exit code {code}"
        states[job.name] = "not begun" if code is None else ending
        log = job.tasks[0].run / "log.txt"
        if not json_output:
            console.say(f"{job.name}: {states[job.name]}" + (f" ({log})" if code is not None else ""))
    if json_output:
        runs = {job.name: str(job.tasks[0].run) for job in jobs}
        console.result_json({"jobs": [{"name": name, "state": states[name], "run": runs[name]} for name in runs]})
    if code := next((code for code in codes.values() if code), 0):
        raise typer.Exit(code)
