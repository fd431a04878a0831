"""The train stage: the segmentation network on pseudo masks, on labels that were drawn, or on true masks."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch

from wsss_cli.config.schema import Preset
from wsss_cli.config.train import TrainConfig
from wsss_cli.data.columns import names_of
from wsss_cli.data.dataset import Dataset, Sample
from wsss_cli.engine.context import Context
from wsss_cli.engine.fit import Scores
from wsss_cli.engine.pointers import weight_file
from wsss_cli.engine.records import other_classes
from wsss_cli.engine.rundir import RunDir
from wsss_cli.errors import DataError, WeightsError
from wsss_cli.kernels.trials import usable
from wsss_cli.models.build import build_segmentor
from wsss_cli.models.segmentor import Segmentor
from wsss_cli.ranks.group import only_first
from wsss_cli.ranks.layers import same_statistics
from wsss_cli.stages.kernel_choice import check_kernels, training_kernels
from wsss_cli.stages.kernel_trials import TRAINING
from wsss_cli.stages.network_scores import ScoreOptions, score_network
from wsss_cli.stages.opening import open_step
from wsss_cli.stages.paths import confidence_files, mask_files
from wsss_cli.stages.plan import Experiment, Step
from wsss_cli.stages.preflight import check_class_weights, check_ranks
from wsss_cli.stages.segmentation import SegmentationTask
from wsss_cli.stages.sources import hold_to_sources
from wsss_cli.stages.training import note_lost, train_network
from wsss_cli.stages.training_data import still_lost, training_item, training_samples, unusable
from wsss_cli.stages.trusted import trusted_labels
from wsss_cli.weights.choice import with_file
from wsss_cli.weights.formats import read_holds, recognise
from wsss_cli.weights.load import differences, load_into, load_state
from wsss_cli.weights.tables import without_prefix


def run_train(step: Step, exp: Experiment, ctx: Context) -> None:
    """Train the segmentation network of a preset, from its last checkpoint where there is one.

    Args:
        step: reads the pseudo run whose masks are trained on; with full supervision none.
    """
    preset, dataset = exp.preset, exp.dataset
    config = preset.train
    check_training(config, dataset, ctx.device)
    config = on_usable_kernels(config, ctx.device)
    masks = step.reads[0].path if step.reads else None
    listed = dataset.split(preset.dataset.train)
    trusted = trusted_labels(preset, dataset, "train")
    samples = training_samples(listed, config, masks, trusted)
    unmasked = mask_files(masks).without_file(listed) if masks else ()
    without = [(name, f"{masks} has no mask of it") for name in names_of(unmasked)]
    trust = confidence_files(masks) if masks else None
    make = partial(training_item, config=config, num_classes=dataset.num_classes, confidence=trust, trusted=trusted)
    with open_step(step, exp) as run:
        if run.done:
            missing = ({"id": name, "reason": reason} for name, reason in without)
            unscored = unusable(_validated_on(preset, dataset), dataset.num_classes, {one["id"] for one in run.lost})
            run.finish(lost=[*still_lost(samples, make, ctx, run), *missing, *unscored])
            return
        only_first(lambda: hold_to_sources(run, step, exp, ctx.stop.check))
        note_lost(without, run, ctx)
        torch.manual_seed(preset.seed)  # the new layers' first weights
        model = build_segmentor(config, dataset.num_classes, ctx.device, weights=not config.init)
        if config.init:
            start_from(model, Path(config.init), reset_head=config.reset_head)
            if not config.reset_head and (others := other_classes(Path(config.init), dataset.classes)):
                ctx.ui.say(f"train.init: {others}: its classifiers are taken by number; --reset-head draws them anew")
        put_on_kernels(model, config)
        if config.patience and not _validated_on(preset, dataset):
            why = "has no masks" if preset.dataset.val in dataset.split_sha256 else "is not there"
            ctx.ui.say(f"train.patience: split {preset.dataset.val!r} {why}, so training goes on to its end")
        validate = partial(_validate, preset=preset, dataset=dataset, run=run, ctx=ctx)
        task = SegmentationTask(model, config, validate, ctx.ui.say)
        title = f"{config.head.kind}, {config.supervision}"
        train_network(task, config, samples, make, run, ctx, seed=preset.seed, title=title, target="mask")
        run.finish(lost=run.lost, device=ctx.device_name)


def check_training(config: TrainConfig, dataset: Dataset, device: torch.device) -> None:
    """Refuse settings that cannot be trained with here, before anything is made for the training.

    Raises:
        UsageError: kernels that cannot run here, or class weights of other classes.
    """
    check_kernels(config, device.type)
    check_ranks(config)
    check_class_weights(config, dataset.num_classes)


def on_usable_kernels(config: TrainConfig, device: torch.device) -> TrainConfig:
    """The settings of a training with the kernels that 'auto' means; 'plain' where one fails its trial."""
    kernels = training_kernels(config, device.type)
    if kernels == "fused":
        right = [usable(check, device) for check in TRAINING]  # all are tried: each that fails is named
        kernels = "fused" if all(right) else "plain"
    return config.model_copy(update={"kernels": kernels})


def put_on_kernels(model: Segmentor, config: TrainConfig) -> None:
    """Put a network's training on the kernels that a preset asks for, in place."""
    if config.kernels == "fused":
        from wsss_cli.models.fused import fuse  # here, as not every machine has Triton

        fuse(model)


