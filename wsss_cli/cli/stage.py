"""What the stage commands share: preset with its overrides, dry run, running what is not done, the end of a command."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsss_cli.cli import console
from wsss_cli.errors import DataError, UsageError, WsssError
from wsss_cli.ranks.who import here
from wsss_cli.talk import counted, say

if TYPE_CHECKING:
    from wsss_cli.config.schema import Preset
    from wsss_cli.engine.context import Context
    from wsss_cli.inference.network import Network, Which
    from wsss_cli.stages.estimate import Took
    from wsss_cli.stages.outcome import Outcome
    from wsss_cli.stages.plan import Experiment, Plan, Step


def resolve(preset: str, overrides: Sequence[str] | None, data: str = "", **settings: Any) -> Preset:
    """The preset with --set, --data and the command's own options (dotted keys with __ for the dots) applied.

    Raises:
        UsageError: --set and an option of its own give a setting two values; or the preset is not valid.
    """
    from wsss_cli.config.load import load_preset

    options = as_toml({"dataset__path": data, **settings})
    for override in overrides or ():
        key, _, value = (part.strip() for part in override.partition("="))
        if key in options and value not in (options[key], options[key].strip('"')):
            raise UsageError(f"--set {override}: another option of the command says {options[key]}", "give one of them")
    return load_preset(preset, [*(overrides or ()), *(f"{key}={value}" for key, value in options.items())], console.say)


def as_toml(settings: Mapping[str, Any]) -> dict[str, str]:
    """The settings of a command's own options that were given, by dotted key."""
    return {key.replace("__", "."): _toml(value) for key, value in settings.items() if value not in (None, "")}


def newest_training(runs: Path) -> Path:
    """The newest finished training, which is said.

    Raises:
        UsageError: there is none.
    """
    from wsss_cli.scoring.results import newest_run

    run = newest_run(runs)
    console.say(f"newest finished training run: {run}")
    return run


def network_of(run: Path, ctx: Context, which: Which) -> Network:
    """A trained network (see `load_network`); of a trial that is said: what comes of it is not a result."""
    from wsss_cli.data.dataset import not_a_result
    from wsss_cli.inference.network import load_network

    network = load_network(run, ctx, which)
    if limit := network.preset.dataset.limit:
        console.say(f"{run} was trained with {not_a_result(limit)}")
    return network


def has_truth(preset: Preset) -> bool:
    """Whether a network can be scored: the data set's val split has masks."""
    from wsss_cli.data.dataset import open_dataset
    from wsss_cli.talk import silent

    return open_dataset(preset.dataset.path, silent, preset.dataset.limit).has_masks(preset.dataset.val)


