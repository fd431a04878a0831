"""Several rounds of training: each but the first on the masks that the network before it makes."""

from __future__ import annotations

from pathlib import Path

from wsss_cli.config.schema import Preset
from wsss_cli.engine.context import Context
from wsss_cli.stages.relabel import run_relabel
from wsss_cli.stages.train import run_train
from wsss_cli.stages.upstream import Result


def run_rounds(preset: Preset, ctx: Context, masks: Path | None = None) -> Result:
    """Train `preset.rounds` times; every training and relabelling that is done is skipped.

    Args:
        masks: the pseudo run of the first training; by default that of the preset.
    Returns:
        The last training, with all items that a round lost.
    """
    made = run_train(preset, ctx, masks)
    lost = list(made.lost)
    rounds = preset.rounds
    if preset.train.supervision == "full" and rounds > 1:
        ctx.ui.say("full supervision: true masks need no further round, so there is one")
        rounds = 1
    for number in range(2, rounds + 1):
        ctx.ui.say(f"== round {number} of {rounds}: new masks by {made.run}")
        relabelled = run_relabel(preset, ctx, made.run)
        ctx.ui.say(f"== round {number} of {rounds}: training on {relabelled.run}")
        made = run_train(preset, ctx, relabelled.run)
        lost += [entry for entry in (*relabelled.lost, *made.lost) if entry not in lost]
    return Result(made.run, lost=lost, skipped=made.skipped)
