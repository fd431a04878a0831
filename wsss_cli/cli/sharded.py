"""Commands with --shard: part of the images of a run, beside processes that make the others."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from wsss_cli.cli import console, stage
from wsss_cli.errors import UsageError
from wsss_cli.ranks.who import here

if TYPE_CHECKING:
    from wsss_cli.config.schema import Preset
    from wsss_cli.engine.shards import Shard
    from wsss_cli.stages.outcome import Outcome
    from wsss_cli.stages.plan import Plan


def chosen(text: str, gpus: int) -> Shard | None:
    """The shard that --shard means; None: the option is left out."""
    from wsss_cli.engine.shards import parse_shard

    if not text:
        return None
    if gpus > 1 or here().world > 1:
        raise UsageError(
            "--shard divides images among jobs, each a single process; there are several ranks",
            "leave --gpus out, and start each job without torchrun and with one task",
        )
    return parse_shard(text, os.environ)


def perform(preset: Preset, plan: Plan, runs: Path, device: str, shard: Shard, json_output: bool) -> Outcome:
    """Make a shard of the last step of a plan. Where others are missing, say so and end the command.

    Raises:
        WsssError: all that is known to fail, before anything is done.
    """
    from wsss_cli.engine.outputs import is_whole
    from wsss_cli.stages.outcome import outcome

    exp, steps = stage.checked(preset, plan, runs, device)
    last = steps[-1]
    if is_whole(last.path):
        if not last.done:
            console.say("the run is done; its lost images are tried again without --shard")
        return outcome(steps)
    from wsss_cli.stages.shards import run_shard

    with stage.working(device, runs) as ctx:
        run_shard(steps, exp, shard, ctx)
    if is_whole(last.path):
        return outcome(steps)
    return end(last.path, last.path, shard, json_output)


def end(run: Path, place: Path, shard: Shard, json_output: bool) -> NoReturn:
    """End a command whose shard is done, where others are missing.

    Args:
        place: the folder whose `shards` they are.
    """
    import typer

    from wsss_cli.engine.shards import how_many_done, missing_shards, read_shards

    records = read_shards(place)
    lost = [
        {"id": entry["id"], "reason": entry["reason"]} for one in records if one.shard == shard for entry in one.lost
    ]
    if json_output:
        missing = missing_shards(records, shard.of)
        console.result_json({"run": str(run), "shard": str(shard), "missing": missing, "lost": lost})
    console.say(how_many_done(records, shard.of))
    stage.finish(f"shard {shard} of {run}", False, lost, "", json_output)
    raise typer.Exit