def start_from(model: Segmentor, path: Path, *, reset_head: bool) -> None:
    """Give a new network the weights of a trained one.

    Args:
        path: a train run (its last checkpoint), a checkpoint folder, an imported directory, or a weight file of
            one, also FILE:PART.
        reset_head: keep the model's own classifiers, and its own auxiliary head where the weights have none.
    Raises:
        WeightsError: another architecture or class count; the first keys that differ are named.
    """
    file = weight_file(path)
    model_state = model.state_dict()
    state = without_prefix(load_state(file), model_state)
    if (file_format := recognise(state, read_holds(file))).kind != "wsss-segmentor":
        raise WeightsError(
            f"{file} is {file_format.title}, no network to start from", with_file(file_format.advice, file)
        )
    head = model.holds["head"]
    if file_format.head and file_format.head != head:
        raise WeightsError(
            f"{file} is {file_format.title}; train.head.kind is {head}, not {file_format.head}",
            f"--set train.head.kind={file_format.head}",
        )
    if model.aux is None:
        state = {key: tensor for key, tensor in state.items() if not key.startswith("aux.")}
    fresh = {key: model_state[key] for key in model.classifier_keys()}
    if not any(key.startswith("aux.") for key in state):
        fresh |= {key: tensor for key, tensor in model_state.items() if key.startswith("aux.")}
    reset_state = {key: tensor for key, tensor in state.items() if key not in fresh} | fresh
    if reset_head:
        load_into(model, reset_state, str(file))
        return
    wrong = differences(model_state, state)
    if wrong and not differences(model_state, reset_state):  # the body fits
        same = file_format.num_classes == model.num_classes
        fault = (
            "has no auxiliary head"
            if same
            else f"has {file_format.num_classes} classes, {model.num_classes} are needed"
        )
        raise WeightsError(
            f"{file} {fault}: {'; '.join(wrong)}",
            "--reset-head keeps everything but the classifiers and draws those anew",
        )
    load_into(model, state, str(file))


def _validate(model: Segmentor, *, preset: Preset, dataset: Dataset, run: RunDir, ctx: Context) -> Scores:
    """Single-scale mIoU, in per cent, on the val split or an even part of it; empty where there is none with masks.

    None where these hold no label, and where one is no mask of these classes. What cannot be scored ends no training,
    and is noted as lost in the run.
    """
    samples = _validated_on(preset, dataset)
    if not samples:
        return {}
    same_statistics(model)
    try:
        scores, lost = score_network(model, samples, dataset, preset, ctx, options=ScoreOptions(), title="validation")
    except DataError as error:
        ctx.ui.say(f"validation without a score: {error}")
        wrong = only_first(lambda: list(unusable(samples, dataset.num_classes)))
        note_lost([(entry["id"], entry["reason"]) for entry in wrong], run, ctx)
        return {"miou": None}
    if lost:
        ctx.ui.say(f"validation without {len(lost)} of {len(samples)} images")
        note_lost([(entry["id"], entry["reason"]) for entry in lost], run, ctx)
    return {"miou": scores["single"]["miou"]}


def _validated_on(preset: Preset, dataset: Dataset) -> list[Sample]:
    """The images of periodic validations: those of the val split with masks, or an even part of them."""
    if preset.dataset.val not in dataset.split_sha256:
        return []
    samples = [s for s in dataset.split(preset.dataset.val) if s.mask is not None]
    if 0 < preset.train.val_images < len(samples):
        samples = [samples[i] for i in np.linspace(0, len(samples) - 1, preset.train.val_images).astype(int)]
    return samples
