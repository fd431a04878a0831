"""What the stage commands share: preset with its overrides, dry run, running what is not done, the end of a command."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsss_cli.cli import console
from wsss_cli.errors import DataError

if TYPE_CHECKING:
    from wsss_cli.config.schema import Preset
    from wsss_cli.engine.context import Context
    from wsss_cli.stages.plan import Experiment, Outcome, Step

    Plan = Callable[[Experiment], list[Step]]


def resolve(preset: str, overrides: Sequence[str] | None, data: str = "", **settings: Any) -> Preset:
    """The preset with --set, --data and the command's own options (dotted keys with __ for the dots) applied."""
    from wsss_cli.config.load import load_preset

    options = [
        f"{key.replace('__', '.')}={json.dumps(value)}" for key, value in settings.items() if value not in (None, "")
    ]
    where = [f"dataset.path={json.dumps(data)}"] if data else []
    return load_preset(preset, [*(overrides or ()), *where, *options], console.say)


def dry_run(preset: Preset, plan: Plan, runs: Path, json_output: bool) -> None:
    """Say what would be done and what is done, without loading torch."""
    from wsss_cli.stages.plan import planned_experiment

    exp, missing = planned_experiment(preset, runs)
    steps = plan(exp)
    if json_output:
        stages = [
            {"stage": step.stage, "done": step.done, "run": None if missing and not step.done else str(step.path)}
            for step in steps
        ]
        object_ = {"preset": preset.model_dump(mode="json"), "stages": stages, "runs": str(runs), "missing": missing}
        console.result_json(object_)
        return
    console.result(f"preset {preset.name} is valid; data set {preset.dataset.path}; runs go to {runs}")
    if missing:
        console.say(f"{missing}: what is done cannot be told without it")
    for step in steps:
        console.result(f"done: {step.stage} ({step.path})" if step.done else f"would run: {step.stage}")


def perform(preset: Preset, plan: Plan, runs: Path, device: str) -> Outcome:
    """Run what is not done of a plan; torch is loaded only where there is something to do."""
    from wsss_cli.stages.plan import open_experiment, outcome

    exp = open_experiment(preset, runs)
    steps = plan(exp)
    if not all(step.done for step in steps):
        from wsss_cli.stages.pipeline import run_steps

        with working(device, runs) as ctx:
            run_steps(steps, exp, ctx)
    return outcome(steps)


@contextlib.contextmanager
def working(device: str, runs: Path) -> Iterator[Context]:
    """A context whose stop flag listens to signals while the body works."""
    from wsss_cli.engine.context import make_context

    ctx = make_context(device, runs, console)
    ctx.stop.tell = console.say_at_once
    with ctx.stop.listening():
        yield ctx


def finish(path: str, skipped: bool, lost: Sequence[dict[str, str]], following: str, json_output: bool) -> None:
    """Close a command: where the results are, what comes next, and what was lost (exit code 3).

    The JSON object of the command is printed before; what is said here goes to stderr.
    """
    import typer

    console.say(f"{'already done' if skipped else 'done'}: {path}")
    if following:
        console.say(f"next: {following}")
    if not lost:
        return
    for entry in lost[:5]:
        console.say(f"lost {entry['id']}: {entry['reason']}")
    if len(lost) > 5:
        console.say(f"... and {len(lost) - 5} more")
    count = f"{len(lost)} {'items were' if len(lost) > 1 else 'item was'} lost"
    error = DataError(
        f"{count}, the first: {lost[0]['id']}; all others are done",
        "repair or leave out what could not be used, then run the same command again: what is done is kept",
    )
    if not json_output:
        raise error
    console.say(f"error: {error.message}")
    raise typer.Exit(error.exit_code)