def _toml(value: Any) -> str:
    """A text or number as TOML, which has no escapes of half characters and no bare DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def dry_run(
    preset: Preset,
    plan: Plan,
    runs: Path,
    device: str,
    json_output: bool,
    gpus: int = 1,
    loggers: Sequence[str] | None = None,
) -> None:
    """Say what would be done, what is done, and all that is known to go wrong; weight files alone load torch."""
    import typer

    from wsss_cli.stages import estimate
    from wsss_cli.stages.preflight import planned, problems, usable_device
    from wsss_cli.stages.sources import weights_read
    from wsss_cli.weights.sources import as_one

    exp, steps, faults = planned(preset, plan, runs)
    faults += problems(exp, steps, device, gpus)
    there, todo = bool(exp.dataset.classes), [step for step in steps if not step.done]
    faults += _refused(gpus if todo else 1, device, loggers or ())
    if not faults and (from_files := [step for step in todo if weights_read(step, exp.preset)]):
        faults += _unfit_weights(from_files, exp)
    took = {id(step): estimate.expected(exp, step, usable_device(device)) for step in todo}
    wanted, free = estimate.bytes_to_write(exp, todo), estimate.free_bytes(runs)
    if json_output:
        stages = []
        for step in steps:
            pace = took.get(id(step))
            known = {"seconds": round(pace.seconds), "as": str(pace.run)} if pace else {"seconds": None, "as": None}
            run = str(step.path) if there or step.done else None
            stages.append({"stage": step.stage, "done": step.done, "run": run, **({} if step.done else known)})
        object_ = {"preset": preset.model_dump(mode="json"), "stages": stages, "runs": str(runs)}
        object_ |= {"missing": "" if there else faults[0].message, "disk": {"bytes": wanted, "free": free}}
        object_ |= {"problems": [{"message": fault.message, "hint": fault.hint} for fault in faults]}
        console.result_json(object_)
    else:
        console.result(f"preset {preset.name} is valid; data set {preset.dataset.path}; runs go to {runs}")
        if not there:
            console.say("what is done cannot be told without the data set")
        for step in steps:
            line = f"done: {step.stage} ({step.path})" if step.done else f"would run: {step.stage}"
            console.result(line if step.done else f"{line}, {_in_time(took[id(step)])}")
        if todo:
            room = f"about {estimate.gigabytes(wanted)} to write, {estimate.gigabytes(free)} free in {runs}"
            console.result(f"disk: {room}")
    if not faults:
        return
    error = as_one(faults)
    if not json_output:
        raise error
    for line in error.message.splitlines():
        console.complain(f"error: {line}")
    raise typer.Exit(error.exit_code)


def _unfit_weights(steps: Sequence[Step], exp: Experiment) -> list[WsssError]:
    """Why weight files do not fit, read as before a training; empty: they do."""
    from wsss_cli.stages.pipeline import check_networks

    try:
        check_networks(steps, exp)
    except WsssError as error:
        return [error]
    return []


def _refused(gpus: int, device: str, loggers: Sequence[str]) -> Iterator[WsssError]:
    """What `perform` refuses of its own options."""
    from wsss_cli.engine.devices import check_ranks
    from wsss_cli.engine.loggers import check_loggers

    try:
        check_loggers(loggers)
        if gpus > 1:
            check_ranks(gpus, device)
    except UsageError as error:
        yield error


def _in_time(took: Took | None) -> str:
    from wsss_cli.stages.estimate import in_words

    if took is None:
        return "time unknown"
    return f"{in_words(took.seconds)} at the pace of {took.run}{f' ({took.device})' if took.device else ''}"


def ray_address(engine: str, address: str, gpus: int, shard: str, device: str) -> str | None:
    """The address of the Ray cluster that --engine ray means, empty where it is left out; None: there is none.

    Raises:
        UsageError: options that do not go together, or Ray is not installed.
    """
    if engine != "ray":
        if address:
            raise UsageError("--address is that of a Ray cluster", "it goes with --engine ray")
        return None
    if gpus > 1 or here().world > 1 or shard:
        raise UsageError(
            "--engine ray divides the images among its own workers", "leave out --gpus, --shard and torchrun"
        )
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--engine ray takes each GPU of the cluster, not --device {device}", "give --device cuda")
    from wsss_cli.engine.devices import check_ray

    check_ray()
    return address


def perform(
    preset: Preset,
    plan: Plan,
    runs: Path,
    device: str,
    gpus: int = 1,
    loggers: Sequence[str] | None = None,
    ray: str | None = None,
) -> Outcome:
    """Run what is not done of a plan, if nothing is known to go wrong; torch is loaded only where there is work.

    Args:
        gpus: ranks that are started for it here, where this process is none; they do all else, too.
        loggers: that trainings are sent on to.
        ray: as `ray_address` gives it.
    Raises:
        WsssError: what `dry_run` finds, all of it, before anything is done.
    """
    from wsss_cli.engine.loggers import check_loggers
    from wsss_cli.stages.outcome import outcome

    check_loggers(loggers or ())
    if here().world > 1:
        from wsss_cli.ranks.group import only_first
        from wsss_cli.stages.pipeline import run_steps

        with working(device, runs, loggers) as ctx:
            exp, steps = only_first(lambda: checked(preset, plan, runs, device))
            run_steps(steps, exp, ctx)
        return outcome(steps)
    exp, steps = checked(preset, plan, runs, device, gpus)
    if not all(step.done for step in steps):
        on_ranks(gpus, device)
    if not all(step.done for step in steps):
        from wsss_cli.stages.pipeline import run_steps

        with working(device, runs, loggers, ray) as ctx:
            run_steps(steps, exp, ctx)
    return outcome(steps)


def on_ranks(gpus: int, device: str) -> None:
    """End this process with what as many ranks of its command line end with, where it is none of several."""
    if gpus == 1 or here().world > 1:
        return
    import typer

    from wsss_cli.engine.devices import check_ranks

    check_ranks(gpus, device)
    from wsss_cli.ranks.launch import launch  # torch

    raise typer.Exit(launch(gpus))


def checked(preset: Preset, plan: Plan, runs: Path, device: str, ranks: int = 1) -> tuple[Experiment, list[Step]]:
    """The experiment of a preset and the steps of a plan, if nothing is known to go wrong.

    Args:
        ranks: that are to be started for its trainings.
    Raises:
        WsssError: all that is.
    """
    from wsss_cli.stages.preflight import planned, problems
    from wsss_cli.weights.sources import as_one

    exp, steps, faults = planned(preset, plan, runs)
    faults += problems(exp, steps, device, ranks)
    if faults:
        raise as_one(faults)
    if limit := preset.dataset.limit:
        console.say(f"limit {limit}: the first {counted(limit, 'photograph')} of each split alone")
    return exp, steps


@contextlib.contextmanager
def working(device: str, runs: Path, loggers: Sequence[str] | None = None, ray: str | None = None) -> Iterator[Context]:
    """A context whose stop flag listens to signals while the body works.

    Args:
        loggers: that trainings are sent on to.
        ray: address of a Ray cluster whose workers go through the images, see `ray_address`; None: this process does.
    """
    from wsss_cli.engine.context import make_context
    from wsss_cli.ranks.group import joined, look_at_others

    ctx = make_context(device, runs, console)
    ctx.loggers = tuple(dict.fromkeys(loggers or ()))
    if not here().rank:
        ctx.stop.tell = console.say_at_once
    with ctx.stop.listening(), joined(ctx.stop.check, say):
        if here().world > 1:
            ctx.stop.look = look_at_others
        if ray is None:
            yield ctx
            return
        from wsss_cli.engine.on_ray import ray_pool

        with ray_pool(ray, ctx.stop.check) as ctx.pool:
            yield ctx


def finish(path: str, skipped: bool, lost: Sequence[dict[str, str]], following: str, json_output: bool) -> None:
    """Close a command: where the results are, what comes next, and what was lost (exit code 3).

    The JSON object of the command is printed before; what is said here goes to stderr.
    """
    import typer

    from wsss_cli.data.dataset import not_a_result
    from wsss_cli.engine.records import limit_of

    console.say(f"{'already done' if skipped else 'done'}: {path}")
    if (page := Path(path) / "report.html").is_file():
        console.say(f"report: {page}")
    if limit := limit_of(Path(path)):
        console.say(not_a_result(limit))
    if skipped:
        from wsss_cli.stages.sources import compared

        console.say(f"compared: {compared(Path(path))}")
    if following:
        console.say(f"next: {following}")
    if not lost or here().rank:  # of several ranks the first says it, and ends with its code
        return
    for entry in lost[:5]:
        console.complain(f"lost {entry['id']}: {entry['reason']}")
    if len(lost) > 5:
        console.complain(f"... and {len(lost) - 5} more")
    count = f"{len(lost)} {'items were' if len(lost) > 1 else 'item was'} lost"
    error = DataError(
        f"{count}, the first: {lost[0]['id']}; all else is done",
        "repair or leave out what could not be used, then run the same command again: what is done is kept",
    )
    if not json_output:
        raise error
    console.complain(f"error: {error.message}")  # raised, it would become a second JSON object
    raise typer.Exit(error.exit_code)
