"""The steps of a plan in order. Stages know nothing of each other; this alone runs one after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from wsss_cli.cam.gradcam import check_layer
from wsss_cli.config.cam import GradCamConfig
from wsss_cli.engine.context import Context
from wsss_cli.errors import UsageError, WeightsError, WsssError
from wsss_cli.models.build import build_affinity, build_classifier, build_segmentor
from wsss_cli.ranks.group import only_first
from wsss_cli.ranks.who import here
from wsss_cli.stages.affinity import affinity_config, run_affinity
from wsss_cli.stages.cam import run_cam
from wsss_cli.stages.changes import say_changes
from wsss_cli.stages.classifier import run_classifier, run_recam
from wsss_cli.stages.evaluate import ScoredOn, run_eval
from wsss_cli.stages.foretelling import Foretelling
from wsss_cli.stages.plan import Experiment, Step
from wsss_cli.stages.pseudo import run_pseudo
from wsss_cli.stages.relabel import run_relabel
from wsss_cli.stages.report import leave_report
from wsss_cli.stages.show import SHEET, leave_sheet
from wsss_cli.stages.train import check_training, run_train, start_from
from wsss_cli.weights.sources import as_one

DRAWN = ("cam", "pseudo", "relabel", "train")  # steps that leave a sheet of pictures in the run; all leave a page


def run_steps(steps: Sequence[Step], exp: Experiment, ctx: Context) -> None:
    """Run every step that is not done, on all ranks; each goes on where it was stopped.

    Raises:
        WsssError: a network of any of them cannot be made; found before the first is begun.
    """
    todo = [step for step in steps if not step.done]
    if any(step.stage == "train" for step in todo):
        check_training(exp.preset.train, exp.dataset, ctx.device)
    only_first(lambda: check_networks(todo, exp))
    only_first(lambda: say_changes(steps, exp, ctx.ui.say))
    foretelling = None if here().rank else Foretelling(ctx.ui, exp, todo, ctx.device.type)
    watched = replace(ctx, ui=foretelling) if foretelling else ctx
    for number, step in enumerate(todo):
        if len(todo) > 1:
            ctx.ui.say(f"== {step.stage} ({number + 1} of {len(todo)})")
        if foretelling:
            foretelling.at = number
        run_step(step, exp, watched)


def check_networks(todo: Sequence[Step], exp: Experiment) -> None:
    """Make the network of every training once, with its weights, which are fetched where they are not there yet.

    Raises:
        WsssError: all that keeps networks from being made: no such backbone, weights that cannot be had or do not fit.
    """
    faults: list[WsssError] = []
    for stage in dict.fromkeys(step.stage for step in todo):
        try:
            _make_network(stage, exp)
        except (UsageError, WeightsError) as error:
            faults.append(error)
    if faults:
        raise as_one(faults)


def _make_network(stage: str, exp: Experiment) -> None:
    preset, classes, cpu = exp.preset, exp.dataset.num_classes, torch.device("cpu")
    match stage:
        case "classifier":
            classifier = build_classifier(preset.classifier, classes, cpu)
            if isinstance(preset.cam.method, GradCamConfig) and preset.cam.method.layer:
                check_layer(classifier, preset.cam.method.layer)
        case "irn" | "psa":
            build_affinity(affinity_config(preset, stage), cpu)
        case "train":
            init = preset.train.init
            network = build_segmentor(preset.train, classes, cpu, weights=not init)
            if init:
                start_from(network, Path(init), reset_head=preset.train.reset_head)


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
            on = ScoredOn(moved=str(exp.dataset.root))  # it may lie elsewhere than when it was trained on
            run_eval(step.path, ctx, ms_flip=True, views=exp.preset.eval.model_dump(), on=on)
    only_first(lambda: _leave_pictures(step, ctx))


def _leave_pictures(step: Step, ctx: Context) -> None:
    if step.stage in DRAWN or (step.stage == "eval" and not (step.path / SHEET).is_file()):
        leave_sheet(step.path, ctx)
    leave_report(step.path, ctx)
