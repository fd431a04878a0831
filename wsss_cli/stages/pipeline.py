"""The steps of a plan in order. Stages know nothing of each other; this alone runs one after another."""

from __future__ import annotations

from collections.abc import Sequence

from wsss_cli.engine.context import Context
from wsss_cli.stages.affinity import run_affinity
from wsss_cli.stages.cam import run_cam
from wsss_cli.stages.changes import say_changes
from wsss_cli.stages.classifier import run_classifier, run_recam
from wsss_cli.stages.evaluate import run_eval
from wsss_cli.stages.plan import Experiment, Step
from wsss_cli.stages.pseudo import run_pseudo
from wsss_cli.stages.relabel import run_relabel
from wsss_cli.stages.train import check_training, run_train


def run_steps(steps: Sequence[Step], exp: Experiment, ctx: Context) -> None:
    """Run every step that is not done; each goes on where it was stopped."""
    todo = [step for step in steps if not step.done]
    if any(step.stage == "train" for step in todo):
        check_training(exp.preset.train, exp.dataset, ctx.device)
    say_changes(steps, exp, ctx.ui.say)
    for number, step in enumerate(todo, 1):
        if len(todo) > 1:
            ctx.ui.say(f"== {step.stage} ({number} of {len(todo)})")
        run_step(step, exp, ctx)


def run_step(step: Step, exp: Experiment, ctx: Context) -> None:
    """Run the stage of a step, whose earlier runs are there."""
    match step.stage:
        case "classifier":
            run_classifier(step, exp, ctx)
        case "recam":
            run_recam(step, exp, ctx)
        case "cam":
            run_cam(step, exp, ctx)
        case "irn" | "psa":
            run_affinity(step, exp, ctx)
        case "pseudo":
            run_pseudo(step, exp, ctx)
        case "relabel":
            run_relabel(step, exp, ctx)
        case "train":
            run_train(step, exp, ctx)
        case "eval":
            run_eval(step.path, ctx, ms_flip=True)
